/**
 * What an operation is. Everything that the compiler knows about an op stands in one object, in one file of
 * `src/compiler/ops`: shape and dtype rule, gradient, dimension map, FLOPs, float64 reference, scalar C text where it
 * has one, and sample inputs from which the tests for all of that are made.
 */
import type { Attrs, Node } from './node.ts'
import type { DType, ValueType } from './types.ts'

/**
 * The dimension map: a label for every axis of inputs and results. Axes with one label have one extent and may be split
 * together; a label in an input but not in a result is reduced. `null` marks an axis that must stay whole.
 */
export interface Factors {
  readonly inputs: readonly (readonly (string | null)[])[]
  readonly results: readonly (readonly (string | null)[])[]
  /** How partial results over a reduced label combine. */
  readonly reduce?: 'sum' | 'max'
}

/** Values in the reference target: numbers in float64, booleans as 0 and 1. */
export type Values = Float64Array

/** One test case: input types, attributes, and how to draw the inputs. */
export interface Sample {
  readonly inputs: readonly ValueType[]
  readonly attrs?: Attrs
  /** Range for each float input, kept away from kinks and poles; default [-2, 2]. Integers: [low, high), or 0, 1, 2, … */
  readonly ranges?: readonly (readonly [number, number] | 'counted')[]
}

export interface Op {
  readonly name: string
  /** One line for FEATURES.md and editors. */
  readonly doc: string
  readonly kind:
    | 'leaf'
    | 'elementwise'
    | 'reduce'
    | 'movement'
    | 'product'
    | 'index'
    | 'collective'
    | 'structure'
  /** Result types, or an error that says what was wrong with the inputs. */
  infer(inputs: readonly ValueType[], attrs: Attrs, nodes: readonly Node[]): readonly ValueType[]
  /** Cotangents for the inputs from those of the results; null where the input has none. Absent: not differentiable. */
  gradient?(node: Node, cotangents: readonly (Node | null)[]): readonly (Node | null)[]
  factors(node: Node): Factors
  /** Floating-point operations by the convention of docs/flops.md. */
  flops(node: Node): number
  /** Plain float64 meaning. Structure ops are interpreted by the target itself and have none. */
  reference?(node: Node, inputs: readonly Values[]): Values
  /** Collectives: the results of all ranks from the inputs of all ranks, [input][rank]. */
  across?(node: Node, inputs: readonly (readonly Values[])[], ranks: readonly number[]): Values[]
  /** Elementwise ops: the C expression of one element from those of the inputs. */
  readonly c?: (args: readonly string[], dtype: DType, node: Node) => string
  /** Built per call so that op files may import one another freely. */
  samples(): readonly Sample[]
}
