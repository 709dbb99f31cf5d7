/**
 * A loop stacks a value once. A backward pass asks its loop for what it needs of every layer by use, and two uses may turn
 * out to want one value: the output of a norm without a scale is also what the norm's gradient keeps. Stacked twice, it
 * costs memory for every layer, and a copy.
 */
import { currentGraph, type Func, type Node } from '../graph/node.ts'
import { get, getOp } from '../ops/get.ts'
import { scan, scanAttrs, scanOp } from '../ops/scan.ts'
import { Rewrite, type Rule } from './rewrite.ts'

export function stackOnce(func: Func): Func {
  const bodies = new Map<Func, Func>()
  /** Of a rebuilt loop: the place of each result it used to have. */
  const places = new Map<Node, readonly number[]>()
  const rule: Rule = (node, inputs, context) => {
    if (node.op === getOp) {
      const place = places.get(inputs[0]!)?.[node.attrs['index'] as number]
      return place === undefined ? undefined : get(inputs[0]!, place)
    }
    if (node.op !== scanOp) return undefined
    const attrs = scanAttrs(node)
    const body = context.func(attrs.body)
    const first = (result: Node): number => body.results.indexOf(result, attrs.numCarries)
    const kept = body.results.filter((result, i) => i < attrs.numCarries || first(result) === i)
    if (kept.length === body.results.length) return undefined
    const once = bodies.get(body) ?? currentGraph().func(body.name, body.params, kept)
    bodies.set(body, once)
    const loop = scan(inputs, { ...attrs, body: once })
    places.set(
      loop,
      body.results.map((result, i) => (i < attrs.numCarries ? i : kept.indexOf(result, attrs.numCarries))),
    )
    return loop
  }
  return new Rewrite(rule).func(func)
}
