/**
 * The one way passes walk a program: rebuild a function node by node, inputs before users, bodies first, into the
 * current graph. A rule may return other nodes in place of one; what nothing refers to any more is not rebuilt, so dead
 * code disappears by construction.
 */
import { bodyOf, currentGraph, Func, Node, onBehalfOf, reachable } from '../graph/node.ts'

/** Returns the replacement for `node`, whose inputs are already rebuilt; undefined: rebuild it as it is. */
export type Rule = (node: Node, inputs: readonly Node[], context: Rewrite) => Node | undefined

export class Rewrite {
  readonly #rule: Rule
  readonly #bodies = new Map<Func, Func>()

  constructor(rule: Rule) {
    this.#rule = rule
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
      made.set(
        node,
        onBehalfOf(node, () => this.#rule(node, inputs, this) ?? this.rebuild(node, inputs)),
      )
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

/** The results of a body with its parameters bound to arguments. */
export function inlined(body: Func, args: readonly Node[], rule: Rule): Node[] {
  return new Rewrite(rule).nodes(body.results, new Map(body.params.map((param, i) => [param, args[i]!])))
}
