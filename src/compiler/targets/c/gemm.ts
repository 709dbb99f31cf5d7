/** Temporary plain product until the tiled kernel lands. */
import { cTypes, type Support, type VectorTarget } from './prelude.ts'

export interface Operand { readonly dtype: 'f32' | 'f64' | 'bf16'; readonly rowStride: number; readonly colStride: number }
export interface DotSpec { readonly a: Operand; readonly b: Operand; readonly out: 'f32' | 'f64'; readonly batchDims: readonly { size: number; a: number; b: number }[]; readonly m: number; readonly n: number; readonly k: number }

export function emitDot(name: string, s: DotSpec, _: VectorTarget): { code: string; support: readonly Support[]; scratchBytes: number } {
  const ld = (o: Operand, p: string): string => (o.dtype === 'bf16' ? `bf16_to_f32(${p})` : p)
  const batch = s.batchDims.reduce((n, d) => n * d.size, 1)
  let below = batch
  const offs = s.batchDims.map((d) => { below /= d.size; return { i: `(z / ${below} % ${d.size})`, a: d.a, b: d.b } })
  const code = `static void ${name}(const int tid, const void *pa, const void *pb, void *po) {
  const ${cTypes[s.a.dtype]} *a = pa; const ${cTypes[s.b.dtype]} *b = pb; ${cTypes[s.out]} *o = po;
  RANGE(${batch * s.m}, 1)
  for (int64_t q = begin; q < end; q++) { const int64_t z = q / ${s.m}, i = q % ${s.m}; (void)z;
    const int64_t ao = ${offs.map((d) => `${d.i} * ${d.a}`).join(' + ') || '0'} + i * ${s.a.rowStride}, bo = ${offs.map((d) => `${d.i} * ${d.b}`).join(' + ') || '0'};
    for (int64_t j = 0; j < ${s.n}; j++) { ${cTypes[s.out]} t = 0;
      for (int64_t p = 0; p < ${s.k}; p++) t += ${ld(s.a, `a[ao + p * ${s.a.colStride}]`)} * ${ld(s.b, `b[bo + p * ${s.b.rowStride} + j * ${s.b.colStride}]`)};
      o[q * ${s.n} + j] = t; COUNT(${2 * s.k}); } }
}
`
  return { code, support: [], scratchBytes: 0 }
}
