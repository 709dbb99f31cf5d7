/**
 * Values of a native program over several ranks, whole at the border: what is written is cut and lands in every rank's
 * arena, what is read is rank 0's memory where that is the whole value, and an assembled copy where it is not.
 */
import { isWhole, type Layout, type Mesh } from './graph/mesh.ts'
import { sizeOf, type ValueType } from './graph/types.ts'
import { assemble, scatter } from './pieces.ts'
import type { Part } from './ranked.ts'
import type { CollectiveSite } from './targets/c/collectives.ts'

/** The memory types of values. */
export type Memory = Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array

/** What one rank holds of a value. */
export interface Piece {
  readonly rank: number
  readonly data: Memory
}

/** How inputs and results lie, by path. */
export const layoutsOf = ({ inputs, outputs, inputPaths, outputPaths }: Part): ReadonlyMap<string, Layout> =>
  new Map([
    ...outputPaths.map((path, i) => [path, outputs[i]!] as const),
    ...inputPaths.map((path, i) => [path, inputs[i]!] as const),
  ])

export function viewWhole(
  mesh: Mesh,
  layout: Layout,
  { shape }: ValueType,
  pieces: readonly Piece[],
): Memory {
  const first = pieces[0]!.data
  if (isWhole(layout)) return first
  const whole = new (first.constructor as new (length: number) => Memory)(sizeOf(shape))
  assemble(mesh, layout, shape, pieces, whole)
  return whole
}

export const writeWhole = (
  mesh: Mesh,
  layout: Layout,
  { shape }: ValueType,
  values: ArrayLike<number>,
  pieces: readonly Piece[],
): void => scatter(mesh, layout, shape, values, pieces)

/** What one collective of a program has sent so far. */
export interface Traffic extends CollectiveSite {
  /** How often every rank came by. */
  readonly calls: number
  /** Bytes that rank i sent to rank j, by i and j. */
  readonly bytesSent: readonly (readonly number[])[]
}

/** Reads the counters of collectives.h. */
export function readTraffic(
  memoryOf: (bytes: number) => ArrayBuffer,
  sites: readonly CollectiveSite[],
  ranks: number,
): Traffic[] {
  if (sites.length === 0) return []
  const each = ranks + ranks * ranks
  const cells = new BigInt64Array(memoryOf(8 * sites.length * each))
  return sites.map((site, i) => {
    const at = (offset: number): number => Number(cells[i * each + offset]!)
    const bytesSent = Array.from({ length: ranks }, (_, from) =>
      Array.from({ length: ranks }, (_, to) => at(ranks + from * ranks + to)),
    )
    return { ...site, calls: at(0), bytesSent }
  })
}
