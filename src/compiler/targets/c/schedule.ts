/**
 * The schedule: which steps run between two barriers. A step is placed in the earliest *phase* in which everything it
 * reads is there; the team meets only at the end of a phase. Within a phase, row kernels that feed each other form a
 * *chain*: a thread takes its own rows through all of them, a block at a time, so that what one kernel writes the next
 * finds in cache and no barrier is needed. Chains never change a bit: each row is computed by the same arithmetic.
 */
import type { Step } from './lower.ts'
import type { Locality, Nature } from './span.ts'
import type { Storage } from './storage.ts'

/** One access of a step to a storage. */
export interface Use {
  readonly storage: Storage
  readonly written: boolean
  readonly local: Locality
}

/** Steps of one phase that every thread runs in order, for its rows (`rows`), alone (`serial`), or together (`team`). */
export interface Chain {
  readonly kind: Nature['kind']
  /** Rows that threads share out, in multiples of `unit`. */
  rows: number
  unit: number
  /** Rows that go through all steps at a time. */
  block: number
  readonly steps: Step[]
}

export type Phase = Chain[]

export interface Place {
  readonly phase: number
  readonly chain: Chain
  /** Position in the chain. */
  readonly index: number
}

/** Bytes of a block of rows that should stay in the second-level cache beside packed weights. */
const blockBytes = 1024 * 1024

export class Schedule {
  readonly phases: Phase[] = []
  readonly #threads: number
  readonly #producers = new Map<Storage, { place: Place; local: Locality }>()
  readonly #uses = new Map<Chain, Use[]>()
  /** Chains that no unrelated step joins, so that what lies in files is gone through one buffer after the other. */
  readonly #alone = new Set<Chain>()

  constructor(threads: number) {
    this.#threads = threads
  }

  /** Places a step no earlier than phase `from`. */
  place(step: Step, nature: Nature, uses: readonly Use[], from = 0): Place {
    const producers = uses.flatMap((use) => {
      const producer = this.#producers.get(use.storage)
      return producer ? [{ ...producer, use }] : []
    })
    let phase = Math.max(from, ...producers.map(({ place }) => place.phase))
    const near = producers.filter(({ place }) => place.phase === phase)
    let chain: Chain | undefined
    if (near.length > 0) {
      chain = near[0]!.place.chain
      const together = near.every(({ place }) => place.chain === chain)
      const links = near.flatMap(({ local, use }) => [local, use.local])
      if (!together || !this.#join(chain, nature, links)) {
        phase++
        chain = undefined
      }
    }
    while (this.phases.length <= phase) this.phases.push([])
    const inFile = uses.some(({ storage }) => storage.root.inFile)
    if (!inFile) chain ??= this.#related(this.phases[phase]!, nature, uses)
    if (!chain) {
      chain = {
        kind: nature.kind,
        rows: nature.kind === 'rows' ? nature.rows : 1,
        unit: nature.kind === 'rows' ? nature.unit : 1,
        block: 1,
        steps: [],
      }
      this.phases[phase]!.push(chain)
    }
    if (inFile) this.#alone.add(chain)
    const place: Place = { phase, chain, index: chain.steps.push(step) - 1 }
    const known = this.#uses.get(chain) ?? []
    this.#uses.set(chain, [...known, ...uses])
    for (const { storage, written, local } of uses) {
      if (written) this.#producers.set(storage, { place, local })
    }
    return place
  }

  /** Chooses the blocks of chains, once every step is placed: what a block touches should stay in cache. */
  cutBlocks(): void {
    for (const chain of this.phases.flat()) {
      const { rows, unit, steps } = chain
      const local = this.#uses.get(chain)!.filter((use) => use.local(rows))
      const bytes = [...new Set(local.map(({ storage }) => storage))].reduce((sum, x) => sum + x.bytes, 0)
      chain.block = steps.length === 1 ? rows : Math.max(unit, roundDown(blockBytes / (bytes / rows), unit))
    }
  }

  /** Whether a step may follow in a chain; cuts the chain's rows so that both agree. */
  #join(chain: Chain, nature: Nature, links: readonly Locality[]): boolean {
    if (chain.kind !== nature.kind || chain.kind === 'team') return false
    if (nature.kind !== 'rows') return true
    const rows = greatestCommonDivisor(chain.rows, nature.rows)
    const unit = commonUnit(chain, nature, rows)
    if (!this.#balanced(rows, unit) || !links.every((local) => local(rows))) return false
    chain.rows = rows
    chain.unit = unit
    return true
  }

  /** A chain of the phase with the same rows, or that reads the same values: better warm than apart. */
  #related(phase: Phase, nature: Nature, uses: readonly Use[]): Chain | undefined {
    if (nature.kind === 'team') return undefined
    return phase.find((chain) => {
      if (chain.kind !== nature.kind || this.#alone.has(chain)) return false
      if (nature.kind !== 'rows') return true
      const read = this.#uses.get(chain)!.filter((use) => !use.written)
      const shares = uses.some((use) => !use.written && read.some(({ storage }) => storage === use.storage))
      const alike = nature.rows === chain.rows || (shares && nature.rows % chain.rows === 0)
      return alike && this.#join(chain, nature, [])
    })
  }

  /** Whether equal shares keep every thread busy most of the time. */
  #balanced(rows: number, unit: number): boolean {
    const shares = Math.ceil(rows / unit)
    return shares / (Math.ceil(shares / this.#threads) * this.#threads) >= 0.85
  }
}

const roundDown = (n: number, unit: number): number => Math.floor(n / unit) * unit

/** The chain's unit, in rows of the joined chain, that is a whole number of units of both. */
function commonUnit(chain: Chain, nature: { rows: number; unit: number }, rows: number): number {
  const [a, b] = [chain, nature].map(({ unit, rows: own }) => unit / greatestCommonDivisor(unit, own / rows))
  return (a! * b!) / greatestCommonDivisor(a!, b!)
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b)
}
