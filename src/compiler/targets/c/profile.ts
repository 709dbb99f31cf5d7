/**
 * The instrumented form of a program: every kernel call in the text is a *site* with a number, and a build with
 * -DANNEAL_PROFILE times each (profile.h). The text is the same either way; without the flag the macros are empty and so
 * the machine code is that of a program which was never meant to be profiled.
 */
import { readFileSync } from 'node:fs'
import type { Block, KernelStep } from './lower.ts'
import type { Work } from './work.ts'

/** A kernel call in the text of a program. */
export interface Site extends Work {
  /** The C function. */
  readonly kernel: string
  /** How often one run calls it: more than once inside a loop. */
  readonly callsPerRun: number
}

export type SiteNumbers = ReadonlyMap<KernelStep, number>

/** Kernel calls of a block in the order of the text, and how often each runs: chains call a kernel once a block of rows. */
function walk(block: Block, times: number): { step: KernelStep; times: number }[] {
  return block.phases.flat().flatMap((chain) =>
    chain.steps.flatMap((step) =>
      step.kind === 'loop'
        ? walk(step.block, times * step.length)
        : [{ step, times: times * Math.ceil(chain.rows / chain.block) }],
    ),
  )
}

export const numberSites = (block: Block): SiteNumbers =>
  new Map(walk(block, 1).map(({ step }, number) => [step, number]))

export const sitesOf = (block: Block): Site[] => walk(block, 1).map(({ step, times }) => siteOf(step, times))

const siteOf = ({ name, work }: KernelStep, callsPerRun: number): Site => ({
  ...work,
  kernel: name,
  callsPerRun,
})

const header = readFileSync(new URL('profile.h', import.meta.url), 'utf8')

/** Events that a thread records of a run; what goes beyond is counted and not recorded. */
const maxEvents = 1 << 16

const eventsOf = (calls: readonly { readonly times: number }[]): number =>
  Math.min(
    maxEvents,
    calls.reduce((total, { times }) => total + times, 0),
  )

/** C text that the calls of the block need. */
export function profileText(block: Block): string {
  const calls = walk(block, 1)
  return `#define SITES ${calls.length}\n#define EVENTS ${eventsOf(calls)}\n${header}`
}

/** Calls and time of one site on one thread. */
export interface ThreadTotal {
  readonly calls: number
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
  const events = eventsOf(sites.map(({ callsPerRun }) => ({ times: callsPerRun })))
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
          calls: at(start + 1 + i),
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
