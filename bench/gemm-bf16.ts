/**
 * Matrix products of bf16 operands beside f32, on all threads: `npm run bench gemm-bf16`. Each product runs inside one
 * native call, so that only kernels and barriers are timed; the best of several rounds counts. Peaks are measured in the
 * same run, from registers alone: f32 multiply-adds, and each kind of instruction that products of bf16 can use.
 */
import { parseArgs } from 'node:util'
import { machine } from '../src/compiler/runtime/machine.ts'
import { compileShared, loadShared } from '../src/compiler/runtime/toolchain.ts'
import { dotFlops, emitDot, type DotSpec } from '../src/compiler/targets/c/gemm.ts'
import { asTeam, scratchOf } from '../src/compiler/targets/c/harness.ts'
import { prelude, uniqueSupport, type VectorTarget } from '../src/compiler/targets/c/prelude.ts'
import { dotPairs } from '../src/compiler/targets/c/tile-bf16.ts'

const shapes: readonly (readonly [number, number, number])[] = [
  [256, 256, 256],
  [512, 512, 512],
  [1024, 2304, 768],
  [768, 3072, 1024],
  [4096, 768, 768],
  [16384, 384, 384],
]

/** How operands lie in memory: forward, gradient of the input (b turned), gradient of the weights (a turned). */
const layouts = ['x w', "g w'", "x' g"] as const

function specOf(
  dtype: 'f32' | 'bf16',
  [m, n, k]: readonly [number, number, number],
  layout: (typeof layouts)[number],
): DotSpec {
  const turned = (rows: number): { rowStride: number; colStride: number } => ({
    rowStride: 1,
    colStride: rows,
  })
  const plain = (columns: number): { rowStride: number; colStride: number } => ({
    rowStride: columns,
    colStride: 1,
  })
  return {
    a: { dtype, ...(layout === "x' g" ? turned(m) : plain(k)) },
    b: { dtype, ...(layout === "g w'" ? turned(k) : plain(n)) },
    out: 'f32',
    batchDims: [],
    m,
    n,
    k,
  }
}

const timing = `
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
typedef void dot_kernel(const int tid, const void *a, const void *b, void *out, void *scratch);
static struct {
  dot_kernel *kernel;
  void *a, *b, *out, *scratch;
  long times, rounds;
  double best;
} job;
static void *work(void *argument) {
  const int tid = (int)(intptr_t)argument;
  for (long round = 0; round < job.rounds; round++) {
    team_barrier(tid);
    const double start = now();
    for (long i = 0; i < job.times; i++) {
      job.kernel(tid, job.a, job.b, job.out, job.scratch);
      team_barrier(tid);
    }
    const double seconds = (now() - start) / (double)job.times;
    if (tid == 0 && seconds < job.best) job.best = seconds;
  }
  return 0;
}
static void run_team(void) {
  pthread_t thread[THREADS];
  job.best = 1e30;
  for (intptr_t i = 1; i < THREADS; i++) pthread_create(&thread[i], 0, work, (void *)i);
  work(0);
  for (int i = 1; i < THREADS; i++) pthread_join(thread[i], 0);
}
static void *filled(const long bytes, const int bf16s) {
  void *const memory = aligned_alloc(64, (size_t)(bytes + 64) / 64 * 64);
  for (long i = 0; i < bytes / (bf16s ? 2 : 4); i++) {
    const float x = (float)((i * 2654435761u >> 8) % 2001) / 1000.0f - 1.0f;
    if (bf16s) ((bf16 *)memory)[i] = f32_to_bf16(x);
    else ((float *)memory)[i] = x;
  }
  return memory;
}
static double measure(dot_kernel *kernel, const int bf16s, const double flops, const long a, const long b, const long out,
                      const long scratch) {
  job.kernel = kernel;
  job.a = filled(a, bf16s), job.b = filled(b, bf16s), job.out = filled(out, 0), job.scratch = filled(scratch, 0);
  job.times = 1, job.rounds = 2;
  run_team();
  job.times = (long)(0.02 / job.best) + 1, job.rounds = 12;
  run_team();
  free(job.a), free(job.b), free(job.out), free(job.scratch);
  return flops / job.best;
}
`

/** A loop of one instruction on 16 accumulators: the kernel ignores its operands. */
const peakLoop = (name: string, vector: string, operand: string, step: string): string => `
static void peak_${name}(const int tid, const void *a, const void *b, void *out, void *scratch) {
  (void)a, (void)b, (void)scratch;
  ${vector} sum[16];
  volatile float start = 1.0f; /* or the compiler would merge chains that begin alike */
  _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) sum[i] = (${vector}){0} + (${vector === 'vf32' ? 'float' : 'int32_t'})(start + i);
  const ${operand} x = (${operand}){0} + (${operand === 'vf32' ? 'float' : 'uint32_t'})start, y = x;
  for (long r = 0; r < 100000; r++) {
    _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) sum[i] = ${step};
  }
  ${vector} total = sum[0];
  _Pragma("GCC unroll 16") for (int i = 1; i < 16; i++) total += sum[i];
  memcpy((char *)out + tid * VECTOR_BYTES, &total, sizeof total);
}
`

const multiplyAdds = 100_000 * 16

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({ args: [...args], options: { threads: { type: 'string' } } })
  const here = await machine()
  const threads = values.threads ? Number(values.threads) : here.cores
  const base = { threads, vectorBytes: here.vectorBytes, registers: here.registers } as const
  const kinds = ['f32', 'bf16 as f32', 'bf16 dot', 'i16 dot'] as const
  type Kind = (typeof kinds)[number]
  const targetOf: Readonly<Record<Kind, VectorTarget>> = {
    f32: base,
    'bf16 as f32': base,
    'bf16 dot': { ...base, bf16Products: 'bf16' },
    'i16 dot': { ...base, bf16Products: 'i16' },
  }
  const cases = shapes.flatMap((shape) =>
    layouts.flatMap((layout) => kinds.map((kind) => ({ shape, layout, kind }))),
  )
  const kernels = cases.map(({ shape, layout, kind }, i) => {
    const spec = specOf(kind === 'f32' ? 'f32' : 'bf16', shape, layout)
    return { spec, name: `dot${i}`, kernel: emitDot(`dot${i}`, spec, targetOf[kind]) }
  })
  const source = [
    '#define _GNU_SOURCE',
    prelude(base),
    dotPairs.code,
    uniqueSupport(
      kernels.flatMap(({ kernel }) => kernel.support.filter(({ name }) => name !== dotPairs.name)),
    ),
    timing,
    peakLoop('f32', 'vf32', 'vf32', 'sum[i] * x + y'),
    peakLoop('bf16', 'vf32', 'vu32', 'dot_pairs_bf16(sum[i], x, y)'),
    peakLoop('i16', 'vi32', 'vu32', 'dot_pairs_i16(sum[i], x, y)'),
    ...['f32', 'bf16', 'i16'].map(
      (name) =>
        `double run_peak_${name}(void) { return measure(peak_${name}, 0, THREADS * ${multiplyAdds}.0 * ${name === 'f32' ? 2 : 4} * LANES_f32, 64, 64, 64 * THREADS, 64); }`,
    ),
    ...kernels.map(({ kernel, name, spec }) => {
      const bytes = spec.a.dtype === 'bf16' ? 2 : 4
      return `${kernel.code}${asTeam(name, kernel)}
double run_${name}(void) {
  return measure(${name}_team, ${bytes === 2 ? 1 : 0}, ${dotFlops(spec)}.0, ${spec.m * spec.k * bytes}, ${spec.k * spec.n * bytes}, ${spec.m * spec.n * 4}, ${scratchOf(kernel) + 64});
}`
    }),
  ].join('\n')
  const library = loadShared((await compileShared({ name: 'bench-gemm-bf16', source })).path)
  const rate = (name: string): number => (library.func(`double run_${name}(void)`) as () => number)() / 1e9
  const peaks = { f32: rate('peak_f32'), bf16: rate('peak_bf16'), i16: rate('peak_i16') }
  console.log(`${here.cpuModel}, ${threads} threads, ${here.features.join(' ')}`)
  console.log(
    `peaks from registers, Gop/s: f32 multiply-add ${peaks.f32.toFixed(0)}, bf16 dot ${peaks.bf16.toFixed(0)}, 16-bit integer dot ${peaks.i16.toFixed(0)}`,
  )
  const peakOf: Readonly<Record<Kind, number>> = {
    f32: peaks.f32,
    'bf16 as f32': peaks.f32,
    'bf16 dot': peaks.bf16,
    'i16 dot': peaks.i16,
  }
  console.log(['m, n, k'.padEnd(18), 'layout', ...kinds.map((kind) => kind.padStart(17))].join('  '))
  for (const shape of shapes) {
    for (const layout of layouts) {
      const cells = kinds.map((kind) => {
        const at = cases.findIndex((one) => one.shape === shape && one.layout === layout && one.kind === kind)
        const got = rate(`dot${at}`)
        return `${got.toFixed(0)} (${((100 * got) / peakOf[kind]).toFixed(0)} %)`.padStart(17)
      })
      console.log([shape.join(', ').padEnd(18), layout.padEnd(6), ...cells].join('  '))
    }
  }
}
