/**
 * One run as the page knows it: loaded once, then kept up by the lines that its stream brings. `version` rises with every
 * change, at most once a frame; whoever draws reads it. A stream that breaks goes on from the cursor; a run that was
 * replaced is loaded again.
 */
import { batch, signal } from '@preact/signals'
import type { Signal } from '@preact/signals'
import { decodeColumns } from '../../../src/lab/encode.ts'
import type { Whole } from '../../../src/lab/encode.ts'
import type { RunReply } from '../../../src/lab/wire.ts'
import { Columns } from '../../../src/runs/columns.ts'
import type { RunLine, RunStatus } from '../../../src/runs/index.ts'
import { ApiError, explain, getJson, request, runPath } from './api.ts'
import { columnBytes, embedded } from './embedded.ts'
import { follow } from './live.ts'

export interface LiveRun {
  readonly id: string
  readonly version: Signal<number>
  readonly reply: Signal<RunReply | undefined>
  readonly status: Signal<RunStatus | undefined>
  readonly problem: Signal<string | undefined>
  columns: Columns
  /** How much there was when it was loaded, if `columns` began as an overview of it. */
  whole: Whole | undefined
  close(): void
}

/** Checkpoints are looked at again this long after one came. */
const lookAgainMs = 1000

/** Begins to follow a run. Call `close` when it is no longer shown. */
export function openRun(id: string): LiveRun {
  let cursor = ''
  let closed = false
  let stop: (() => void) | undefined
  let frame = 0
  let retry: ReturnType<typeof setTimeout> | undefined
  let again: ReturnType<typeof setTimeout> | undefined
  const run: LiveRun = {
    id,
    version: signal(0),
    reply: signal(undefined),
    status: signal(undefined),
    problem: signal(undefined),
    columns: new Columns(),
    whole: undefined,
    close() {
      closed = true
      stop?.()
      clearTimeout(retry)
      clearTimeout(again)
      cancelAnimationFrame(frame)
    },
  }
  const changed = (): void => {
    if (frame !== 0) return
    frame = requestAnimationFrame(() => {
      frame = 0
      run.version.value++
    })
  }
  const lookAgain = (): void => {
    again ??= setTimeout(() => {
      again = undefined
      getJson<RunReply>(runPath(id)).then(
        ({ checkpoints, segments }) => {
          if (run.reply.value) run.reply.value = { ...run.reply.value, checkpoints, segments }
        },
        () => undefined,
      )
    }, lookAgainMs)
  }
  const load = async (): Promise<void> => {
    try {
      const [bytes, reply] = await Promise.all([
        request(runPath(id, '/series?thin=1')).then((response) => response.arrayBuffer()),
        getJson<RunReply>(runPath(id)),
      ])
      if (closed) return
      const decoded = decodeColumns(bytes)
      run.columns = decoded.columns
      run.whole = decoded.whole
      cursor = decoded.cursor
      batch(() => {
        run.reply.value = reply
        run.status.value = reply.status
        run.problem.value = undefined
        run.version.value++
      })
      stop ??= follow(() => runPath(id, `/events?cursor=${cursor}`), {
        lines: (data) => {
          const lines = data as readonly RunLine[]
          for (const line of lines) take(run, restore(line))
          changed()
          // An older one goes as a newer one comes: which are left, no line says.
          if (lines.some(({ kind }) => kind === 'checkpoint')) lookAgain()
        },
        cursor: (data) => (cursor = (data as { readonly cursor: string }).cursor),
        status: (data) => {
          const { status, reason } = data as Pick<RunReply, 'status' | 'reason'>
          run.status.value = status
          if (run.reply.value) run.reply.value = { ...run.reply.value, status, reason }
          lookAgain()
        },
        reset: (data) => {
          stop?.()
          stop = undefined
          if ((data as { readonly gone: boolean }).gone) {
            run.problem.value = 'This run is no longer there. It will show again if it comes back.'
            retry = setTimeout(() => void load(), 2000)
          } else void load()
        },
      })
    } catch (error) {
      if (closed) return
      run.problem.value =
        error instanceof ApiError && error.status === 404 ? `There is no run called ${id}.` : explain(error)
      retry = setTimeout(() => void load(), 2000)
    }
  }
  const inside = embedded?.runs.find(({ reply }) => reply.summary.id === id)
  if (inside) {
    run.columns = decodeColumns(columnBytes(inside)).columns
    run.reply.value = inside.reply
    run.status.value = inside.reply.status
  } else void load()
  return run
}

const nonFinite: Readonly<Record<string, number>> = { NaN, Infinity, '-Infinity': -Infinity }

function restore(line: RunLine): RunLine {
  if (line.kind !== 'point') return line
  const metrics = Object.fromEntries(
    Object.entries(line.metrics as Readonly<Record<string, number | string>>).map(([name, value]) => [
      name,
      typeof value === 'string' ? (nonFinite[value] ?? Number.NaN) : value,
    ]),
  )
  return { ...line, metrics }
}

/** Adds one line to what is known. Samples and checkpoints may come twice: in the first load and in the stream. */
function take(run: LiveRun, line: RunLine): void {
  const reply = run.reply.value
  if (line.kind === 'point') run.columns.add(line)
  else if (line.kind === 'segment') run.columns.truncate(line.fromStep)
  if (reply === undefined) return
  if (line.kind === 'sample') {
    const others = reply.samples.filter(({ step, prompt }) => step !== line.step || prompt !== line.prompt)
    run.reply.value = { ...reply, samples: [...others, line].toSorted((a, b) => a.step - b.step) }
  } else if (line.kind === 'checkpoint') {
    const others = reply.checkpoints.filter(({ file }) => file !== line.file)
    run.reply.value = { ...reply, checkpoints: [...others, { ...line, present: true }] }
  } else if (line.kind === 'segment' && line.config) {
    run.reply.value = { ...reply, config: line.config }
  }
}
