/**
 * The instrumented form of a program: every kernel call in the text is a *site* with a number, and a build with
 * -DANNEAL_PROFILE times each (profile.h). The text is the same either way; without the flag the macros are empty and so
 * the machine code is that of a program which was never meant to be profiled.
 */
import { readFileSync } from 'node:fs'
import type { Block, KernelStep, Step } from './lower.ts'
import type { Chain } from './schedule.ts'
import type { Work } from './work.ts'

/** A kernel call in the text of a program. */
export interface Site extends Work {
  /** The C function. */
  readonly kernel: string
  /** How often one run comes by: more than once inside a loop. */
  readonly callsPerRun: number
  /** The most pieces in which a thread does one call: blocks of rows, where kernels follow each other closely. */
  readonly pieces: number
}

/** What the C compiler is told: the clock that times calls, the wall's or that of the calling thread. */
export const profileFlags = (profile: boolean | 'cpu' | undefined): string[] =>
  profile ? [`-DANNEAL_PROFILE=${profile === 'cpu' ? 'CLOCK_THREAD_CPUTIME_ID' : 'CLOCK_MONOTONIC'}`] : []

export type SiteNumbers = ReadonlyMap<KernelStep, number>

/** Steps of a block in the order of the text. */
export const stepsOf = (block: Block): Step[] =>
  block.phases.flatMap((phase) => phase.flatMap(({ steps }) => steps))

/** Kernel calls of a block in the order of the text, each with the chain it is in and how often it runs. */
function walk(block: Block, times: number): { step: KernelStep; chain: Chain; times: number }[] {
  return block.phases.flatMap((phase) =>
    phase.flatMap((chain) =>
      chain.steps.flatMap((step) =>
        step.kind === 'loop' ? walk(step.block, times * step.length) : [{ step, chain, times }],
      ),
    ),
  )
}

const walkAll = (blocks: readonly Block[]): ReturnType<typeof walk> =>
  blocks.flatMap((block) => walk(block, 1))

export const numberSites = (blocks: readonly Block[]): SiteNumbers =>
  new Map(walkAll(blocks).map(({ step }, number) => [step, number]))

export const sitesOf = (blocks: readonly Block[], threads: number): Site[] =>
  walkAll(blocks).map(({ step, chain, times }) => siteOf(step, chain, times, threads))

const siteOf = ({ name, work }: KernelStep, chain: Chain, callsPerRun: number, threads: number): Site => ({
  ...work,
  kernel: name,
  callsPerRun,
  // A share is at most one unit larger than an equal part.
  pieces:
    chain.kind === 'rows' && chain.steps.length > 1
      ? Math.ceil((Math.ceil(chain.rows / threads) + chain.unit) / chain.block)
      : 1,
})

const header = readFileSync(new URL('profile.h', import.meta.url), 'utf8')

/** Events that a thread records of a run; what goes beyond is counted and not recorded. */
const maxEvents = 1 << 16

const eventsOf = (sites: readonly Site[]): number =>
  Math.min(
    maxEvents,
    sites.reduce((total, { callsPerRun, pieces }) => total + callsPerRun * pieces, 0),
  )

/** C text that the calls of the blocks need. */
export function profileText(blocks: readonly Block[], threads: number): string {
  const sites = sitesOf(blocks, threads)
  return `#define SITES ${sites.length}\n#define EVENTS ${eventsOf(sites)}\n${header}`
}

/** Pieces of calls and time of one site on one thread. */
export interface ThreadTotal {
  readonly pieces: number
  readonly nanoseconds: number
}

export interface RawProfile {
  readonly runs: number
  readonly nanoseconds: number
  /** When the latest run began and ended, by the clock of the events. */
  readonly began: number
  readonly ended: number
  readonly threads: readonly {
    readonly totals: readonly ThreadTotal[]
    /** Of the latest run, in order. */
    readonly events: readonly { readonly site: number; readonly began: number; readonly ended: number }[]
    /** Calls of the latest run that were not recorded one by one. */
    readonly unrecorded: number
  }[]
}

const apart = 16

/** Where things lie in the `profile` of profile.h, in cells of eight bytes. */
export function profileLayout(sites: readonly Site[], threads: number) {
  const events = eventsOf(sites)
  const perThread = 1 + 2 * sites.length + 3 * events + apart
  return { bytes: 8 * (4 + threads * perThread), events, perThread }
}

/** Reads the profile that profile.h wrote, and clears it. */
export function takeProfile(memory: ArrayBuffer, sites: readonly Site[], threads: number): RawProfile {
  const cells = new BigInt64Array(memory)
  const { events, perThread } = profileLayout(sites, threads)
  const at = (index: number): number => Number(cells[index]!)
  const raw = {
    runs: at(0),
    nanoseconds: at(1),
    began: at(2),
    ended: at(3),
    threads: Array.from({ length: threads }, (_, thread) => {
      const start = 4 + thread * perThread
      const numEvents = at(start)
      const recorded = Math.min(numEvents, events)
      const firstEvent = start + 1 + 2 * sites.length
      return {
        totals: sites.map((_site, i) => ({
          pieces: at(start + 1 + i),
          nanoseconds: at(start + 1 + sites.length + i),
        })),
        events: Array.from({ length: recorded }, (_event, i) => ({
          site: at(firstEvent + 3 * i),
          began: at(firstEvent + 3 * i + 1),
          ended: at(firstEvent + 3 * i + 2),
        })),
        unrecorded: numEvents - recorded,
      }
    }),
  }
  cells.fill(0n)
  return raw
}
