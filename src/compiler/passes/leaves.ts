/**
 * Sums over the batch get `leaves` (ops/leaves.ts), so that however the batch is spread over devices or cut into
 * microbatches, the same additions are done. What is the batch follows from names: it enters by axes of parameters that
 * are called `batch`, and is followed through every op by its dimension map, through loops until nothing changes, and
 * into merged axes, of which it is then one digit.
 *
 * The global batch has `policy` leaves, and a leaf is a run of whole examples. Where microbatches are an axis of their
 * own (`micro`), each has its share. Changes the order of additions, so the last bits of a sum over the batch, and
 * nothing else. Sums over the batch inside a loop that adds them up over its turns are in leaves turn by turn.
 */
import { bodyOf, currentGraph, reachable, type Func, type Node } from '../graph/node.ts'
import { isFloat, stridesOf } from '../graph/types.ts'
import { callOp } from '../ops/call.ts'
import { convWeightOp } from '../ops/conv-weight.ts'
import { dotAxes, dotOp } from '../ops/dot.ts'
import { getOp } from '../ops/get.ts'
import { groupedOuterOp } from '../ops/grouped-outer.ts'
import { leavesOf } from '../ops/leaves.ts'
import { reducedAxes } from '../ops/reduce.ts'
import { reshape, reshapeOp } from '../ops/reshape.ts'
import { scan, scanAttrs, scanOp } from '../ops/scan.ts'
import { scatterAddOp } from '../ops/scatter-add.ts'
import { sumOp } from '../ops/sum.ts'
import { transpose } from '../ops/transpose.ts'
import { inlined, Rewrite, type Rule } from './rewrite.ts'

/** The batch as a digit of an axis: index = (before * examples + example) * inner + after. */
interface Digit {
  readonly outer: number
  readonly examples: number
  readonly inner: number
  readonly leaves: number
}

/** For each axis of a value, the batch in it. */
type Marks = readonly (Digit | undefined)[]

export function leaves(func: Func, policy: number): Func {
  return policy === 0
    ? func
    : new Leaves().func(
        func,
        func.params.map((param) => entering(param, policy)),
      )
}

/** The batch in a parameter of the program. */
function entering({ shape, axes }: Node, policy: number): Marks {
  const micro = axes.indexOf('micro')
  const share = Math.max(1, policy / (micro < 0 ? 1 : shape[micro]!))
  return shape.map((examples, axis) =>
    axes[axis] === 'batch' ? { outer: 1, examples, inner: 1, leaves: leavesIn(examples, share) } : undefined,
  )
}

/** The largest power of two that divides the batch, up to `most`. */
function leavesIn(examples: number, most: number): number {
  let count = 1
  while (count * 2 <= most && examples % (count * 2) === 0) count *= 2
  return count
}

class Leaves {
  readonly #known = new Map<
    string,
    { readonly values: ReadonlyMap<Node, readonly Marks[]>; readonly results: readonly Marks[] }
  >()
  readonly #made = new Map<string, Func>()

  func(func: Func, params: readonly Marks[]): Func {
    const key = keyOf(func, params)
    const made = this.#made.get(key) ?? new Rewrite(this.#rule(func, params)).func(func)
    this.#made.set(key, made)
    return made
  }

  #rule(func: Func, params: readonly Marks[]): Rule {
    const { values } = this.#follow(func, params)
    const replaced = new Map<Node, readonly Node[]>()
    const whole = new Rewrite(() => undefined)
    return (node, inputs) => {
      const marks = node.inputs.map((x) => values.get(x)![0]!)
      if (node.op === scanOp) {
        const body = this.func(bodyOf(node)!, this.#turn(node, marks))
        return scan(inputs, { ...scanAttrs(node), body })
      }
      if (node.op === callOp) {
        const handle = whole.rebuild(node, inputs)
        const body = bodyOf(node)!
        // A target's kernel knows no leaves: where it would sum over the batch, its body is used.
        if (this.#sumsOverBatch(body, marks))
          replaced.set(handle, inlined(node, inputs, this.#rule(body, marks)))
        return handle
      }
      if (node.op === getOp) return replaced.get(inputs[0]!)?.[node.attrs['index'] as number]
      return inLeaves(node, inputs, marks)
    }
  }

  #sumsOverBatch(body: Func, params: readonly Marks[]): boolean {
    const { values } = this.#follow(body, params)
    const marksOf = (node: Node): Marks[] => node.inputs.map((x) => values.get(x)![0]!)
    return [...values.keys()].some((node) => summedDigit(node, marksOf(node)) !== undefined)
  }

  /** Marks of every value of a function, from those of its parameters. */
  #follow(
    func: Func,
    params: readonly Marks[],
  ): { values: ReadonlyMap<Node, readonly Marks[]>; results: readonly Marks[] } {
    const key = keyOf(func, params)
    const known = this.#known.get(key)
    if (known) return known
    const values = new Map<Node, readonly Marks[]>(func.params.map((param, i) => [param, [params[i]!]]))
    for (const node of reachable([...func.params, ...func.results])) {
      if (!values.has(node))
        values.set(
          node,
          this.#forward(
            node,
            node.inputs.map((x) => values.get(x)!),
          ),
        )
    }
    const found = { values, results: func.results.map((result) => values.get(result)![0]!) }
    this.#known.set(key, found)
    return found
  }

  #forward(node: Node, all: readonly (readonly Marks[])[]): readonly Marks[] {
    const inputs = all.map((each) => each[0]!)
    if (node.op === getOp) return [all[0]![node.attrs['index'] as number]!]
    if (node.op === reshapeOp) return [reshaped(node, inputs[0]!)]
    if (node.op === callOp) return this.#follow(bodyOf(node)!, inputs).results
    if (node.op === scanOp) {
      const { body, numCarries } = scanAttrs(node)
      const { results } = this.#follow(body, this.#turn(node, inputs))
      const stacked = (marks: Marks): Marks => [undefined, ...marks]
      return results.map((marks, i) => (i < numCarries ? marks : stacked(marks)))
    }
    const factors = node.op.factors(node)
    const digits = new Map<string, Digit>()
    factors.inputs.forEach((labels, i) =>
      labels.forEach((label, axis) => {
        const digit = inputs[i]![axis]
        if (label !== null && digit && !digits.has(label)) digits.set(label, digit)
      }),
    )
    return factors.results.map((labels) =>
      labels.map((label) => (label === null ? undefined : digits.get(label))),
    )
  }

  /** Marks of a loop body's parameters: what any turn may be given. */
  #turn(node: Node, inputs: readonly Marks[]): readonly Marks[] {
    const { body, numConstants, numCarries } = scanAttrs(node)
    const numFixed = numConstants + numCarries
    let params = inputs.map((marks, i) => (i < numFixed ? marks : marks.slice(1)))
    for (;;) {
      const { results } = this.#follow(body, params)
      const next = params.map((marks, i) =>
        i < numConstants || i >= numFixed
          ? marks
          : marks.map((digit, axis) => digit ?? results[i - numConstants]![axis]),
      )
      if (keyOf(body, next) === keyOf(body, params)) return params
      params = next
    }
  }
}

const keyOf = (func: Func, params: readonly Marks[]): string =>
  `${func.id}${JSON.stringify(params.map((marks) => marks.map((digit) => digit ?? 0)))}`

/** The batch under another shape: elements keep their place in row-major order, so the digit keeps its stride. */
function reshaped(node: Node, marks: Marks): Marks {
  const from = node.inputs[0]!.shape
  const [inStrides, outStrides] = [stridesOf(from), stridesOf(node.shape)]
  const found: (Digit | undefined)[] = node.shape.map(() => undefined)
  marks.forEach((digit, axis) => {
    if (!digit) return
    const stride = digit.inner * inStrides[axis]!
    const span = stride * digit.examples
    const to = node.shape.findIndex(
      (extent, i) => (stride % outStrides[i]!) + ((extent * outStrides[i]!) % span) === 0,
    )
    if (to < 0) return
    found[to] = {
      ...digit,
      outer: (node.shape[to]! * outStrides[to]!) / span,
      inner: stride / outStrides[to]!,
    }
  })
  return found
}

/** Which axis of its first operand a sum cuts into leaves, and the batch in it. */
function summedDigit(node: Node, marks: readonly Marks[]): { axis: number; digit: Digit } | undefined {
  if (node.types.length !== 1 || !isFloat(node.dtype) || leavesOf(node) !== undefined) return undefined
  const pairs: readonly (readonly [number, number | undefined])[] =
    node.op === dotOp
      ? dotAxes(node).aContract.map((axis, i) => [axis, dotAxes(node).bContract[i]!] as const)
      : node.op === sumOp
        ? reducedAxes(node).map((axis) => [axis, undefined] as const)
        : node.op === scatterAddOp
          ? node.inputs[0]!.shape.map((_, axis) => [axis, axis] as const)
          : node.op === groupedOuterOp
            ? node.inputs[1]!.shape.map((_, axis) => [axis, axis] as const)
            : node.op === convWeightOp
              ? [[0, 0]]
              : []
  for (const [axis, other] of pairs) {
    const digit = marks[0]![axis] ?? (other === undefined ? undefined : marks[1]![other])
    if (digit) return { axis, digit }
  }
  return undefined
}

/** A sum over the batch with leaves, its operands in an order in which the batch comes first of what is summed. */
function inLeaves(node: Node, inputs: readonly Node[], marks: readonly Marks[]): Node | undefined {
  const found = summedDigit(node, marks)
  if (!found) return undefined
  const { axis, digit } = found
  const intern = (operands: readonly Node[], attrs: Node['attrs']): Node =>
    currentGraph().intern(node.op, operands, { ...attrs, leaves: digit.leaves })
  const [x, y, third, ...rest] = inputs as [Node, Node, ...Node[]]
  if (node.op === sumOp) {
    const axes = [axis, ...reducedAxes(node).filter((other) => other !== axis)]
    const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i))
    const first = transpose(examplesFirst(x, axis, digit), [...axes, ...kept])
    return intern([first], { axes: axes.map((_, i) => i) })
  }
  if (node.op === dotOp) {
    const { aContract, bContract, ...batch } = dotAxes(node)
    const at = aContract.indexOf(axis)
    const firstOf = (list: readonly number[]): number[] => [list[at]!, ...list.filter((_, i) => i !== at)]
    const operands = [examplesFirst(x, axis, digit), examplesFirst(y, bContract[at]!, digit)]
    const contract = { aContract: firstOf(aContract), bContract: firstOf(bContract) }
    return intern(operands, { aBatch: [...batch.aBatch], bBatch: [...batch.bBatch], ...contract })
  }
  const moved = (operand: Node): Node => {
    const order = operand.shape.map((_, i) => i).filter((i) => i !== axis)
    return transpose(examplesFirst(operand, axis, digit), [axis, ...order])
  }
  // Numbers of groups are not summed over.
  return intern([moved(x), moved(y), ...(third ? [moved(third)] : []), ...rest], node.attrs)
}

/** The operand with the batch as the outermost digit of an axis. */
function examplesFirst(x: Node, axis: number, { outer, examples, inner }: Digit): Node {
  if (outer === 1) return x
  const [before, behind] = [x.shape.slice(0, axis), x.shape.slice(axis + 1)]
  const split = reshape(x, [...before, outer, examples * inner, ...behind])
  const order = split.shape.map((_, i) => (i === axis ? axis + 1 : i === axis + 1 ? axis : i))
  return reshape(transpose(split, order), x.shape, x.axes)
}
