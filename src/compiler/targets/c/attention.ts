/**
 * Attention in C, forward and backward, without a queries x keys array: a thread takes a block of queries of one head,
 * computes its scores against a block of the visible keys, and uses them while they are in cache (Dao et al.,
 * "FlashAttention"). Work is numbered in units (attention-forward.ts, attention-backward.ts): `NAME_units` does any
 * range of them with scratch of its own, `NAME` the share of one thread of the team.
 */
import {
  attentionBackwardFlops,
  attentionBiasGradientFlops,
  attentionFlops,
} from '../../composites/attention.ts'
import { backwardInputs, emitBackwardUnits } from './attention-backward.ts'
import { biasUnits, emitBiasUnits, type BiasShape } from './attention-bias.ts'
import { extraArguments, extraParameters } from './attention-extra.ts'
import { emitForwardUnits } from './attention-forward.ts'
import { planAttention, workBefore, type AttentionSpec } from './attention-plan.ts'
import { attentionSupport } from './attention-tiles.ts'
import type { EmittedKernel } from './gemm.ts'
import { cTypes, type VectorTarget } from './prelude.ts'

export type { BiasShape } from './attention-bias.ts'
export type { AttentionSpec, PairStrides, Strides } from './attention-plan.ts'

/**
 * C text of `static void NAME(const int tid, q, k, v, [bias], [mask], o, lse, void *scratch)`: `o` is dense [batch,
 * queries, heads, dim], `lse` (log of the sum of exponentials of scores) dense [batch, heads, queries].
 */
export function emitAttention(name: string, spec: AttentionSpec, target: VectorTarget): EmittedKernel {
  const T = cTypes[spec.dtype]
  const plan = planAttention(spec, target)
  const { code, bytes } = emitForwardUnits(name, spec, plan)
  const before = workBefore(spec, plan)
  const work = before.at(-1)!
  return {
    code: `
/* ${describe(spec)}: ${attentionFlops(spec)} operations. */
${code}
/* The first unit of a thread's share: units differ in work. */
static long ${name}_start(const long tid) {
  static const long before[] = {${before.join(', ')}};
  const long target = ${spec.batch * spec.heads * work} / THREADS * tid, rest = target % ${work};
  long block = 0;
  while (before[block] < rest) block++;
  return tid == THREADS ? ${spec.batch * spec.heads * plan.blocks} : target / ${work} * ${plan.blocks} + block;
}
static void ${name}(const int tid, const ${T} *q, const ${T} *k, const ${T} *v, ${extraParameters(spec)}${T} *o, ${T} *lse, void *scratch) {
  ${name}_units(tid, ${name}_start(tid), ${name}_start(tid + 1), q, k, v, ${extraArguments(spec)}o, lse, (char *)scratch + tid * ${bytes}L);
}
`,
    support: attentionSupport(spec.dtype, target),
    scratchBytes: target.threads * bytes,
  }
}

/**
 * C text of `static void NAME(const int tid, q, k, v, o, lse, dO, [bias], [mask], [dLse], dq, dk, dv, void *scratch)`: dO
 * and the gradients are dense, [batch, queries, heads, dim] and [batch, keys, kvHeads, dim]; probabilities are
 * recomputed from `lse`.
 */
export function emitAttentionBackward(
  name: string,
  spec: AttentionSpec,
  target: VectorTarget,
): EmittedKernel {
  const T = cTypes[spec.dtype]
  const plan = planAttention(spec, target)
  const { code, bytes } = emitBackwardUnits(name, spec, plan)
  const units = `${spec.batch * spec.kvHeads}L`
  const inputs = `q, k, v, o, lse, dO, ${extraArguments(spec)}${spec.dLse ? 'dLse, ' : ''}`
  return {
    code: `
/* Gradient of ${describe(spec)}: ${attentionBackwardFlops(spec)} operations. */
${code}
static void ${name}(const int tid, ${backwardInputs(spec)}${T} *dq, ${T} *dk, ${T} *dv, void *scratch) {
  ${name}_units(tid, ${units} * tid / THREADS, ${units} * (tid + 1) / THREADS, ${inputs}dq, dk, dv, (char *)scratch + tid * ${bytes}L);
}
`,
    support: attentionSupport(spec.dtype, target),
    scratchBytes: target.threads * bytes,
  }
}

/**
 * C text of `static void NAME(const int tid, q, k, v, o, lse, dO, bias, [mask], [dLse], dBias, void *scratch)`: dBias is
 * dense, of the shape of the bias.
 */
export function emitAttentionBias(
  name: string,
  spec: AttentionSpec,
  shape: BiasShape,
  target: VectorTarget,
): EmittedKernel {
  const T = cTypes[spec.dtype]
  const plan = planAttention(spec, target)
  const { code, bytes } = emitBiasUnits(name, spec, shape, plan)
  const units = `${biasUnits(shape, plan)}L`
  const inputs = `q, k, v, o, lse, dO, ${extraArguments(spec)}${spec.dLse ? 'dLse, ' : ''}`
  return {
    code: `
/* Gradient for the bias of ${describe(spec)}: ${attentionBiasGradientFlops(spec)} operations. */
${code}
static void ${name}(const int tid, ${backwardInputs(spec)}${T} *dBias, void *scratch) {
  ${name}_units(tid, ${units} * tid / THREADS, ${units} * (tid + 1) / THREADS, ${inputs}dBias, (char *)scratch + tid * ${bytes}L);
}
`,
    support: attentionSupport(spec.dtype, target),
    scratchBytes: target.threads * bytes,
  }
}

function describe({
  batch,
  queries,
  keys,
  heads,
  kvHeads,
  dim,
  causal,
  window,
  bias,
  mask,
}: AttentionSpec): string {
  const rule = window > 0 ? `window ${window}` : causal ? 'causal' : 'all keys'
  const data = `${bias ? ', bias' : ''}${mask ? ', mask' : ''}`
  return `attention of ${batch} x ${heads} heads (${kvHeads} of keys), ${queries} queries, ${keys} keys, ${dim} wide, ${rule}${data}`
}
