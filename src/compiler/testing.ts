/**
 * For tests: draws inputs for op and composite samples, runs many small traced functions as one program on any target,
 * and compares gradients with differences. Kept in the source tree because every folder of the compiler tests against
 * the same oracle. Starting the C compiler costs seconds, hence the many cases in one program.
 */
import { compile, type CompileOptions } from './compile.ts'
import type { Program } from './program.ts'
import { Func, Graph, inGraph, type Attrs } from './graph/node.ts'
import type { Op, Sample, Values } from './graph/op.ts'
import { philoxUniform } from './graph/philox.ts'
import { roundTo } from './graph/round.ts'
import { isFloat, isHalf, sizeOf, type DType, type ValueType } from './graph/types.ts'
import { apply } from './ops/elementwise.ts'
import { get } from './ops/get.ts'
import { runPipeline, type Policies } from './passes/pipeline.ts'
import { interpret } from './targets/reference/interpret.ts'
import { grad, traceFunction } from './trace/functions.ts'
import { iota, Tensor } from './trace/tensor.ts'

type Range = readonly [number, number] | 'counted'

/** Deterministic values for a type, uniform in the range (integers: [low, high)); exact in the type, f64 in 24 bits. */
export function draw(type: ValueType, seed: number, range: Range = [-2, 2]): Float64Array {
  const out = new Float64Array(sizeOf(type.shape))
  if (range === 'counted') return out.map((_, i) => i)
  const [low, high] = range
  for (let i = 0; i < out.length; i++) {
    const u = philoxUniform({ seed, step: 0, stream: 1, salt: 0 }, i) + 2 ** -25
    if (type.dtype === 'bool') out[i] = u < 0.5 ? 0 : 1
    else if (isFloat(type.dtype))
      out[i] = roundTo(isHalf(type.dtype) ? type.dtype : 'f32', low + (high - low) * u)
    else out[i] = Math.floor(low + (high - low) * u)
  }
  return out
}

/** The type with every float replaced by another float type. */
export const withFloat = (type: ValueType, dtype: DType): ValueType =>
  isFloat(type.dtype) ? { ...type, dtype } : type

/** Builds nodes in a graph of their own. */
export const inFreshGraph = <T>(body: () => T): T => inGraph(new Graph(), body)

/** Largest difference, relative to the larger of 1 and the expected magnitude. */
export function worstError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let worst = got.length === want.length ? 0 : Infinity
  for (let i = 0; i < want.length; i++) {
    const [a, b] = [got[i]!, want[i]!]
    if (Object.is(a, b) || a === b) continue
    const error = Math.abs(a - b) / Math.max(1, Math.abs(b))
    if (!(error <= worst)) worst = error
  }
  return worst
}

/** A small function with inputs: one of many in a program. */
export interface Case {
  /** Unique in its program; a path segment, so no dots. */
  readonly name: string
  readonly types: readonly ValueType[]
  readonly data: readonly Values[]
  readonly build: (inputs: readonly Tensor[]) => readonly Tensor[]
}

/** A case from a sample of an op, its floats taken as `dtype` (conversions keep theirs: they are about types). */
export function opCase(op: Op, sample: Sample, name: string, seed: number, dtype: DType = 'f64'): Case {
  const types = sample.inputs.map((type) => (op.name === 'cast' ? type : withFloat(type, dtype)))
  return {
    name,
    types,
    data: types.map((type, i) => draw(type, seed * 16 + i, sample.ranges?.[i])),
    build: (inputs) => applied(op, inputs, sample.attrs),
  }
}

/** An op on tensors: all its results. */
export function applied(op: Op, inputs: readonly Tensor[], attrs: Attrs = {}): Tensor[] {
  const node = apply(
    op,
    inputs.map((x) => x.node),
    attrs,
  )
  return node.types.length === 1 ? [new Tensor(node)] : node.types.map((_, i) => new Tensor(get(node, i)))
}

export interface Outcome {
  readonly program: Program
  /** Results of each case, 16-bit floats decoded. */
  readonly results: ReadonlyMap<string, readonly ArrayLike<number>[]>
}

/** Compiles all cases into one program, runs it once and closes it. */
export async function runCases(cases: readonly Case[], options: CompileOptions = {}): Promise<Outcome> {
  const inputs = Object.fromEntries(
    cases
      .filter(({ types }) => types.length > 0)
      .map(({ name, types }) => [name, Object.fromEntries(types.map((type, i) => [`x${i}`, type]))]),
  )
  type Given = Readonly<Record<string, Readonly<Record<string, Tensor>>>>
  const numResults = new Map<string, number>()
  const body = (given: Given): Given =>
    Object.fromEntries(
      cases.map(({ name, types, build }) => {
        const results = build(types.map((_, i) => given[name]![`x${i}`]!))
        numResults.set(name, results.length)
        return [name, Object.fromEntries(results.map((result, i) => [`y${i}`, result]))]
      }),
    )
  const program = await compile(body, inputs, options)
  try {
    for (const { name, data } of cases)
      data.forEach((values, i) => writeValues(program, `${name}.x${i}`, values))
    await program.run()
    const results = new Map(
      [...numResults].map(([name, count]) => [
        name,
        Array.from({ length: count }, (_, i) => readValues(program, `${name}.y${i}`)),
      ]),
    )
    return { program, results }
  } finally {
    program.close()
  }
}

const word = new DataView(new ArrayBuffer(4))

const dtypeOf = (program: Program, path: string): DType =>
  (program.inputs.get(path) ?? program.outputs.get(path)!).dtype

/** Writes numbers to an input of any element type: bf16 memory holds the upper half of an f32. */
export function writeValues(program: Program, path: string, values: ArrayLike<number>): void {
  const view = program.view(path)
  if (!(view instanceof Uint16Array)) return program.write(path, values)
  if (dtypeOf(program, path) === 'f16')
    return program.write(path, new Uint16Array(Float16Array.from(values).buffer))
  const bits = Array.from(values, (value) => {
    word.setFloat32(0, roundTo('bf16', value))
    return word.getUint16(0)
  })
  program.write(path, bits)
}

/** A copy of an input or output as numbers. */
export function readValues(program: Program, path: string): ArrayLike<number> {
  const view = program.view(path)
  if (!(view instanceof Uint16Array)) return view.slice()
  if (dtypeOf(program, path) === 'f16') return Float64Array.from(new Float16Array(view.slice().buffer))
  return Float64Array.from(view, (bits) => {
    word.setUint32(0, bits * 65536)
    return word.getFloat32(0)
  })
}

/** Policies under which every target computes what was written: nothing claimed, nothing recomputed, full precision. */
export const plainPolicies: Policies = {
  precision: 'f32',
  recompute: 'none',
  leaves: 0,
  claimed: () => false,
}

export interface GradientCheck {
  /** Inputs to differentiate by; default: all floats. */
  readonly wrt?: readonly number[]
  /** Results that the loss depends on; default: all floats. */
  readonly results?: readonly number[]
  /** Order of the derivative that is compared with differences of the one before; default 1. */
  readonly order?: 1 | 2
}

/**
 * Compares `grad` with central differences in float64, of the loss `sum(weights * result)` over the results, with weights
 * that differ from element to element. For order 2, of `sum(weights * gradient)`.
 *
 * @returns the worst error, relative to the larger of 1 and the gradient.
 */
export function gradientError({ types, data, build }: Case, check: GradientCheck = {}): number {
  const wrt = types.flatMap((type, i) => ((check.wrt?.includes(i) ?? true) && isFloat(type.dtype) ? [i] : []))
  const compiled = compileLoss(
    types,
    ({ inputs, variables }) => {
      const results = build(inputs).filter((x, i) => isFloat(x.dtype) && (check.results?.includes(i) ?? true))
      const loss = weighted(results)
      return check.order === 2 ? weighted(Object.values(grad(loss, variables(wrt)))) : loss
    },
    wrt,
  )
  const lossOnly = new Func(-1, 'loss', compiled.params, compiled.results.slice(0, 1))
  const args = data.map((values) => values.slice())
  const gradients = interpret(compiled, args).slice(1)
  let worst = 0
  wrt.forEach((input, n) => {
    const x = args[input]!
    const lossAt = (i: number, value: number): number => {
      const kept = x[i]!
      x[i] = value
      const [loss] = interpret(lossOnly, args)
      x[i] = kept
      return loss![0]!
    }
    const gradient = gradients[n]!
    const probed = spread(x.length, mostProbed)
    const numeric = probed.map(
      (i) => (lossAt(i, data[input]![i]! + step) - lossAt(i, data[input]![i]! - step)) / (2 * step),
    )
    worst = Math.max(
      worst,
      worstError(
        Float64Array.from(probed, (i) => gradient[i]!),
        Float64Array.from(numeric),
      ),
    )
    if (probed.length === x.length) return
    // All elements at once, along a direction with a weight of its own for each.
    const direction = Float64Array.from(x, (_, i) => Math.cos(i + 1))
    const along = (by: number): number => {
      args[input] = x.map((value, i) => value + by * direction[i]!)
      const [loss] = interpret(lossOnly, args)
      args[input] = x
      return loss![0]!
    }
    const expected = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0)
    worst = Math.max(
      worst,
      worstError(Float64Array.of(expected), Float64Array.of((along(step) - along(-step)) / (2 * step))),
    )
  })
  return worst
}

/** Elements of an input whose derivatives are taken one by one; of larger ones this many, and all of them together. */
const mostProbed = 200

const spread = (length: number, most: number): number[] => {
  const count = Math.min(length, most)
  return Array.from({ length: count }, (_, i) => Math.floor((i * length) / count))
}

/** Balances truncation (step² / 6 of the third derivative) against rounding (1e-16 / step): both near 1e-10. */
const step = 1e-5

interface Given {
  readonly inputs: readonly Tensor[]
  readonly variables: (which: readonly number[]) => Record<string, Tensor>
}

/** A function of the inputs that returns the loss and its gradients, after all passes. */
function compileLoss(
  types: readonly ValueType[],
  loss: (given: Given) => Tensor,
  wrt: readonly number[],
): Func {
  const { func } = inFreshGraph(() =>
    traceFunction('loss', Object.fromEntries(types.map((type, i) => [`x${i}`, type])), (tree) => {
      const inputs = types.map((_, i) => (tree as Record<string, Tensor>)[`x${i}`]!)
      const variables: Given['variables'] = (which) =>
        Object.fromEntries(which.map((i) => [`x${i}`, inputs[i]!]))
      const value = loss({ inputs, variables })
      return { value, gradient: grad(value, variables(wrt)) }
    }),
  )
  return runPipeline(func, plainPolicies)
}

/** A scalar that depends on every element with a weight of its own. */
export function weighted(tensors: readonly Tensor[]): Tensor {
  const terms = tensors.map((x, i) => {
    const weights = iota(sizeOf(x.shape), null, 'f64')
      .mul(1.7)
      .add(0.3 + i)
      .sin()
    return x
      .reshape([sizeOf(x.shape)])
      .cast('f64')
      .mul(weights)
      .sum()
  })
  return terms.reduce((a, b) => a.add(b))
}
