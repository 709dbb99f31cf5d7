/**
 * Matrix products that are shared out by rows: a thread computes whole rows of the result, so that what made those rows
 * of `a` and what uses the result can run in the same chain (schedule.ts). `b`, the weights, is packed once before, by a
 * kernel of its own; where its memory already is one panel it is read in place.
 */
import { accumulator, type DotSpec, type GemmPlan } from './gemm-plan.ts'
import { cTypes, floatBytes, lanesOf, roundUp, type Support, type VectorTarget } from './prelude.ts'

/** Copies of b that are larger are made in pieces, by the team's driver. */
const packedLimit = 64 << 20

/** Whether a product is shared out by rows: no batches, rows enough for every thread, and `a` readable as it is. */
export function goesByRows(spec: DotSpec, target: VectorTarget): boolean {
  const { a, b, out, m, n, k } = spec
  const acc = accumulator(spec)
  const plain = spec.batchDims.length === 0 && a.dtype === acc && b.dtype === acc && out === acc
  return plain && a.colStride === 1 && n > 1 && m >= 48 * target.threads && k * n * floatBytes[acc] <= packedLimit
}

/** Whether b is one panel of whole vectors already. */
export const isPanel = ({ b, n }: DotSpec, plan: GemmPlan, lanes: number): boolean =>
  plan.panels === 1 && n % lanes === 0 && b.colStride === 1 && b.rowStride === n

/** The plan of the team's driver with blocks for whole rows: long in depth, and as many rows as the second-level cache holds. */
export function planRows(plan: GemmPlan, spec: DotSpec): GemmPlan {
  const { k } = spec
  const depthAtOnce = Math.ceil(k / Math.ceil(k / 768))
  const tilesAtOnce = Math.max(1, Math.floor((768 * 1024) / (depthAtOnce * floatBytes[accumulator(spec)] * plan.rows)))
  return { ...plan, firstPacked: 0, panelsAtOnce: plan.panels, packA: false, copies: 1, depthAtOnce, tilesAtOnce }
}

/** Bytes of the copy of b. */
export function packedBytes({ panels, vectors, tailVectors }: GemmPlan, spec: DotSpec, target: VectorTarget): number {
  const acc = accumulator(spec)
  const columns = ((panels - 1) * vectors + tailVectors) * lanesOf(acc, target)
  return roundUp(columns * spec.k * floatBytes[acc], 64)
}

/** The driver: rows [begin, end) of the result, from packed panels of b. */
export function emitRowsDriver(acc: 'f32' | 'f64', edge: number, target: VectorTarget): Support {
  const T = cTypes[acc]
  const lanes = lanesOf(acc, target)
  return {
    name: `gemm_rows_${acc}`,
    code: `
static void gemm_rows_${acc}(const int tid, const gemm_plan *g, const long begin, const long end, const ${T} *a, const ${T} *b, ${T} *out) {
  const long whole = g->vectors * ${lanes}, rowsAtOnce = g->rows * g->tilesAtOnce;
  ${T} edge[${edge}] __attribute__((aligned(64)));
  for (long first = begin; first < end; first += rowsAtOnce) {
    const long last = least(first + rowsAtOnce, end);
    COUNT(2 * g->k * g->n * (last - first));
    for (long p = 0; p < g->k; p += g->depthAtOnce) {
      const long depth = least(g->depthAtOnce, g->k - p);
      for (long panel = 0; panel < g->panels; panel++) {
        const int lastPanel = panel == g->panels - 1;
        const long width = (lastPanel ? g->tailVectors : g->vectors) * ${lanes}, columns = least(width, g->n - panel * whole);
        const ${T} *right = b + panel * g->k * whole + p * width;
        for (long i = first; i < last; i += g->rows) {
          const long rows = least(g->rows, last - i);
          tile_${acc} *compute = (tile_${acc} *)g->tiles[2 * lastPanel + (rows < g->rows)];
          ${T} *target = out + i * g->n + panel * whole;
          if (columns == width) {
            compute(depth, a + i * g->aRow + p, g->aRow, 1, right, width, target, g->n, p > 0);
            continue;
          }
          if (p > 0)
            for (long r = 0; r < rows; r++)
              for (long j = 0; j < columns; j++) edge[r * width + j] = target[r * g->n + j];
          compute(depth, a + i * g->aRow + p, g->aRow, 1, right, width, edge, width, p > 0);
          for (long r = 0; r < rows; r++)
            for (long j = 0; j < columns; j++) target[r * g->n + j] = edge[r * width + j];
        }
      }
    }
  }
}
`,
  }
}
