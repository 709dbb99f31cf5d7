/**
 * Attention whose positions are cut over a mesh axis (context parallelism). Three ways, all exact:
 *
 * - `gather`: every rank collects all keys and values, and masks by position (as in Llama 3's training).
 * - `heads`: the cut moves from time to heads and back by all-to-all (Jacobs et al., DeepSpeed-Ulysses).
 * - `ring`: keys and values travel around a ring; each rank merges partial results by their log-sum-exp (Liu et al., Ring
 *   Attention). Under a causal mask positions lie in zigzag order: rank i of n holds chunks i and 2n-1-i of 2n, so that
 *   in every step every rank has two chunk pairs to compute, none of them masked.
 */
import { attentionBackwardComposite, attentionComposite } from '../composites/attention.ts'
import { invoke } from '../composites/composite.ts'
import { groupOf, groupSize, meshAxis, type Group, type Layout, type Mesh } from '../graph/mesh.ts'
import type { Attrs, Node } from '../graph/node.ts'
import { compositeName, optionsOf } from '../ops/call.ts'
import { meshIndex } from '../ops/mesh-index.ts'
import { shift } from '../ops/shift.ts'
import { concat, iota, Tensor, where } from '../trace/tensor.ts'
import type { Decision, Placement } from './layouts.ts'
import { localIota } from './local.ts'
import { divides, reshard } from './reshard.ts'

/** Gets input `i` of the call in a layout. */
export type Fetch = (i: number, layout: Layout) => Tensor

/** The mesh axis over which a call's positions are cut, if this file knows what to do about it. */
export function contextAxis(node: Node, { inputs }: Decision, { named }: Placement): string | null {
  const axes = inputs[0]?.dims[1] ?? []
  const options = optionsOf(node)
  const known = ['attention', 'attentionBackward'].includes(compositeName(node))
  const plain = !options['bias'] && !options['mask']
  return known && plain && axes.length === 1 && (named['time'] ?? []).includes(axes[0]!) ? axes[0]! : null
}

/** The local results of the call and how they lie. */
export interface LocalCall {
  readonly results: readonly Tensor[]
  readonly layouts: readonly Layout[]
}

export function contextAttention(
  node: Node,
  axis: string,
  decision: Decision,
  placement: Placement,
  fetch: Fetch,
): LocalCall {
  const { mesh, context } = placement
  const options = optionsOf(node)
  const balanced = !options['causal'] || meshAxis(mesh, axis).order === 'zigzag'
  if (context === 'ring' && options['window'] === 0 && balanced) {
    return { results: ring(node, groupOf(mesh, [axis]), decision, fetch), layouts: decision.results }
  }
  if (context === 'heads') {
    const cuts = [...decision.inputs[0]!.dims[2]!, axis]
    const fits = node.inputs.slice(0, 3).every((x) => divides(mesh, cuts, x.shape[2]!))
    if (fits) return byHeads(node, mesh, axis, decision, fetch)
  }
  return gathered(node, mesh, axis, decision, fetch)
}

function byHeads(
  node: Node,
  mesh: Mesh,
  axis: string,
  { inputs, results }: Decision,
  fetch: Fetch,
): LocalCall {
  const computed = invoke(
    compositeOf(node),
    inputs.map((layout, i) => fetch(i, cutByHeads(layout, axis))),
    optionsOf(node),
  )
  const back = computed.map(
    ({ node }, i) => new Tensor(reshard(mesh, { node, layout: cutByHeads(results[i]!, axis) }, results[i]!)),
  )
  return { results: back, layouts: results }
}

/** The layout with time whole and heads cut once more. */
function cutByHeads({ dims, partial }: Layout, axis: string): Layout {
  // [batch, time, heads, dim] or, for the log-sum-exp, [batch, heads, time].
  const [time, heads] = dims.length === 4 ? [1, 2] : [2, 1]
  return {
    dims: dims.map((axes, i) => (i === time ? [] : i === heads ? [...axes, axis] : axes)),
    partial,
  }
}

const isBackward = (node: Node): boolean => compositeName(node) === 'attentionBackward'
const compositeOf = (node: Node): typeof attentionComposite =>
  isBackward(node) ? attentionBackwardComposite : attentionComposite

function gathered(
  node: Node,
  mesh: Mesh,
  axis: string,
  { inputs, results }: Decision,
  fetch: Fetch,
): LocalCall {
  const options = optionsOf(node)
  const allKeys = ({ dims, partial }: Layout): Layout => ({
    dims: [dims[0]!, [], dims[2]!, dims[3]!],
    partial,
  })
  const operands = inputs.map((layout, i) => fetch(i, i === 1 || i === 2 ? allKeys(layout) : layout))
  // Each rank has gradients for all keys, from its own queries.
  const open = (layout: Layout): Layout => ({
    ...allKeys(layout),
    partial: { ...layout.partial, [axis]: 'sum' },
  })
  const layouts = isBackward(node) ? [results[0]!, open(results[1]!), open(results[2]!)] : results
  const length = node.inputs[0]!.shape[1]!
  const window = options['window'] as number
  if (options['causal'] !== true && window === 0) {
    return { results: invoke(compositeOf(node), operands, options), layouts }
  }
  const pairs = { shape: [operands[0]!.shape[1]!, length], axes: ['t', 's'] }
  const positions = localIota(mesh, iota(length, 't').node, { dims: [[axis]], partial: {} })
  const own = new Tensor(positions).broadcastTo(pairs)
  const source = iota(length, 's').broadcastTo(pairs)
  const past = source.less(own.add(1))
  const visible = window > 0 ? past.mul(own.sub(window).less(source)) : past
  const mask = visible.reshape([1, 1, ...pairs.shape], [null, null, null, null])
  const masked: Attrs = { ...options, causal: false, window: 0, mask: true }
  // A mask stands before the cotangent of the log-sum-exp.
  const given = isBackward(node) ? [...operands.slice(0, 6), mask, ...operands.slice(6)] : [...operands, mask]
  return { results: invoke(compositeOf(node), given, masked), layouts }
}

function ring(node: Node, group: Group, { inputs }: Decision, fetch: Fetch): Tensor[] {
  const operands = inputs.map((layout, i) => fetch(i, layout))
  const options = optionsOf(node)
  return isBackward(node)
    ? ringBackward(operands, options, group)
    : ringForward(operands as [Tensor, Tensor, Tensor], options, group)
}

const full = (options: Attrs): Attrs => ({ ...options, causal: false, window: 0 })

/** Results for two sets of keys to the result for both: [batch, time, heads, dim] and [batch, heads, time]. */
function merge([a, lseA]: readonly Tensor[], [b, lseB]: readonly Tensor[]): [Tensor, Tensor] {
  const top = lseA!.max(lseB!)
  const lse = lseA!.sub(top).exp().add(lseB!.sub(top).exp()).log().add(top)
  const weight = (own: Tensor): Tensor => {
    const factor = own.sub(lse).exp()
    const [batch, heads, time] = factor.shape as [number, number, number]
    return factor
      .transpose([0, 2, 1])
      .reshape([batch, time, heads, 1])
      .broadcastTo({ shape: a!.shape, axes: a!.axes })
  }
  return [a!.mul(weight(lseA!)).add(b!.mul(weight(lseB!))), lse]
}

/** First and second half along time, which is dimension 1 of tokens and 2 of rows. */
const halves = (x: Tensor): [Tensor, Tensor] => {
  const time = x.rank === 4 ? 1 : 2
  const half = x.shape[time]! / 2
  return [x.slice(time, 0, half), x.slice(time, half, half)]
}
const joined = (low: Tensor, high: Tensor): Tensor => concat([low, high], low.rank === 4 ? 1 : 2)

const passedOn = (x: Tensor, group: Group): Tensor => new Tensor(shift(x.node, group, 1))

/** In step j the keys at hand are those of rank r - j: of an earlier rank where r >= j, else of a later one. */
const fromEarlier = (group: Group, step: number): Tensor => new Tensor(meshIndex(group)).greater(step - 1)

function ringForward([q, k, v]: [Tensor, Tensor, Tensor], options: Attrs, group: Group): Tensor[] {
  const size = groupSize(group)
  let result = invoke(attentionComposite, [q, k, v], options)
  let keys = [k, v]
  for (let step = 1; step < size; step++) {
    keys = keys.map((x) => passedOn(x, group))
    if (options['causal'] !== true) {
      result = merge(result, invoke(attentionComposite, [q, ...keys], options))
      continue
    }
    // The later chunk of queries sees the earlier chunk of any other rank.
    const [low, high] = pairOf(result)
    const [qLow, qHigh] = halves(q)
    const [kLow, kHigh] = halves(keys[0]!)
    const [vLow, vHigh] = halves(keys[1]!)
    const nearer = merge(high, invoke(attentionComposite, [qHigh, kLow, vLow], full(options)))
    // Keys of an earlier rank: its earlier chunk is seen by the earlier queries, too; of a later rank: its later chunk
    // by the later queries.
    const earlier = fromEarlier(group, step)
    const pick = (a: Tensor, b: Tensor): Tensor => where(earlier, a, b)
    const more = invoke(
      attentionComposite,
      [pick(qLow, qHigh), pick(kLow, kHigh), pick(vLow, vHigh)],
      full(options),
    )
    const target = low.map((x, i) => pick(x, nearer[i]!))
    const merged = merge(target, more)
    result = low.map((x, i) => joined(pick(merged[i]!, x), pick(nearer[i]!, merged[i]!)))
  }
  return [result[0]!, result[1]!]
}

const pairOf = (result: readonly Tensor[]): [Tensor[], Tensor[]] => [
  result.map((x) => halves(x)[0]),
  result.map((x) => halves(x)[1]),
]

function ringBackward(operands: readonly Tensor[], options: Attrs, group: Group): Tensor[] {
  const size = groupSize(group)
  const [q, k, v, out, lse, g, ...dLse] = operands as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    ...Tensor[],
  ]
  const queries = [q, out, lse, g, ...dLse]
  const backward = (
    [q, out, lse, g, ...dLse]: readonly Tensor[],
    [k, v]: readonly Tensor[],
    how: Attrs,
  ): Tensor[] => invoke(attentionBackwardComposite, [q!, k!, v!, out!, lse!, g!, ...dLse], how)
  let [dq, ...dKeys] = backward(queries, [k, v], options) as [Tensor, ...Tensor[]]
  let keys = [k, v]
  const [low, high] = pairOf(queries)
  for (let step = 1; step < size; step++) {
    // The gradient of keys travels with them.
    keys = keys.map((x) => passedOn(x, group))
    dKeys = dKeys.map((x) => passedOn(x, group))
    if (options['causal'] !== true) {
      const [dqPart, ...parts] = backward(queries, keys, options) as [Tensor, ...Tensor[]]
      dq = dq.add(dqPart)
      dKeys = dKeys.map((x, i) => x.add(parts[i]!))
      continue
    }
    const earlier = fromEarlier(group, step)
    const pick = (a: Tensor, b: Tensor): Tensor => where(earlier, a, b)
    const [keysLow, keysHigh] = pairOf(keys)
    const [dqHigh, ...near] = backward(high, keysLow, full(options)) as [Tensor, ...Tensor[]]
    const [dqMore, ...more] = backward(
      low.map((x, i) => pick(x, high[i]!)),
      keysLow.map((x, i) => pick(x, keysHigh[i]!)),
      full(options),
    ) as [Tensor, ...Tensor[]]
    const split = (x: Tensor): [Tensor, Tensor] => [where(earlier, x, 0), where(earlier, 0, x)]
    const [toLow, toHigh] = split(dqMore)
    dq = dq.add(joined(toLow, dqHigh.add(toHigh)))
    dKeys = dKeys.map((x, i) => {
      const [lowPart, highPart] = split(more[i]!)
      return x.add(joined(near[i]!.add(lowPart), highPart))
    })
  }
  return [dq, ...dKeys.map((x) => passedOn(x, group))]
}
