/**
 * Server-sent events about runs. A stream looks at the files a few times a second and sends only what is new; the page
 * gives the cursor it has reached, at first in the address and, when the browser connects again by itself, as
 * `Last-Event-ID`. Looking instead of being told works on any file system, and sees folders that are copied in.
 */
import { streamSSE } from 'hono/streaming'
import type { SSEStreamingApi } from 'hono/streaming'
import type { Context } from 'hono'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { listIndexedRuns } from '../runs/index-db.ts'
import { isRunFolder, readStatus, readTail } from '../runs/index.ts'
import type { RunStatus, RunSummary } from '../runs/index.ts'
import { printJson } from './json.ts'

const beatMs = 1000
/**
 * A look that takes long is repeated less often: at most a twentieth of the time is spent looking. What counts is the
 * processor's time: while training keeps all cores busy, a look that had to wait for one has cost nothing.
 */
const pauseShare = 20
/** One run is looked at no less often than that: only its end is read, and a new point is to show at once. */
const runPauseMs = 250
/** Lines in one event, so that none grows without bound. */
const mostLines = 2000

export interface FollowOptions {
  readonly root: string
  readonly pollMs: number
  /** Ends every stream: the server closes. */
  readonly signal: AbortSignal
}

/** Streams what happens to one run from `cursor` on. */
export function followRun(c: Context, id: string, { root, pollMs, signal }: FollowOptions): Response {
  const dir = join(root, id)
  let cursor = c.req.header('last-event-id') ?? c.req.query('cursor') ?? null
  return streamSSE(c, async (stream) => {
    let status: RunStatus | undefined
    let statusAt = 0
    await eachTick(stream, signal, pollMs, Math.max(pollMs, runPauseMs), async (send) => {
      if (!isRunFolder(root, id)) {
        await send('reset', { gone: true }, cursor)
        return 'end'
      }
      const tail = readTail(dir, cursor)
      if (tail.reset) {
        await send('reset', { gone: false }, cursor)
        return 'end'
      }
      for (let i = 0; i < tail.lines.length; i += mostLines) {
        const last = i + mostLines >= tail.lines.length
        // Only whole reads move the cursor: a page that loses the connection between two parts gets both again.
        await send('lines', tail.lines.slice(i, i + mostLines), last ? tail.cursor : cursor)
      }
      if (tail.cursor !== cursor) await send('cursor', { cursor: tail.cursor }, tail.cursor)
      cursor = tail.cursor
      const now = performance.now()
      if (tail.lines.some(({ kind }) => kind === 'status') || now - statusAt > 1000) {
        statusAt = now
        const present = readStatus(dir)
        if (present.status !== status) {
          status = present.status
          await send('status', present, cursor)
        }
      }
      return 'go on'
    })
  })
}

/** Streams changes of the list: first everything, then the runs that changed. */
export function followList(c: Context, { root, pollMs, signal }: FollowOptions): Response {
  return streamSSE(c, async (stream) => {
    let known: ReadonlyMap<string, string> | undefined
    let skippedBefore = ''
    await eachTick(stream, signal, Math.max(pollMs, 500), Infinity, async (send) => {
      const { runs, skipped } = listIndexedRuns(root)
      const prints = new Map(runs.map((run) => [run.id, printJson(run)]))
      const changed = runs.filter(({ id }) => known?.get(id) !== prints.get(id))
      const gone = [...(known?.keys() ?? [])].filter((id) => !prints.has(id))
      const skippedNow = printJson(skipped)
      if (known === undefined || changed.length + gone.length > 0 || skippedNow !== skippedBefore)
        await send('runs', { changed: changed satisfies RunSummary[], gone, skipped }, null)
      known = prints
      skippedBefore = skippedNow
      return 'go on'
    })
  })
}

type Send = (event: string, data: unknown, id: string | null) => Promise<void>

/** Calls `look` until it ends the stream, the reader leaves or the server closes; says so when nothing happened. */
async function eachTick(
  stream: SSEStreamingApi,
  signal: AbortSignal,
  pollMs: number,
  mostPauseMs: number,
  look: (send: Send) => Promise<'end' | 'go on'>,
): Promise<void> {
  let sentAt = 0
  const send: Send = async (event, data, id) => {
    sentAt = performance.now()
    await stream.writeSSE({ event, data: printJson(data), ...(id === null ? {} : { id }) })
  }
  while (!stream.aborted && !signal.aborted) {
    const began = processorMs()
    if ((await look(send)) === 'end') return
    const pause = Math.min(mostPauseMs, Math.max(pollMs, (processorMs() - began) * pauseShare))
    if (performance.now() - sentAt > beatMs) await send('beat', {}, null)
    await sleep(pause, undefined, { signal }).catch(() => undefined)
  }
}

/** Time that this thread has spent on a core. */
function processorMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}
