/** A native program over several ranks: what each rank holds, and what its collectives have sent. */
import type { Layout } from './graph/mesh.ts'
import type { HeldPiece, Part } from './ranked.ts'
import type { CollectiveSite } from './targets/c/collectives.ts'

/** The memory types of values. */
export type Memory = Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array

/** What one rank holds of a value: a view of its arena. */
export interface LivePiece extends HeldPiece {
  readonly data: Memory
}

/** How inputs and results lie, by path. */
export const layoutsOf = ({ inputs, outputs, inputPaths, outputPaths }: Part): ReadonlyMap<string, Layout> =>
  new Map([
    ...outputPaths.map((path, i) => [path, outputs[i]!] as const),
    ...inputPaths.map((path, i) => [path, inputs[i]!] as const),
  ])

/** What one collective of a program has sent so far. */
export interface Traffic extends CollectiveSite {
  /** How often each of its ranks came by. */
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
    // Ranks of other stages, or in other processes, never came by here.
    const calls = Math.max(...Array.from({ length: ranks }, (_, rank) => at(rank)))
    return { ...site, calls, bytesSent }
  })
}
