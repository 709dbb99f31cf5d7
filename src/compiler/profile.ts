/**
 * What running a program cost, kernel call by kernel call, and how near each came to what the machine can do. The unit is
 * the *site*, one call in the text of the emitted program; a site inside a loop counts all iterations.
 * Subtle: a site's `seconds` is the mean over the threads of the team, so that seconds of all sites and `waitingSeconds`
 * add up to the wall clock, and a rate is that of the whole machine while it worked on the site. A kernel that only one
 * thread runs is held against one thread's share of the peak; that the others waited shows under waiting.
 */
import type { Peak } from './runtime/peak.ts'
import { takeProfile, type Site } from './targets/c/profile.ts'

export type { Site } from './targets/c/profile.ts'

export interface SiteProfile extends Site {
  /** In all runs together, as everything here. */
  readonly calls: number
  readonly seconds: number
  readonly totalFlops: number
  readonly totalBytes: number
}

/** One call of a site by one thread, in seconds since the latest run began. */
export interface ProfileEvent {
  readonly site: number
  readonly thread: number
  readonly began: number
  readonly ended: number
}

export interface Profile {
  readonly runs: number
  readonly threads: number
  /** Wall clock of all runs. */
  readonly seconds: number
  /** Mean over threads of the time outside of kernels: waiting for the other threads. */
  readonly waitingSeconds: number
  /** In the order of the program's text. */
  readonly sites: readonly SiteProfile[]
  /** The latest run. */
  readonly lastRun: {
    readonly seconds: number
    readonly events: readonly ProfileEvent[]
    /** Calls beyond the 65,536 a thread that are recorded one by one. */
    readonly unrecorded: number
  }
}

/** Reads what the program recorded since the last time, and clears it. */
export function readProfile(memory: ArrayBuffer, sites: readonly Site[], threads: number): Profile {
  const raw = takeProfile(memory, sites, threads)
  const seconds = raw.nanoseconds / 1e9
  const profiles = sites.map((site, i): SiteProfile => {
    const totals = raw.threads.map((thread) => thread.totals[i]!)
    const calls = Math.max(...totals.map((total) => total.calls))
    const nanoseconds = totals.reduce((sum, total) => sum + total.nanoseconds, 0)
    return {
      ...site,
      calls,
      seconds: nanoseconds / threads / 1e9,
      totalFlops: calls * site.flops,
      totalBytes: calls * site.bytes,
    }
  })
  return {
    runs: raw.runs,
    threads,
    seconds,
    waitingSeconds: seconds - profiles.reduce((sum, site) => sum + site.seconds, 0),
    sites: profiles,
    lastRun: {
      seconds: (raw.ended - raw.began) / 1e9,
      events: raw.threads.flatMap(({ events }, thread) =>
        events.map(({ site, began, ended }) => ({
          site,
          thread,
          began: (began - raw.began) / 1e9,
          ended: (ended - raw.began) / 1e9,
        })),
      ),
      unrecorded: raw.threads.reduce((sum, { unrecorded }) => sum + unrecorded, 0),
    },
  }
}

/** A rate and the limit of this machine that a site ran against. */
export interface Verdict {
  readonly limit: 'f32' | 'f64' | 'bf16' | 'memory'
  /** Of that limit: 1 is as fast as the machine was measured to be. */
  readonly share: number
}

/**
 * Which limit of the machine a site is held against: by its arithmetic intensity (FLOPs for each byte), arithmetic or
 * memory, whichever takes the machine longer at its measured best. Memory may show more than 100 %: values that are still
 * in a cache come faster than the copies between large buffers that the limit was measured with.
 */
export function judge(
  site: Site & { readonly calls: number; readonly seconds: number },
  peak: Peak,
): Verdict {
  // There are processors whose bf16 instruction is slower than multiply-adds in f32.
  const slowBf16 = (peak.flopsBf16 ?? 0) <= peak.flopsF32
  const limit = site.precision === 'bf16' && slowBf16 ? 'f32' : site.precision
  const rates = { f32: peak.flopsF32, f64: peak.flopsF32 / 2, bf16: peak.flopsBf16 ?? peak.flopsF32 }
  const arithmetic = (site.calls * site.flops) / rates[limit]
  const memory = (site.calls * site.bytes) / memoryRate(peak)
  return arithmetic > memory
    ? { limit, share: arithmetic / site.seconds }
    : { limit: 'memory', share: memory / site.seconds }
}

/** Bytes a second in and out: a copied byte is read and written. */
export const memoryRate = (peak: Peak): number => 2 * peak.copyBytesPerSecond

/**
 * The latest run in the Chrome trace event format (JSON object form), which Perfetto and other viewers open: one lane a
 * thread, one bar a kernel call. Times in it are microseconds.
 */
export function chromeTrace(name: string, { sites, threads, lastRun }: Profile): object {
  const pid = 1
  const lane = (thread: number): object => ({
    ph: 'M',
    name: 'thread_name',
    pid,
    tid: thread,
    args: { name: `thread ${thread}` },
  })
  return {
    displayTimeUnit: 'ms',
    otherData: { unrecordedCalls: lastRun.unrecorded },
    traceEvents: [
      { ph: 'M', name: 'process_name', pid, args: { name } },
      ...Array.from({ length: threads }, (_, thread) => lane(thread)),
      ...lastRun.events.map(({ site, thread, began, ended }) => {
        const { kernel, ops, source, flops, bytes } = sites[site]!
        return {
          ph: 'X',
          name: kernel,
          cat: ops,
          pid,
          tid: thread,
          ts: began * 1e6,
          dur: (ended - began) * 1e6,
          args: { ops, source, flops, bytes, site },
        }
      }),
    ],
  }
}
