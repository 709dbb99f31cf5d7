/**
 * Reverse-mode differentiation, graph to graph: every `grad` node is replaced by the cotangents of its variables,
 * written with primitives, so gradients are ordinary graph that can be differentiated, sharded and counted again.
 *
 * Two structures need care. A `scan` runs backward as a reversed scan: the forward loop is widened to also return what
 * the backward body needs (residuals). A `checkpoint` call keeps only its inputs and recomputes its body behind
 * barriers, which keep hash-consing from merging the second computation with the first.
 */
import { InternalError } from '../../errors.ts'
import { compositeByName } from '../composites/index.ts'
import { currentGraph, inPhase, onBehalfOf, reachable, type Func, type Node } from '../graph/node.ts'
import { formatType, isFloat, type ValueType } from '../graph/types.ts'
import { add } from '../ops/add.ts'
import { barrier } from '../ops/barrier.ts'
import { callOp, compositeName } from '../ops/call.ts'
import { fill } from '../ops/constant.ts'
import { get, getOp } from '../ops/get.ts'
import { gradOp, gradParts } from '../ops/grad.ts'
import { input, inputOp } from '../ops/input.ts'
import { scan, scanAttrs, scanOp } from '../ops/scan.ts'
import { substitute } from '../trace/functions.ts'
import { inlined, Rewrite, type Rule } from './rewrite.ts'

const copyRule: Rule = () => undefined

export function gradient(func: Func): Func {
  // Loops whose forward pass must return more than the user asked for.
  const widened = new Map<Node, Node>()
  const rule: Rule = (node, inputs) => {
    if (node.op === getOp && node.inputs[0]!.op === gradOp)
      return gradients.get(inputs[0]!)![node.attrs['index'] as number]
    if (node.op !== gradOp) return undefined
    const { outputs, cotangents: seeds, wrt: variables } = gradParts({ inputs, attrs: node.attrs })
    const given = seeds ?? outputs.map((loss) => fill(1, loss.type))
    const cotangents = inPhase('backward', () => backward(outputs, given, variables, widened))
    // The grad node itself stays as a handle that only `get` looks at; it is dead afterwards.
    const handle = currentGraph().intern(gradOp, inputs, node.attrs)
    gradients.set(
      handle,
      variables.map((variable, i) => cotangents[i] ?? fill(0, variable.type)),
    )
    return handle
  }
  const gradients = new Map<Node, Node[]>()
  const expanded = new Rewrite(rule).func(func)
  return widen(expanded, widened)
}

/** Puts each widened loop in place of the loop it extends; its leading results are the original's. */
function widen(func: Func, widened: ReadonlyMap<Node, Node>): Func {
  if (widened.size === 0) return func
  const last = (node: Node): Node => (widened.has(node) ? last(widened.get(node)!) : node)
  const rule: Rule = (node, inputs, context) => {
    const wide = last(node)
    return wide === node ? undefined : context.rebuild(wide, inputs)
  }
  return new Rewrite(rule).func(func)
}

/**
 * Cotangents of `variables` from those of `outputs`. Null where an output does not depend on the variable.
 */
function backward(
  outputs: readonly Node[],
  seeds: readonly (Node | null)[],
  variables: readonly Node[],
  widened: Map<Node, Node>,
): (Node | null)[] {
  const nodes = reachable(outputs)
  const active = new Set<Node>(variables)
  for (const node of nodes) if (node.inputs.some((x) => active.has(x))) active.add(node)
  // One cotangent per result of each node.
  const cotangents = new Map<Node, (Node | null)[]>()
  const accumulate = (node: Node, index: number, value: Node): void => {
    const list = cotangents.get(node) ?? node.types.map(() => null)
    const known = list[index]
    list[index] = known ? add(known, value) : value
    cotangents.set(node, list)
  }
  outputs.forEach((output, i) => seeds[i] && active.has(output) && accumulate(output, 0, seeds[i]))
  for (const node of nodes.toReversed()) {
    const given = cotangents.get(node)
    if (!given || node.inputs.length === 0) continue
    if (node.op === getOp) {
      accumulate(node.inputs[0]!, node.attrs['index'] as number, given[0]!)
      continue
    }
    const wanted = node.inputs.map((x) => active.has(x) && x.types.some((type) => isFloat(type.dtype)))
    if (!wanted.some(Boolean)) continue
    const parts = onBehalfOf(node, () => cotangentsOf(node, given, wanted, widened))
    node.inputs.forEach((x, i) => {
      const part = parts[i]
      if (part && wanted[i]) accumulate(x, 0, part)
    })
  }
  return variables.map((variable) => cotangents.get(variable)?.[0] ?? null)
}

function cotangentsOf(
  node: Node,
  given: readonly (Node | null)[],
  wanted: readonly boolean[],
  widened: Map<Node, Node>,
): readonly (Node | null)[] {
  if (node.op === scanOp) return scanBackward(node, given, wanted, widened)
  if (node.op === callOp) return callBackward(node, given, wanted, widened)
  if (!node.op.gradient) {
    throw new InternalError(`${node.op.name} (${formatType(node.types[0]!)}) has no gradient`)
  }
  return node.op.gradient(node, given)
}

function callBackward(
  node: Node,
  given: readonly (Node | null)[],
  wanted: readonly boolean[],
  widened: Map<Node, Node>,
): readonly (Node | null)[] {
  const composite = compositeByName.get(compositeName(node))
  if (composite?.gradient) return composite.gradient(node, given)
  const token = given.find((g) => g !== null)!
  const recomputed = compositeName(node) === 'checkpoint'
  const args = recomputed ? node.inputs.map((x) => barrier(x, token)) : node.inputs
  const again = (): Node[] => inlined(node, args, copyRule)
  const outputs = recomputed ? inPhase('recompute', again) : again()
  const variables = args.filter((_, i) => wanted[i])
  const parts = backward(outputs, given, variables, widened)
  let next = 0
  return wanted.map((want) => (want ? parts[next++]! : null))
}

/** Moves are free to repeat, so a residual is the value they moved rather than the moved copy. */
const isMove = (node: Node): boolean =>
  node.op.kind === 'movement' || (node.op.name === 'cast' && node.inputs[0]!.op !== inputOp)

function scanBackward(
  node: Node,
  given: readonly (Node | null)[],
  wanted: readonly boolean[],
  widened: Map<Node, Node>,
): readonly (Node | null)[] {
  const { body, length, numConstants, numCarries, reverse, axis } = scanAttrs(node)
  const graph = currentGraph()
  const scope = graph.scope()
  const numFixed = numConstants + numCarries
  const params = body.params
  const carries = params.slice(numConstants, numFixed)

  // Cotangents that flow into one iteration of the body: of every float carry, and of the ys that have one.
  const carryIn = carries.map((carry, i) =>
    isFloat(carry.dtype) ? input(scope, `d carry${i}`, carry.type) : null,
  )
  const ysIn = body.results
    .slice(numCarries)
    .map((y, i) => (given[numCarries + i] ? input(scope, `d y${i}`, y.type) : null))
  // Which parameters to differentiate: all float carries, and the constants and slices the caller wants.
  const variables = params.filter(
    (param, i) => isFloat(param.dtype) && (wanted[i] || (i >= numConstants && i < numFixed)),
  )
  const parts = backward(body.results, [...carryIn, ...ysIn], variables, widened)
  const partOf = new Map(variables.map((variable, i) => [variable, parts[i] ?? null]))

  // What the backward body reads from the forward one.
  const seedInputs = new Set([...carryIn, ...ysIn].filter((x) => x !== null))
  const outputs = parts.filter((part) => part !== null)
  const dependent = new Set<Node>(seedInputs)
  const closed = new Set<Node>()
  const residuals = new Set<Node>()
  const nodes = reachable(outputs)
  for (const x of nodes) {
    if (x.inputs.some((y) => dependent.has(y))) dependent.add(x)
    if (!dependent.has(x) && x.op !== inputOp && x.inputs.every((y) => closed.has(y)) && x.op.flops(x) === 0)
      closed.add(x)
  }
  // Values of the loop's constants alone are the same in every step: made again rather than stacked.
  const invariant = new Set<Node>(params.slice(0, numConstants))
  for (const x of nodes) {
    const fixed = x.inputs.length > 0 && x.inputs.every((y) => invariant.has(y) || closed.has(y))
    if (fixed && x.op.kind === 'elementwise') invariant.add(x)
  }
  const keep = (x: Node): void => {
    if (dependent.has(x) || closed.has(x) || residuals.has(x)) return
    if (x.op !== inputOp && (isMove(x) || invariant.has(x))) x.inputs.forEach(keep)
    else if (x.types.length > 1) throw new InternalError(`residual ${x.op.name} with several results`)
    else residuals.add(x)
  }
  outputs.forEach(keep)
  for (const x of nodes) if (dependent.has(x)) x.inputs.forEach(keep)
  // Constants and slices are available to the backward loop as they are; only the rest is stacked.
  const constants = params.slice(0, numConstants).filter((param) => residuals.has(param))
  const slices = params.slice(numFixed).filter((param) => residuals.has(param))
  const stacked = [...residuals].filter((x) => !constants.includes(x) && !slices.includes(x))

  const wide = scan(node.inputs, {
    body: graph.func(body.name, params, [...body.results, ...stacked]),
    length,
    numConstants,
    numCarries,
    reverse,
    axis,
  })
  widened.set(node, wide)

  // The backward loop: carries are the cotangents of the forward carries and of the constants (summed over steps).
  const summed = params.slice(0, numConstants).filter((param) => partOf.get(param))
  const sums = summed.map((param, i) => input(scope, `sum${i}`, param.type))
  const backCarries = carryIn.filter((x) => x !== null)
  const slicesOut = params.slice(numFixed).filter((param) => partOf.get(param))
  const ysUsed = ysIn.filter((x) => x !== null)
  const inner = (param: Node): Node =>
    input(scope, `in ${String(param.attrs['name'])}${param.id}`, param.type)
  const constantParams = constants.map(inner)
  const sliceParams = slices.map(inner)
  const stackedParams = stacked.map((x, i) => input(scope, `residual${i}`, x.type))
  const bindings = new Map<Node, Node>([
    ...constants.map((x, i) => [x, constantParams[i]!] as const),
    ...slices.map((x, i) => [x, sliceParams[i]!] as const),
    ...stacked.map((x, i) => [x, stackedParams[i]!] as const),
  ])
  const nextCarries = carries
    .filter((carry) => isFloat(carry.dtype))
    .map((carry) => partOf.get(carry) ?? fill(0, carry.type))
  const ends = [
    ...nextCarries,
    ...summed.map((param, i) => add(sums[i]!, partOf.get(param)!)),
    ...slicesOut.map((param) => partOf.get(param)!),
  ]
  const results = inPhase(
    (cause) => (cause?.phase === 'backward' ? 'backward' : 'recompute'),
    () => substitute(ends, bindings),
  )
  const backBody = graph.func(
    `${body.name}Backward`,
    [...constantParams, ...backCarries, ...sums, ...ysUsed, ...sliceParams, ...stackedParams],
    results,
  )
  const outer = (param: Node): Node => node.inputs[params.indexOf(param)]!
  const zeros = (type: ValueType): Node => fill(0, type)
  const numResults = body.results.length
  const loop = scan(
    [
      ...constants.map(outer),
      ...carryIn.flatMap((x, i) => (x ? [given[i] ?? zeros(x.type)] : [])),
      ...sums.map((x) => zeros(x.type)),
      ...ysIn.flatMap((x, i) => (x ? [given[numCarries + i]!] : [])),
      ...slices.map(outer),
      ...stacked.map((_, i) => get(wide, numResults + i)),
    ],
    {
      body: backBody,
      length,
      numConstants: constants.length,
      numCarries: backCarries.length + sums.length,
      reverse: !reverse,
      axis,
    },
  )
  // Hand the loop's results back in the order of the forward inputs.
  const cotangents = new Map<Node, Node>()
  let next = 0
  for (const carry of carries) if (isFloat(carry.dtype)) cotangents.set(carry, get(loop, next++))
  for (const param of [...summed, ...slicesOut]) cotangents.set(param, get(loop, next++))
  return params.map((param) => cotangents.get(param) ?? null)
}
