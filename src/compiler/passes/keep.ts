/**
 * What a loop keeps for its backward loop. The gradient pass makes the forward loop stack every value that the backward
 * loop reads. Here some of those are computed again in the backward loop from others instead: less memory, more FLOPs,
 * the same arithmetic on the same values. Runs on the finished program, so that sizes (bf16 or not) and FLOPs of a choice
 * are those of the program it gives.
 *
 * A pair is a loop and the one other loop of the same length that reads some of its stacks slice by slice. Step i of the
 * one belongs to step i of the other, in whatever direction they run.
 */
import { currentGraph, inPhase, reachable, type Func, type Node } from '../graph/node.ts'
import { bytesOf } from '../graph/types.ts'
import { fill } from '../ops/constant.ts'
import { get, getOp } from '../ops/get.ts'
import { input, inputOp } from '../ops/input.ts'
import { scan, scanAttrs, scanOp } from '../ops/scan.ts'
import { Rewrite, type Rule } from './rewrite.ts'

export interface LoopPair {
  readonly forward: Node
  readonly backward: Node
  /** How often both run in a run of the program: product of the lengths of the loops around them. */
  readonly times: number
  /** Results of the forward loop that nothing but slices of the backward loop reads. */
  readonly stacks: readonly Stack[]
}

export interface Stack {
  readonly index: number
  readonly value: Node
  /** What the backward body calls its slice. */
  readonly param: Node
}

/** For each pair, values of the forward body to stack. Those that its backward loop reads must follow from them. */
export type Keeping = ReadonlyMap<LoopPair, ReadonlySet<Node>>

/** All pairs of a program, those in bodies of loops too. */
export function loopPairs(func: Func, times = 1): LoopPair[] {
  const nodes = reachable([...func.params, ...func.results])
  const users = new Map<Node, Node[]>()
  for (const node of nodes)
    for (const x of new Set(node.inputs)) users.set(x, [...(users.get(x) ?? []), node])
  const pairs: LoopPair[] = []
  for (const forward of nodes.filter((node) => node.op === scanOp)) {
    const { body, length, numCarries } = scanAttrs(forward)
    const readers = new Map<Node, Stack[]>()
    for (const stack of users.get(forward) ?? []) {
      const index = stack.op === getOp ? (stack.attrs['index'] as number) : -1
      const [reader, ...others] = users.get(stack) ?? []
      if (index < numCarries || !reader || others.length > 0 || func.results.includes(stack)) continue
      const param = sliceParam(reader, stack, length)
      if (!param) continue
      const list = readers.get(reader) ?? []
      readers.set(reader, [...list, { index, value: body.results[index]!, param }])
    }
    for (const [backward, stacks] of readers) pairs.push({ forward, backward, times, stacks })
    pairs.push(...loopPairs(body, times * length))
  }
  return pairs
}

/** The parameter of a loop of that length that takes slices of `stack`, which is read for nothing else. */
function sliceParam(loop: Node, stack: Node, length: number): Node | undefined {
  if (loop.op !== scanOp || scanAttrs(loop).length !== length) return undefined
  const { body, numConstants, numCarries } = scanAttrs(loop)
  const at = loop.inputs.indexOf(stack)
  return at >= numConstants + numCarries && loop.inputs.lastIndexOf(stack) === at
    ? body.params[at]
    : undefined
}

/** What of a forward body can be had in the backward loop for nothing: its constants and slices, and what needs no data. */
export function freeValues({ forward }: LoopPair): ReadonlySet<Node> {
  const { body, numConstants, numCarries } = scanAttrs(forward)
  const carries = new Set(body.params.slice(numConstants, numConstants + numCarries))
  const free = new Set<Node>(body.params.filter((param) => !carries.has(param)))
  for (const node of reachable(body.results)) {
    const closed = node.op !== inputOp && node.inputs.every((x) => free.has(x)) && isPlain(node)
    if (closed && node.op.flops(node) === 0) free.add(node)
  }
  return free
}

const isPlain = (node: Node): boolean =>
  node.op.kind !== 'structure' && node.op.kind !== 'collective' && node.op.name !== 'random'

/** Bytes that the stack of a value takes. */
export const stackBytes = ({ forward }: LoopPair, value: Node): number =>
  scanAttrs(forward).length * bytesOf(value.type)

/** The program in which every pair keeps what is said, and nothing else; pairs not named stay as they are. */
export function keep(func: Func, keeping: Keeping): Func {
  const byForward = new Map<Node, LoopPair[]>()
  for (const pair of keeping.keys())
    byForward.set(pair.forward, [...(byForward.get(pair.forward) ?? []), pair])
  const byBackward = new Map([...keeping.keys()].map((pair) => [pair.backward, pair]))
  const narrowed = new Map<Node, Narrowed>()
  const rule: Rule = (node, inputs, context) => {
    const pairs = byForward.get(node)
    const pair = byBackward.get(node)
    if (pairs) {
      const made = narrow(node, inputs, context, pairs, keeping)
      narrowed.set(node, made)
      if (!pair) return made.loop
    }
    if (pair) return recomputing(pair, keeping.get(pair)!, inputs, context, narrowed.get(pair.forward)!)
    const known = node.op === getOp ? narrowed.get(node.inputs[0]!) : undefined
    if (!known) return undefined
    const place = known.places.get(node.attrs['index'] as number)
    // A stack that is gone has no reader any more; anything stands for it.
    return place === undefined ? fill(0, node.type) : get(inputs[0]!, place)
  }
  return new Rewrite(rule).func(func)
}

/** A forward loop with other stacks. */
interface Narrowed {
  readonly loop: Node
  readonly inputs: readonly Node[]
  /** New place of each result that is left. */
  readonly places: ReadonlyMap<number, number>
  readonly stacks: ReadonlyMap<Node, number>
  /** What it computes as it did before. */
  readonly still: ReadonlySet<Node>
}

function narrow(
  node: Node,
  inputs: readonly Node[],
  context: Rewrite,
  pairs: readonly LoopPair[],
  keeping: Keeping,
): Narrowed {
  const attrs = scanAttrs(node)
  const { body } = attrs
  const dropped = new Set(pairs.flatMap(({ stacks }) => stacks.map(({ index }) => index)))
  const left = body.results.flatMap((_, i) => (dropped.has(i) ? [] : [i]))
  const kept = [...new Set(pairs.flatMap((pair) => [...keeping.get(pair)!]))]
  const roots = [...left.map((i) => body.results[i]!), ...kept]
  const made = context.nodes([...body.params, ...roots])
  const params = made.slice(0, body.params.length)
  const loop = scan(inputs, {
    ...attrs,
    body: currentGraph().func(body.name, params, made.slice(body.params.length)),
  })
  return {
    loop,
    inputs,
    places: new Map(left.map((old, place) => [old, place])),
    stacks: new Map(kept.map((value, i) => [value, left.length + i])),
    still: new Set(reachable(roots)),
  }
}

/** The backward loop that computes again what is not kept. */
function recomputing(
  pair: LoopPair,
  kept: ReadonlySet<Node>,
  inputs: readonly Node[],
  context: Rewrite,
  forward: Narrowed,
): Node {
  const there = scanAttrs(pair.forward)
  const here = scanAttrs(pair.backward)
  const numFixed = here.numConstants + here.numCarries
  const scope = currentGraph().scope()
  const gone = new Set(pair.stacks.map(({ param }) => param))
  const left = here.body.params.flatMap((param, i) => (gone.has(param) ? [] : [i]))
  const params = context.nodes(left.map((i) => here.body.params[i]!))
  const given = left.map((i, n) => ({ at: i, param: params[n]!, outer: inputs[i]! }))
  const groups = {
    constants: given.filter(({ at }) => at < here.numConstants),
    carries: given.filter(({ at }) => at >= here.numConstants && at < numFixed),
    slices: given.filter(({ at }) => at >= numFixed),
  }
  const seeds = new Map<Node, Node>()
  const take = (group: keyof typeof groups, value: Node, outer: Node, name: string): void => {
    const known = groups[group].find((one) => one.outer === outer)
    const param = known?.param ?? input(scope, name, value.type)
    if (!known) groups[group].push({ at: Infinity, param, outer })
    seeds.set(value, param)
  }
  // Only what the recomputation reads is handed over.
  const read = new Set(readFrom(pair, kept))
  there.body.params.forEach((param, i) => {
    if (!read.has(param) || kept.has(param)) return
    if (i < there.numConstants) take('constants', param, forward.inputs[i]!, `again constant${i}`)
    else if (i >= there.numConstants + there.numCarries)
      take('slices', param, forward.inputs[i]!, `again slice${i}`)
  })
  ;[...kept].forEach((value, i) => {
    if (!read.has(value)) return
    take('slices', value, get(forward.loop, forward.stacks.get(value)!), `kept${i}`)
  })
  // What needs none of it comes first: fusion then finds a value computed again beside the cotangent it meets.
  const waiting = new Set<Node>(gone)
  const nodes = reachable(here.body.results)
  for (const node of nodes) if (node.inputs.some((x) => waiting.has(x))) waiting.add(node)
  context.nodes(nodes.filter((node) => !waiting.has(node)))
  const values = pair.stacks.map(({ value }) => value)
  // What the forward loop no longer does is not done twice, but later.
  const again = inPhase(
    (cause) => (!cause || forward.still.has(cause) ? 'recompute' : cause.phase),
    () => context.nodes(values, seeds),
  )
  const replaced = new Map(pair.stacks.map(({ param }, i) => [param, again[i]!]))
  const results = context.nodes(here.body.results, replaced)
  const { constants, carries, slices } = groups
  const all = [...constants, ...carries, ...slices]
  const body = currentGraph().func(
    here.body.name,
    all.map(({ param }) => param),
    results,
  )
  return scan(
    all.map(({ outer }) => outer),
    { ...here, body, numConstants: constants.length, numCarries: carries.length },
  )
}

/** Values of the forward body that recomputing reads or makes. */
function readFrom(pair: LoopPair, kept: ReadonlySet<Node>): Node[] {
  const found = new Set<Node>()
  const visit = (node: Node): void => {
    if (found.has(node)) return
    found.add(node)
    if (!kept.has(node)) node.inputs.forEach(visit)
  }
  for (const { value } of pair.stacks) visit(value)
  return [...found]
}
