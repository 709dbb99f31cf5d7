/**
 * Storage and the static memory plan. Every stored value gets a storage with a lifetime in phases; storages that may
 * share memory (an output that takes over its input) are united first, then offsets are chosen greedily, largest first,
 * at the lowest place free for the whole lifetime. The sum is known exactly before anything runs.
 */
import { InternalError } from '../../../errors.ts'
import type { Place } from './schedule.ts'
import type { Locality } from './span.ts'

/** When and how a storage is used. */
export interface Moment {
  readonly place: Place
  readonly written: boolean
  readonly local: Locality
}

export const alignment = 64

export const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment

/**
 * Where a value lives. `temporary`: planned inside its block; `outside`: given by whoever runs the block (a parameter, a
 * slice of a loop's input, the place of a result), known at emission as a C expression.
 */
export class Storage {
  readonly label: string
  readonly bytes: number
  /** C expression of the address, for storage that this block does not plan. */
  readonly outside: string | undefined
  /** Lies in a file: pages come and go, so it is worked on by itself. */
  readonly inFile: boolean
  /** This storage is part of another one. */
  #same: Storage | undefined
  first = Infinity
  last = -Infinity
  offset = -1
  /** Uses of this storage and of those that became part of it. */
  readonly moments: Moment[] = []

  constructor(label: string, bytes: number, outside?: string, { inFile = false } = {}) {
    this.label = label
    this.bytes = bytes
    this.outside = outside
    this.inFile = inFile
  }

  get root(): Storage {
    return this.#same ? this.#same.root : this
  }

  /** From now on both are one piece of memory. */
  unite(other: Storage): void {
    const [mine, theirs] = [this.root, other.root]
    if (mine === theirs) return
    if (mine.outside !== undefined) throw new InternalError(`storage ${mine.label} is placed already`)
    if (mine.bytes > theirs.bytes)
      throw new InternalError(`storage ${mine.label} does not fit into ${theirs.label}`)
    mine.#same = theirs
    theirs.first = Math.min(theirs.first, mine.first)
    theirs.last = Math.max(theirs.last, mine.last)
    theirs.moments.push(...mine.moments)
  }

  /** Alive in this phase. */
  touch(phase: number): void {
    const { root } = this
    root.first = Math.min(root.first, phase)
    root.last = Math.max(root.last, phase)
  }

  use(moment: Moment): void {
    this.touch(moment.place.phase)
    this.root.moments.push(moment)
  }
}

export interface MemoryPlan {
  /** Bytes of the region that holds all temporaries. */
  readonly bytes: number
  /** The most bytes alive in one phase: no plan can need less. */
  readonly lowerBound: number
}

/** Bytes between storages that are kept apart: more than any vector. */
export const gap = 64

/**
 * Gives every temporary storage its offset. `apart`: no two share memory, and after each comes a gap that a sanitizer can
 * watch.
 */
export function planMemory(storages: Iterable<Storage>, { apart = false } = {}): MemoryPlan {
  const roots = [...new Set([...storages].map((storage) => storage.root))].filter(
    (storage) => storage.outside === undefined && storage.last >= storage.first,
  )
  const lowerBound = peak(roots)
  if (apart) {
    let bytes = 0
    for (const storage of roots) {
      storage.offset = bytes
      bytes += aligned(storage.bytes) + gap
    }
    return { bytes, lowerBound }
  }
  // Largest first is seldom beaten. Where it leaves a gap, what ended up on top is placed earlier, and all again.
  let order = roots.toSorted((a, b) => b.bytes - a.bytes || a.first - b.first)
  let best = pack(order)
  let latest = best
  for (let attempt = 0; attempt < attempts && best.bytes > lowerBound; attempt++) {
    const { bytes, offsets } = latest
    const onTop = order.filter((storage, i) => offsets[i]! + aligned(storage.bytes) === bytes)
    order = [...onTop, ...order.filter((storage) => !onTop.includes(storage))]
    latest = pack(order)
    if (latest.bytes < best.bytes) best = latest
  }
  best.order.forEach((storage, i) => (storage.offset = best.offsets[i]!))
  return { bytes: best.bytes, lowerBound }
}

const attempts = 64

interface Packing {
  readonly order: readonly Storage[]
  readonly offsets: readonly number[]
  readonly bytes: number
}

/** Each storage in turn at the lowest place that is free for its whole lifetime. */
function pack(order: readonly Storage[]): Packing {
  const offsets: number[] = []
  let bytes = 0
  order.forEach((storage, i) => {
    const size = aligned(storage.bytes)
    const rivals = order
      .slice(0, i)
      .map((other, at) => ({ other, from: offsets[at]! }))
      .filter(({ other }) => other.first <= storage.last && storage.first <= other.last)
      .toSorted((a, b) => a.from - b.from)
    let offset = 0
    for (const { other, from } of rivals) {
      if (from >= offset + size) break
      offset = Math.max(offset, from + aligned(other.bytes))
    }
    offsets.push(offset)
    bytes = Math.max(bytes, offset + size)
  })
  return { order, offsets, bytes }
}

function peak(storages: readonly Storage[]): number {
  const changes = new Map<number, number>()
  const change = (step: number, by: number): void => void changes.set(step, (changes.get(step) ?? 0) + by)
  for (const storage of storages) {
    change(storage.first, aligned(storage.bytes))
    change(storage.last + 1, -aligned(storage.bytes))
  }
  let live = 0
  let most = 0
  for (const step of [...changes.keys()].toSorted((a, b) => a - b)) {
    live += changes.get(step)!
    most = Math.max(most, live)
  }
  return most
}
