/**
 * One program over all ranks of a mesh, as whoever trains with it sees it: values go in and come out whole, and where
 * they lie is the program's business. This is the float64 one, on simulated ranks; it decides what a plan means.
 */
import { ranksOf, type Layout, type Mesh } from './graph/mesh.ts'
import { Graph, inGraph, type Func } from './graph/node.ts'
import { sizeOf, type ValueType } from './graph/types.ts'
import { check } from './passes/check.ts'
import type { Placement } from './passes/layouts.ts'
import { partition, type InputPlace } from './passes/partition.ts'
import { simplify } from './passes/simplify.ts'
import { assemble, scatter } from './pieces.ts'
import { interpretRanks } from './targets/reference/ranks.ts'

/** A mesh, and where inputs and state lie on it. */
export interface Parallel {
  readonly placement: Placement
  /** Results under `state` lie where the input of the same path does; other results are whole everywhere. */
  readonly placeOf: (path: string, type: ValueType) => InputPlace
}

/** A local program and how its inputs and results lie. */
export interface Partitioned {
  readonly mesh: Mesh
  readonly func: Func
  readonly inputs: readonly Layout[]
  readonly outputs: readonly Layout[]
}

/** Cuts a whole program for a mesh. */
export function partitionProgram(
  func: Func,
  inputPaths: readonly string[],
  outputPaths: readonly string[],
  { placement, placeOf }: Parallel,
): Partitioned {
  const places = inputPaths.map((path, i) => placeOf(path, func.params[i]!.type))
  const wanted = outputPaths.map((path, i): Layout => {
    const at = path.startsWith('state') ? inputPaths.indexOf(path) : -1
    const rank = func.results[i]!.shape.length
    return at >= 0 ? places[at]!.layout : { dims: Array.from({ length: rank }, () => []), partial: {} }
  })
  const cut = inGraph(new Graph(), () => partition(func, placement, places, wanted))
  check(cut.func, 'partition')
  const local = inGraph(new Graph(), () => simplify(cut.func))
  check(local, 'simplify after partition')
  return {
    mesh: placement.mesh,
    func: local,
    inputs: places.map(({ layout }) => layout),
    outputs: cut.outputs,
  }
}

type Elements = Float64Array

/** What a program does with its values, for the reference target. */
export interface RankedValues {
  write(path: string, values: ArrayLike<number>): void
  /** The whole value, as it is now. */
  view(path: string): Elements
  /** What one rank holds of it. */
  piece(path: string, rank: number): Elements
  run(): void
}

/** Interprets the local program on every rank. Inputs start as zeros. */
export function referenceRanks(
  { mesh, func, inputs, outputs }: Partitioned,
  inputPaths: readonly string[],
  outputPaths: readonly string[],
  wholeTypes: ReadonlyMap<string, ValueType>,
): RankedValues {
  const ranks = ranksOf(mesh)
  const layouts = new Map([
    ...outputPaths.map((path, i) => [path, outputs[i]!] as const),
    ...inputPaths.map((path, i) => [path, inputs[i]!] as const),
  ])
  const held = new Map<string, Elements[]>(
    inputPaths.map((path, i) => [
      path,
      Array.from({ length: ranks }, () => new Float64Array(sizeOf(func.params[i]!.shape))),
    ]),
  )
  const pieces = (path: string): { rank: number; data: Elements }[] =>
    held.get(path)!.map((data, rank) => ({ rank, data }))
  return {
    write(path, values) {
      scatter(mesh, layouts.get(path)!, wholeTypes.get(path)!.shape, values, pieces(path))
    },
    view(path) {
      const { shape } = wholeTypes.get(path)!
      const whole = new Float64Array(sizeOf(shape))
      assemble(mesh, layouts.get(path)!, shape, pieces(path), whole)
      return whole
    },
    piece: (path, rank) => held.get(path)![rank]!,
    run() {
      const results = interpretRanks(
        func,
        inputPaths.map((path) => held.get(path)!.map((value) => value.slice())),
        ranks,
      )
      outputPaths.forEach((path, i) => held.set(path, [...results[i]!]))
    },
  }
}
