/**
 * Attention in C, forward and backward, without a queries x keys array: a thread takes a block of queries of one head,
 * computes its scores against the visible keys only, and uses them while they are in cache (Dao et al.,
 * "FlashAttention"; the scores of a block are whole rows here, so that no running maximum is needed). All inner products
 * run in the register tiles of tile.ts. One driver per element type follows a constant plan.
 *
 * Parallel over (batch, head, block) forward; over (batch, key/value head) backward, where a thread owns dK and dV.
 */
import { attentionBackwardFlops, attentionFlops } from '../../composites/attention.ts'
import {
  backwardScratch,
  forwardScratch,
  planAttention,
  scoreColumns,
  scratchBytes,
  visibleKeys,
  type AttentionPlan,
  type AttentionSpec,
} from './attention-plan.ts'
import { emitAttentionShared, emitBackwardDriver, emitForwardDriver } from './attention-drivers.ts'
import type { EmittedKernel } from './gemm.ts'
import { cTypes, type Support, type VectorTarget } from './prelude.ts'
import { emitTile, emitTranspose, tileName, tileType } from './tile.ts'

export type { AttentionSpec, Strides } from './attention-plan.ts'

/**
 * C text of `static void NAME(const int tid, q, k, v, o, lse, void *scratch)`: `o` is dense [batch, queries, heads, dim],
 * `lse` (log of the sum of exponentials of scaled scores) dense [batch, heads, queries].
 */
export function emitAttention(name: string, spec: AttentionSpec, target: VectorTarget): EmittedKernel {
  const T = cTypes[spec.dtype]
  const plan = planAttention(spec, target)
  const bytes = scratchBytes(forwardScratch(spec, plan), spec.dtype)
  return {
    code: `
/* ${describe(spec)}: ${attentionFlops(spec)} operations. */
${planText(name, spec, plan, bytes)}
static void ${name}(const int tid, const ${T} *q, const ${T} *k, const ${T} *v, ${T} *o, ${T} *lse, void *scratch) {
  attention_forward_${spec.dtype}(tid, &${name}_plan, q, k, v, o, lse, scratch);
}
`,
    support: [...shared(spec, plan, target), emitForwardDriver(spec.dtype)],
    scratchBytes: target.threads * bytes,
  }
}

/**
 * C text of `static void NAME(const int tid, q, k, v, o, lse, dO, dq, dk, dv, void *scratch)`: dO and the gradients are
 * dense, [batch, queries, heads, dim] and [batch, keys, kvHeads, dim]; probabilities are recomputed from `lse`.
 */
export function emitAttentionBackward(
  name: string,
  spec: AttentionSpec,
  target: VectorTarget,
): EmittedKernel {
  const T = cTypes[spec.dtype]
  const plan = planAttention(spec, target)
  const bytes = scratchBytes(backwardScratch(spec, plan), spec.dtype)
  const inputs = ['q', 'k', 'v', 'o', 'lse', 'dO']
  const outputs = ['dq', 'dk', 'dv']
  const parameters = [...inputs.map((x) => `const ${T} *${x}`), ...outputs.map((x) => `${T} *${x}`)]
  return {
    code: `
/* Gradient of ${describe(spec)}: ${attentionBackwardFlops(spec)} operations. */
${planText(name, spec, plan, bytes)}
static void ${name}(const int tid, ${parameters.join(', ')}, void *scratch) {
  attention_backward_${spec.dtype}(tid, &${name}_plan, ${[...inputs, ...outputs].join(', ')}, scratch);
}
`,
    support: [...shared(spec, plan, target), emitBackwardDriver(spec.dtype)],
    scratchBytes: target.threads * bytes,
  }
}

function describe({ batch, queries, keys, heads, kvHeads, dim, causal, window }: AttentionSpec): string {
  const mask = window > 0 ? `window ${window}` : causal ? 'causal' : 'no mask'
  return `attention of ${batch} x ${heads} heads (${kvHeads} of keys), ${queries} queries, ${keys} keys, ${dim} wide, ${mask}`
}

function shared(spec: AttentionSpec, plan: AttentionPlan, target: VectorTarget): Support[] {
  return [
    tileType(spec.dtype),
    ...[plan.score, plan.halfScore, plan.wide].map(emitTile),
    emitTranspose(spec.dtype, target),
    ...emitAttentionShared(spec.dtype, target),
  ]
}

/** The constants of a kernel, with the work before each block of queries so that threads get equal shares. */
function planText(name: string, spec: AttentionSpec, plan: AttentionPlan, privateBytes: number): string {
  const { blockRows: rows } = plan
  const before = [0]
  for (let start = 0; start < spec.queries; start += rows) {
    let work = 0
    for (let i = start; i < Math.min(start + rows, spec.queries); i++) {
      const [first, end] = visibleKeys(spec, i)
      work += 1 + end - first
    }
    before.push(before.at(-1)! + work)
  }
  const fields: Record<string, number | string> = {
    batch: spec.batch,
    queries: spec.queries,
    keys: spec.keys,
    heads: spec.heads,
    kvHeads: spec.kvHeads,
    dim: spec.dim,
    bounded: Number(spec.causal || spec.window > 0),
    window: spec.window,
    scale: spec.scale,
    panel: plan.panel,
    paddedDim: plan.paddedDim,
    paddedKeys: plan.paddedKeys,
    blockRows: rows,
    columns: scoreColumns(spec, plan),
    scoreRows: plan.score.rows,
    wideRows: plan.wide.rows,
    wideColumns: `${plan.wide.vectors} * LANES_${spec.dtype}`,
    privateBytes,
  }
  const strides = (['q', 'k', 'v'] as const).map(
    (x) => `.${x} = {${spec[x].batch}, ${spec[x].time}, ${spec[x].head}}`,
  )
  const pointer = (tile: AttentionPlan['score']): string => `(const void *)${tileName(tile)}`
  return `static const attention_plan ${name}_plan = {
  ${Object.entries(fields)
    .map(([field, value]) => `.${field} = ${value}`)
    .join(', ')},
  ${strides.join(', ')},
  .score = ${pointer(plan.score)}, .halfScore = ${pointer(plan.halfScore)}, .wide = ${pointer(plan.wide)},
  .before = (const long[]){${before.join(', ')}}};`
}
