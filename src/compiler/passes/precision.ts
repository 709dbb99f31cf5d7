/**
 * The precision policy. `bf16` and `fp16`: operands of every f32 matrix product, forward and backward, are rounded to 16
 * bits (bfloat16, or IEEE half precision) and accumulated in f32 (`fp8` is another pass, fp8.ts); parameters, optimizer state, reductions and elementwise work stay f32 (Micikevicius et al.,
 * Mixed Precision Training). Runs after differentiation, so that both directions follow it, and after composites are
 * inlined: what a target claims keeps its precision.
 *
 * A rounded value is stored once, in 16 bits: conversions go below moves, so that a value and its transpose share one; out
 * of loops where they are of weights, so that those are converted once a step; and into the loop that stacked a value
 * for a backward one, so that the stack has half the bytes.
 */
import { bodyOf, currentGraph, reachable, type Func, type Node } from '../graph/node.ts'
import type { Half } from '../graph/types.ts'
import { broadcastOp } from '../ops/broadcast.ts'
import { barrierOp } from '../ops/barrier.ts'
import { callOp } from '../ops/call.ts'
import { cast, castOp } from '../ops/cast.ts'
import { dot, dotAxes, dotOp } from '../ops/dot.ts'
import { getOp } from '../ops/get.ts'
import { input } from '../ops/input.ts'
import { reshapeOp } from '../ops/reshape.ts'
import { scan, scanAttrs, scanOp } from '../ops/scan.ts'
import { transposeOp } from '../ops/transpose.ts'
import { substitute } from '../trace/functions.ts'
import { Rewrite, type Rule } from './rewrite.ts'

export type Precision = 'f32' | 'bf16' | 'fp16' | 'fp8'

/** What operands are stored as. */
const halves: Readonly<Partial<Record<Precision, Half>>> = { bf16: 'bf16', fp16: 'f16' }

export function precision(func: Func, policy: Precision): Func {
  const half = halves[policy]
  return half === undefined ? func : narrowStacks(new Rewrite(roundOperands(half)).func(func), half)
}

function roundOperands(half: Half): Rule {
  const kept = new Rewrite(() => undefined)
  return (node, inputs, context) => {
    if (node.op === scanOp) return hoistRounding(node, inputs, context.func(scanAttrs(node).body), half)
    if (node.op === callOp) return kept.rebuild(node, inputs)
    const [a, b] = inputs as [Node, Node]
    if (node.op !== dotOp || a.dtype !== 'f32' || b.dtype !== 'f32') return undefined
    return dot(rounded(a, half), rounded(b, half), dotAxes(node))
  }
}

const moves = new Set([reshapeOp, transposeOp, broadcastOp, barrierOp])

/** A value in 16 bits: below what only moves it, and nothing to do where it was widened from there. */
function rounded(x: Node, half: Half): Node {
  const [source, ...others] = x.inputs
  if (source && moves.has(x.op))
    return currentGraph().intern(x.op, [rounded(source, half), ...others], x.attrs)
  return x.op === castOp && source!.dtype === half ? source! : cast(x, half)
}

const isRounding = (node: Node, half: Half): boolean =>
  node.op === castOp && node.dtype === half && node.inputs[0]!.dtype === 'f32'

/** Who reads each node of a function, without the bodies it carries. */
function usersOf(func: Func): Map<Node, Node[]> {
  const users = new Map<Node, Node[]>()
  for (const node of reachable([...func.params, ...func.results]))
    for (const x of new Set(node.inputs)) users.set(x, [...(users.get(x) ?? []), node])
  return users
}

/**
 * The loop with constants and slices that its body only rounds handed over in 16 bits. A constant that is read in f32, too,
 * is handed over in both.
 */
function hoistRounding(node: Node, inputs: readonly Node[], body: Func, half: Half): Node {
  const attrs = scanAttrs(node)
  const { numConstants, numCarries } = attrs
  const users = usersOf(body)
  const scope = currentGraph().scope()
  const narrow = new Map<Node, Node>()
  const params = [...body.params]
  const outer = [...inputs]
  const extra: { param: Node; outer: Node }[] = []
  body.params.forEach((param, i) => {
    const readers = users.get(param) ?? []
    const rounding = readers.find((reader) => isRounding(reader, half))
    if (!rounding || (i >= numConstants && i < numConstants + numCarries)) return
    const only = readers.length === 1 && !body.results.includes(param)
    if (!only && i >= numConstants) return
    const small = input(scope, `${String(param.attrs['name'])} in ${half}`, rounding.type)
    narrow.set(rounding, small)
    const value = rounded(inputs[i]!, half)
    if (only) [params[i], outer[i]] = [small, value]
    else extra.push({ param: small, outer: value })
  })
  params.splice(numConstants, 0, ...extra.map(({ param }) => param))
  outer.splice(numConstants, 0, ...extra.map((one) => one.outer))
  const results = narrow.size === 0 ? body.results : substitute(body.results, narrow)
  return scan(outer, {
    ...attrs,
    body: currentGraph().func(body.name, params, results),
    numConstants: numConstants + extra.length,
  })
}

/** Every function of a program: itself and the bodies of loops. */
function functionsOf(func: Func): Func[] {
  const inner = reachable([...func.params, ...func.results]).flatMap((node) =>
    node.op === scanOp ? [bodyOf(node)!] : [],
  )
  return [func, ...inner.flatMap(functionsOf)]
}

/** Stacked results of loops that are only read rounded are stacked rounded. */
function narrowStacks(func: Func, half: Half): Func {
  const functions = functionsOf(func)
  const users = new Map(functions.flatMap((one) => [...usersOf(one)]))
  const results = new Set(functions.flatMap((one) => one.results))
  const isNarrow = (node: Node): boolean => {
    if (node.op !== getOp || node.inputs[0]!.op !== scanOp || node.dtype !== 'f32' || results.has(node))
      return false
    const stacked = (node.attrs['index'] as number) >= scanAttrs(node.inputs[0]!).numCarries
    const readers = users.get(node) ?? []
    return stacked && readers.length > 0 && readers.every((reader) => isRounding(reader, half))
  }
  const rule: Rule = (node, inputs, context) => {
    if (isRounding(node, half) && isNarrow(node.inputs[0]!)) return inputs[0]
    if (node.op !== scanOp) return undefined
    const narrow = new Set(
      (users.get(node) ?? []).filter(isNarrow).map((get) => get.attrs['index'] as number),
    )
    if (narrow.size === 0) return undefined
    const body = context.func(scanAttrs(node).body)
    const made = body.results.map((result, i) => (narrow.has(i) ? rounded(result, half) : result))
    return scan(inputs, { ...scanAttrs(node), body: currentGraph().func(body.name, body.params, made) })
  }
  return new Rewrite(rule).func(func)
}
