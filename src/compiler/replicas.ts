/**
 * What several ranks hold alike must be the same bits on all of them; where it is not, a core, memory or a cable is
 * broken, or a rank read other data. Ranks compare hashes, and whoever is alone in a group is named. What
 * a rank holds must also be the same just before a step as it was just after the one before: where it is not, that rank
 * knows by itself, without a majority and without a copy.
 */
import { bytesOf } from './graph/types.ts'
import { failure, type UserError } from '../errors.ts'
import { coordinate, type Layout, type Mesh } from './graph/mesh.ts'
import type { NativeProgram } from './runtime/native.ts'
import type { Slot } from './targets/c/build.ts'

/** `hashes`: of a value, by rank. Ranks whose part of it differs from that of most ranks with the same part; all of them where there is no majority. */
export function strangers(mesh: Mesh, layout: Layout, hashes: ReadonlyMap<number, bigint>): number[] {
  const cut = layout.dims.flat()
  const replicas = Map.groupBy(hashes.keys(), (rank) =>
    cut.map((axis) => coordinate(mesh, axis, rank)).join(),
  )
  return [...replicas.values()].flatMap((ranks) => {
    const camps = [...Map.groupBy(ranks, (rank) => hashes.get(rank)!).values()].toSorted(
      (a, b) => b.length - a.length,
    )
    if (camps.length === 1) return []
    const tied = camps[0]!.length === camps[1]!.length
    return (tied ? camps : camps.slice(1)).flat()
  })
}

export interface ReplicasOptions {
  readonly ranks: number
  /** Each rank is a process, and this one has one of them. */
  readonly processes: boolean
  readonly mesh: Mesh
  /** Ranks with one program, and the state in their arenas. */
  readonly parts: readonly {
    readonly ranks: readonly number[]
    readonly layouts: ReadonlyMap<string, Layout>
    readonly state: readonly Slot[]
  }[]
}

/** The hashes of the state of the ranks in this process. */
export class Replicas {
  readonly #native: NativeProgram
  readonly #options: ReplicasOptions
  /** Of the last comparison, by rank. */
  #seen: ReadonlyMap<number, BigUint64Array> = new Map()

  constructor(native: NativeProgram, options: ReplicasOptions) {
    this.#native = native
    this.#options = options
  }

  /** Compares what all ranks hold alike. */
  compare(): void {
    const { parts, mesh, processes, ranks } = this.#options
    this.#seen = this.#hashes()
    // Every process shows as many hashes as the ranks with the most state have.
    const shown = new BigUint64Array(Math.max(...parts.map(({ state }) => state.length)))
    if (processes) shown.set(this.#seen.get(this.#native.rank())!)
    const all = processes
      ? this.#native
          .exchange(new Uint8Array(shown.buffer), ranks)
          .map(({ buffer }) => new BigUint64Array(buffer))
      : Array.from({ length: ranks }, (_, rank) => this.#seen.get(rank)!)
    for (const { ranks, state, layouts } of parts) {
      for (const [i, { path }] of state.entries()) {
        const hashes = new Map(ranks.map((rank) => [rank, all[rank]![i]!]))
        const odd = strangers(mesh, layouts.get(path)!, hashes)
        if (odd.length > 0) throw differs(path, odd)
      }
    }
  }

  /** Compares each rank's state with what it was at the last comparison. */
  checkUnchanged(): void {
    if (this.#seen.size === 0) return
    for (const [rank, hashes] of this.#hashes()) {
      const i = hashes.findIndex((hash, i) => hash !== this.#seen.get(rank)![i])
      if (i >= 0) throw changed(this.#stateOf(rank)[i]!.path, rank)
    }
  }

  #stateOf(rank: number): readonly Slot[] {
    return this.#options.parts.find(({ ranks }) => ranks.includes(rank))!.state
  }

  #hashes(): Map<number, BigUint64Array> {
    return new Map(
      this.#native.arenas.map((_, arena) => {
        const rank = this.#options.processes ? this.#native.rank() : arena
        const hashes = this.#stateOf(rank).map(({ offset, type }) =>
          this.#native.hash(arena, offset, bytesOf(type)),
        )
        return [rank, BigUint64Array.from(hashes)]
      }),
    )
  }
}

const differs = (path: string, ranks: readonly number[]): UserError =>
  failure({
    where: `'${path}' on rank ${ranks.join(' and ')}`,
    got: 'other bits than on the ranks that hold the same part',
    expected: 'the same bits',
    fix: 'go back to the last checkpoint; if it happens again on that rank, its hardware is at fault',
  })

const changed = (path: string, rank: number): UserError =>
  failure({
    where: `'${path}' on rank ${rank}`,
    got: 'other bits than after the step, though nothing has run since',
    expected: 'the same bits',
    fix: 'go back to the last checkpoint; if it happens again on that rank, its memory is at fault',
  })
