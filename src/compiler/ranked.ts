/**
 * One program over all ranks of a mesh, as whoever trains with it sees it: values go in and come out whole, and where
 * they lie is the program's business. Ranks of one pipeline stage run one local program; without a pipeline there is
 * one for all. The runner here is the float64 one, on simulated ranks; it decides what a plan means.
 */
import { coordinate, ranksOf, sameLayout, whole, type Layout, type Mesh } from './graph/mesh.ts'
import { Graph, inGraph, type Func } from './graph/node.ts'
import { sizeOf, type ValueType } from './graph/types.ts'
import { check } from './passes/check.ts'
import type { Placement } from './passes/layouts.ts'
import { partition, type InputPlace } from './passes/partition.ts'
import { simplify } from './passes/simplify.ts'
import { assemble, scatter, type Piece } from './pieces.ts'
import { interpretRanks } from './targets/reference/ranks.ts'
import type { Tensors } from './trace/functions.ts'
import type { Tree } from './trace/tree.ts'

/** A mesh, and where inputs and state lie on it. */
export interface Parallel {
  readonly placement: Placement
  /** Results under `state` lie where the input of the same path does; other results are whole everywhere. */
  readonly placeOf: (path: string, type: ValueType) => InputPlace
  /** How native ranks exist: threads of this process (default), or processes that mpirun started, this being one. */
  readonly transport?: 'threads' | 'mpi'
  /** Programs of the stages of a pipeline. */
  readonly pipeline?: {
    readonly axis: string
    /** What the ranks at each place along the axis compute, with the inputs that they have. */
    readonly stages: readonly StageSource[]
  }
}

export interface StageSource {
  readonly inputs: Tree<ValueType>
  readonly body: (inputs: Tensors) => Tensors
}

/** A function with names for its parameters and results. */
export interface NamedFunc {
  readonly func: Func
  readonly inputPaths: readonly string[]
  readonly outputPaths: readonly string[]
}

/** A local program, the ranks that run it, and how its inputs and results lie in the whole. */
export interface Part extends NamedFunc {
  readonly ranks: readonly number[]
  readonly inputs: readonly Layout[]
  readonly outputs: readonly Layout[]
}

export interface Partitioned {
  readonly mesh: Mesh
  readonly parts: readonly Part[]
}

/**
 * Cuts a program for a mesh. `sources`: the whole program, or one for each place along the pipeline; `types`: of inputs
 * on a single device, which tell where a stage has only some of the layers.
 */
export function partitionProgram(
  sources: readonly NamedFunc[],
  types: ReadonlyMap<string, ValueType>,
  { placement, placeOf, pipeline }: Parallel,
): Partitioned {
  const { mesh } = placement
  const all = Array.from({ length: ranksOf(mesh) }, (_, rank) => rank)
  const parts = sources.map(({ func, inputPaths, outputPaths }, at): Part => {
    const places = inputPaths.map((path, i) => placeOf(path, func.params[i]!.type))
    const wanted = outputPaths.map((path, i): Layout => {
      const input = path.startsWith('state') ? inputPaths.indexOf(path) : -1
      return input >= 0 ? places[input]!.layout : whole(func.results[i]!.shape.length)
    })
    const cut = inGraph(new Graph(), () => partition(func, placement, places, wanted))
    check(cut.func, 'partition')
    const local = inGraph(new Graph(), () => simplify(cut.func))
    check(local, 'simplify after partition')
    // A stage that has some of the layers has a cut of the whole.
    const inWhole = (path: string, layout: Layout, shape: readonly number[]): Layout => {
      const type = types.get(path)
      if (!pipeline || !type || type.shape[0] === shape[0]) return layout
      return { ...layout, dims: [[pipeline.axis, ...layout.dims[0]!], ...layout.dims.slice(1)] }
    }
    return {
      func: local,
      inputPaths,
      outputPaths,
      ranks: pipeline ? all.filter((rank) => coordinate(mesh, pipeline.axis, rank) === at) : all,
      inputs: inputPaths.map((path, i) => inWhole(path, places[i]!.layout, func.params[i]!.shape)),
      outputs: outputPaths.map((path, i) => inWhole(path, cut.outputs[i]!, func.results[i]!.shape)),
    }
  })
  return { mesh, parts }
}

/** What the ranks hold under a path. */
export interface HeldPiece extends Piece {
  readonly layout: Layout
}

/** Values of a program over ranks: whole at the border, in pieces behind it. */
export class RankedValues<T extends Piece['data'] = Piece['data']> {
  readonly #mesh: Mesh
  readonly #types: ReadonlyMap<string, ValueType>
  readonly #pieces: (path: string) => readonly (HeldPiece & { readonly data: T })[]
  readonly #make: (type: ValueType) => T

  constructor(
    { mesh }: Partitioned,
    types: ReadonlyMap<string, ValueType>,
    pieces: (path: string) => readonly (HeldPiece & { readonly data: T })[],
    make: (type: ValueType) => T,
  ) {
    this.#mesh = mesh
    this.#types = types
    this.#pieces = pieces
    this.#make = make
  }

  /** What each rank holds. */
  pieces(path: string): readonly (HeldPiece & { readonly data: T })[] {
    return this.#pieces(path)
  }

  write(path: string, values: ArrayLike<number>): void {
    const { shape } = this.#types.get(path)!
    for (const piece of this.#pieces(path)) scatter(this.#mesh, piece.layout, shape, values, [piece])
  }

  /** The value: live where some rank has all of it, else put together now. */
  view(path: string): T {
    const type = this.#types.get(path)!
    const pieces = this.#pieces(path)
    const complete = pieces.find(({ layout }) => sameLayout(layout, whole(type.shape.length)))
    if (complete) return complete.data
    const made = this.#make(type)
    for (const piece of pieces) assemble(this.#mesh, piece.layout, type.shape, [piece], made)
    return made
  }
}

/** Interprets the local programs on every rank. Inputs start as zeros. */
export function referenceRanks(
  cut: Partitioned,
  types: ReadonlyMap<string, ValueType>,
): RankedValues<Float64Array> & { run(): void } {
  const held = new Map<string, HeldPiece & { readonly data: Float64Array }>()
  const key = (path: string, rank: number): string => `${rank} ${path}`
  const hold = (path: string, layout: Layout, rank: number, data: Float64Array): void => {
    held.set(key(path, rank), { rank, layout, data })
  }
  for (const { ranks, func, inputPaths, inputs } of cut.parts) {
    inputPaths.forEach((path, i) =>
      ranks.forEach((rank) => hold(path, inputs[i]!, rank, new Float64Array(sizeOf(func.params[i]!.shape)))),
    )
  }
  const count = ranksOf(cut.mesh)
  const piecesOfPath = (path: string): (HeldPiece & { readonly data: Float64Array })[] =>
    Array.from({ length: count }, (_, rank) => held.get(key(path, rank))).filter(
      (piece) => piece !== undefined,
    )
  const values = new RankedValues(cut, types, piecesOfPath, (type) => new Float64Array(sizeOf(type.shape)))
  return Object.assign(values, {
    run() {
      const results = interpretRanks(
        cut.parts.map(({ func, ranks, inputPaths }) => ({
          func,
          ranks,
          args: inputPaths.map((path) => {
            const args: Float64Array[] = []
            for (const rank of ranks) args[rank] = held.get(key(path, rank))!.data.slice()
            return args
          }),
        })),
      )
      cut.parts.forEach(({ ranks, outputPaths, outputs }, part) =>
        outputPaths.forEach((path, i) =>
          ranks.forEach((rank) => hold(path, outputs[i]!, rank, results[part]![i]![rank]!)),
        ),
      )
    },
  })
}
