/**
 * Work that nobody waits for goes where it was asked for. A late barrier, `barrier(x, token, 'name')`, says that `x` is
 * wanted only after the token; here, whatever is needed for nothing but the late barriers of one name is moved behind
 * their tokens: its inputs wait instead of its results. A loop that makes some such values among others is split in two
 * (split-loop.ts). Nothing is calculated twice, and no bit changes.
 */
import { currentGraph, onBehalfOf, reachable, type Func, type Node } from '../graph/node.ts'
import { barrier, lateName } from '../ops/barrier.ts'
import { getOp } from '../ops/get.ts'
import { scanAttrs, scanOp } from '../ops/scan.ts'
import { Rewrite, type Rule } from './rewrite.ts'
import { splitLoop, type SplitLoop } from './split-loop.ts'

export function sink(func: Func): Func {
  if (!reachable(func.results).some((node) => lateName(node) !== undefined)) return func
  return sunk(withSplitLoops(func))
}

/** For every node the late barriers that alone need it, by name; null: others need it, too. */
function ownersOf(func: Func): Map<Node, string | null> {
  const owners = new Map<Node, string | null>(func.results.map((result) => [result, null]))
  for (const node of reachable(func.results).toReversed()) {
    const late = lateName(node)
    node.inputs.forEach((x, slot) => {
      const owner = late === undefined ? owners.get(node)! : slot === 0 ? late : null
      const known = owners.get(x)
      owners.set(x, x.inputs.length === 0 || (known !== undefined && known !== owner) ? null : owner)
    })
  }
  return owners
}

function withSplitLoops(func: Func): Func {
  const owners = ownersOf(func)
  // Of loops that others need as well: results that one name alone needs.
  const late = new Map<Node, { readonly name: string; readonly results: Set<number> }>()
  for (const node of reachable(func.results)) {
    const [loop] = node.inputs
    const name = owners.get(node)
    if (node.op !== getOp || loop!.op !== scanOp || owners.get(loop!) !== null || !name) continue
    const known = late.get(loop!) ?? { name, results: new Set() }
    if (known.name === name) known.results.add(node.attrs['index'] as number)
    late.set(loop!, known)
  }
  const splits = new Map<Node, SplitLoop>()
  const rule: Rule = (node, inputs, context) => {
    if (node.op === getOp) return splits.get(inputs[0]!)?.result(node.attrs['index'] as number)
    const wanted = late.get(node)
    if (!wanted) return undefined
    const attrs = scanAttrs(node)
    const split = splitLoop(inputs, { ...attrs, body: context.func(attrs.body) }, wanted.results)
    if (!split) return undefined
    splits.set(split.first, split)
    return split.first
  }
  return new Rewrite(rule).func(func)
}

/** Moves behind the tokens of each late barrier what only it needs; the barrier itself is then gone. */
function sunk(func: Func): Func {
  const owners = ownersOf(func)
  const made = new Map<Node, Node>()
  const rebuilt = (node: Node, inputs: readonly Node[]): Node =>
    onBehalfOf(node, () => currentGraph().intern(node.op, inputs, node.attrs))
  const waiting = new Map<string, Map<Node, Node>>()
  const behind = (last: Node, name: string): Node => {
    const tokens: Node[] = []
    let value = last
    for (; lateName(value) === name; value = value.inputs[0]!) tokens.unshift(made.get(value.inputs[1]!)!)
    const ordered = waiting.get(name) ?? new Map<Node, Node>()
    waiting.set(name, ordered)
    /** A value from before the tokens, after them. Moves are free to repeat, so that what they move waits. */
    const after = (x: Node): Node => {
      if (x.inputs.length === 0) return made.get(x)!
      const move = x.op.kind === 'movement' && x.inputs.length === 1
      const result =
        ordered.get(x) ??
        (move
          ? rebuilt(x, [after(x.inputs[0]!)])
          : onBehalfOf(x, () => tokens.reduce((held, token) => barrier(held, token), made.get(x)!)))
      ordered.set(x, result)
      return result
    }
    const visit = (x: Node): Node => {
      const known = made.get(x)
      if (owners.get(x) !== name) return after(x)
      if (known) return known
      const [source] = x.inputs
      // A result of something that others need, too, is there before the tokens.
      const result =
        x.op === getOp && owners.get(source!) !== name
          ? tokens.reduce((held, token) => barrier(held, token), rebuilt(x, [made.get(source!)!]))
          : rebuilt(x, x.inputs.map(visit))
      made.set(x, result)
      return result
    }
    return visit(value)
  }
  for (const node of reachable([...func.params, ...func.results])) {
    // What a late barrier alone needs is made when its turn comes.
    if (typeof owners.get(node) === 'string') continue
    const name = lateName(node)
    made.set(
      node,
      name === undefined
        ? rebuilt(
            node,
            node.inputs.map((x) => made.get(x)!),
          )
        : behind(node, name),
    )
  }
  const all = (nodes: readonly Node[]): Node[] => nodes.map((node) => made.get(node)!)
  return currentGraph().func(func.name, all(func.params), all(func.results))
}
