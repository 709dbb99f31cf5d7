/**
 * The one way passes walk a program: rebuild a function node by node, inputs before users, bodies first, into the
 * current graph. A rule may return other nodes in place of one; what nothing refers to any more is not rebuilt, so dead
 * code disappears by construction.
 */
import { compositeName } from '../ops/call.ts'
import { bodyOf, currentGraph, Func, Node, onBehalfOf, reachable } from '../graph/node.ts'

/** Returns the replacement for `node`, whose inputs are already rebuilt; undefined: rebuild it as it is. */
export type Rule = (node: Node, inputs: readonly Node[], context: Rewrite) => Node | undefined

export class Rewrite {
  readonly #rule: Rule
  /** Every new node counts as caused by the node on whose behalf this rewrite is done, not by the one it came from. */
  readonly #oneOrigin: boolean
  readonly #bodies = new Map<Func, Func>()

  constructor(rule: Rule, { oneOrigin = false }: { readonly oneOrigin?: boolean } = {}) {
    this.#rule = rule
    this.#oneOrigin = oneOrigin
  }

  func(func: Func): Func {
    const known = this.#bodies.get(func)
    if (known) return known
    const made = this.nodes([...func.params, ...func.results])
    const rebuilt = currentGraph().func(
      func.name,
      made.slice(0, func.params.length),
      made.slice(func.params.length),
    )
    this.#bodies.set(func, rebuilt)
    return rebuilt
  }

  /** Rebuilds the given roots; `seeds` maps nodes that are already replaced (parameters bound to arguments). */
  nodes(roots: readonly Node[], seeds: ReadonlyMap<Node, Node> = new Map()): Node[] {
    const made = new Map<Node, Node>(seeds)
    for (const node of reachable(roots)) {
      if (made.has(node)) continue
      const inputs = node.inputs.map((x) => made.get(x)!)
      const rewritten = (): Node => this.#rule(node, inputs, this) ?? this.rebuild(node, inputs)
      made.set(node, this.#oneOrigin ? rewritten() : onBehalfOf(node, rewritten))
    }
    return roots.map((root) => made.get(root)!)
  }

  /** The same operation on new inputs, its body rewritten. */
  rebuild(node: Node, inputs: readonly Node[]): Node {
    const body = bodyOf(node)
    const attrs = body ? { ...node.attrs, body: this.func(body) } : node.attrs
    return currentGraph().intern(node.op, inputs, attrs)
  }
}

/**
 * The results of a call's body with its parameters bound to arguments. Bodies of composites are shared by all calls with
 * equal types, so their nodes take the source line of this call; a checkpointed region is the caller's own code.
 */
export function inlined(call: Node, args: readonly Node[], rule: Rule): Node[] {
  const body = bodyOf(call)!
  return new Rewrite(rule, { oneOrigin: compositeName(call) !== 'checkpoint' }).nodes(
    body.results,
    new Map(body.params.map((param, i) => [param, args[i]!])),
  )
}
