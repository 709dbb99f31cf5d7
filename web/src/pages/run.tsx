/**
 * One run: where it stands, its curves, what it wrote at each step, what it was told and what it cost. Everything here
 * follows the run live.
 */
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useMemo, useState } from 'preact/hooks'
import type { RunReply } from '../../../src/lab/wire.ts'
import { getJson, request, runPath } from '../data/api.ts'
import { embedded } from '../data/embedded.ts'
import { chartCurve } from '../data/chart-curve.ts'
import type { ChartCurve } from '../data/chart-curve.ts'
import { panelsOf } from '../data/metrics.ts'
import { openRun } from '../data/run-store.ts'
import type { LiveRun } from '../data/run-store.ts'
import { formatBytes, formatCount, formatDuration, formatFlops, formatMetric } from '../data/shared.ts'
import { runAddress } from '../router.ts'
import { Chart } from '../parts/chart.tsx'
import { ChartControls, formatPlace, logX, logY, smoothing, xAxis } from '../parts/chart-controls.tsx'
import { ForkButton, RunActions } from '../parts/run-actions.tsx'
import { Notes } from '../parts/notes.tsx'
import { Samples } from '../parts/samples.tsx'
import { Settings } from '../parts/settings.tsx'
import { Progress, Status, stepsOf } from '../parts/status.tsx'

export function RunPage({ id }: { readonly id: string }): JSX.Element {
  const [run, setRun] = useState<LiveRun>()
  useEffect(() => {
    const opened = openRun(id)
    setRun(opened)
    return () => opened.close()
  }, [id])
  const reply = run?.reply.value
  if (run === undefined || reply === undefined) {
    return (
      <section class="empty">
        <h1 tabIndex={-1}>{id}</h1>
        {run?.problem.value === undefined ? (
          <p class="muted loading">Reading the run…</p>
        ) : (
          <>
            <p class="problem">{run.problem.value}</p>
            <a href="/runs">See all runs</a>
          </>
        )}
      </section>
    )
  }
  return (
    <>
      <Heading run={run} reply={reply} />
      <ChartControls />
      <Charts run={run} />
      <Samples samples={reply.samples} />
      <div class="columns">
        <Plan reply={reply} />
        <Checkpoints reply={reply} id={id} />
      </div>
      <Fold title="Settings">
        <Settings config={reply.config} />
      </Fold>
      {embedded ? (
        reply.annotations.note !== '' && (
          <section class="card">
            <h2>Notes</h2>
            <p class="note">{reply.annotations.note}</p>
          </section>
        )
      ) : (
        <Notes key={id} id={id} annotations={reply.annotations} />
      )}
      <Fold title="Figures of every metric">
        <Figures run={run} />
      </Fold>
      {!embedded && <Kernels id={id} />}
      {!embedded && <Log id={id} running={run.status.value === 'running'} />}
      <Segments reply={reply} />
    </>
  )
}

function Heading({ run, reply }: { readonly run: LiveRun; readonly reply: RunReply }): JSX.Element {
  void run.version.value
  const { columns } = run
  const last = columns.length - 1
  const status = run.status.value ?? reply.status
  const steps = stepsOf(reply.config)
  const step = last < 0 ? (reply.parent?.step ?? 0) : columns.axes.step.at(last)
  const left = status === 'running' && steps !== undefined ? remaining(run, steps) : undefined
  return (
    <>
      {run.problem.value !== undefined && <p class="problem banner">{run.problem.value}</p>}
      <div class="heading">
        <div>
          <h1 tabIndex={-1}>{run.id}</h1>
          <p class="under">
            <Status status={status} />
            <Progress step={step} steps={steps} />
            {last >= 0 && (
              <span class="muted number">
                {formatCount(columns.axes.tokens.at(last))} tokens ·{' '}
                {formatFlops(columns.axes.flops.at(last))} · {formatDuration(columns.axes.seconds.at(last))}
                {left !== undefined && ` · ${formatDuration(left)} to go`}
              </span>
            )}
            {reply.parent && (
              <span class="muted">
                forked from <a href={runAddress(reply.parent.run)}>{reply.parent.run}</a> at step{' '}
                {reply.parent.step}
              </span>
            )}
          </p>
        </div>
        {!embedded && <RunActions id={run.id} status={status} reply={reply} />}
      </div>
      {reply.reason !== null && status !== 'running' && <p class="problem banner">{reply.reason}</p>}
      {status === 'interrupted' && (
        <p class="banner">
          Nothing trains this run at the moment.
          {reply.checkpoints.length > 0 ? ' It can go on from its last checkpoint.' : ''}
        </p>
      )}
      {reply.notes.length > 0 && (
        <Fold title={`${reply.notes.length} damaged lines passed over`}>
          <ul class="notes">
            {reply.notes.map((note) => (
              <li key={note}>{note}</li>
            ))}
          </ul>
        </Fold>
      )}
    </>
  )
}

/** Seconds to the last step at the pace of the last points. */
function remaining({ columns }: LiveRun, steps: number): number | undefined {
  const last = columns.length - 1
  const from = Math.max(0, last - 50)
  const { step, seconds } = columns.axes
  const done = step.at(last) - step.at(from)
  return done > 0 ? ((steps - step.at(last)) * (seconds.at(last) - seconds.at(from))) / done : undefined
}

function Charts({ run }: { readonly run: LiveRun }): JSX.Element {
  const version = run.version.value
  const names = [...run.columns.metrics.keys()]
  const panels = panelsOf(names)
  if (panels.length === 0)
    return <p class="empty">No step has been measured yet. The first curve shows here by itself.</p>
  return (
    <div class="charts">
      {panels.map(({ title, metrics, format }, place) => (
        <RunChart
          key={title}
          run={run}
          title={title}
          metrics={metrics}
          version={version}
          tall={place === 0}
          {...(format ? { format } : {})}
        />
      ))}
    </div>
  )
}

interface RunChartProps {
  readonly run: LiveRun
  readonly title: string
  readonly metrics: readonly string[]
  readonly version: number
  readonly tall: boolean
  readonly format?: (value: number) => string
}

function RunChart({ run, title, metrics, version, tall, format }: RunChartProps): JSX.Element {
  const axis = xAxis.value
  const curves = useMemo(
    () =>
      metrics.flatMap((name, color): ChartCurve[] => {
        const curve = chartCurve(run, name, axis)
        return curve === undefined ? [] : [{ ...curve, name, color }]
      }),
    [version, axis, metrics.join()],
  )
  return (
    <Chart
      title={title}
      curves={curves}
      smoothing={smoothing.value}
      logX={logX.value}
      logY={logY.value}
      formatX={formatPlace}
      version={version}
      tall={tall}
      {...(format ? { formatY: format } : {})}
    />
  )
}

export function Fold({
  title,
  open = false,
  children,
}: {
  readonly title: string
  readonly open?: boolean
  readonly children: ComponentChildren
}): JSX.Element {
  return (
    <details class="fold" open={open}>
      <summary>
        <h2>{title}</h2>
      </summary>
      {children}
    </details>
  )
}

function Plan({ reply }: { readonly reply: RunReply }): JSX.Element | null {
  const { plan } = reply
  const data = plan['data'] as Readonly<Record<string, unknown>> | undefined
  const numbers = (key: string, format: (value: number) => string): [string, string][] =>
    typeof plan[key] === 'number' ? [[key, format(plan[key])]] : []
  const rows = [
    ...numbers('parameters', formatCount),
    ...numbers('tokens', formatCount),
    ...numbers('flops', formatFlops),
    ...numbers('flopsPerStep', formatFlops),
    ...numbers('arenaBytes', formatBytes),
    ...numbers('processBytes', formatBytes),
    ...numbers('etaSeconds', formatDuration),
  ].map(([key, value]): [string, string] => [planNames[key] ?? key, value])
  if (rows.length === 0) return null
  return (
    <section class="card">
      <h2>Plan</h2>
      <dl class="facts">
        {data !== undefined && (
          <div>
            <dt>data</dt>
            <dd>
              {String(data['name'])}
              {typeof data['trainTokens'] === 'number' && `, ${formatCount(data['trainTokens'])} tokens`}
              {typeof data['vocabSize'] === 'number' && `, vocabulary ${data['vocabSize']}`}
            </dd>
          </div>
        )}
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd class="number">{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  )
}

const planNames: Readonly<Record<string, string>> = {
  parameters: 'parameters',
  tokens: 'tokens to read',
  flops: 'compute in all',
  flopsPerStep: 'compute a step',
  arenaBytes: 'memory of a step',
  processBytes: 'memory in all',
  etaSeconds: 'expected time',
}

function Checkpoints({ reply, id }: { readonly reply: RunReply; readonly id: string }): JSX.Element {
  const rows = reply.checkpoints.toReversed()
  return (
    <section class="card">
      <h2>Checkpoints</h2>
      {rows.length === 0 ? (
        <p class="muted">None yet.</p>
      ) : (
        <table>
          <thead>
            <tr>
              <th scope="col">Step</th>
              <th scope="col" class="right">
                Size
              </th>
              <th scope="col">
                <span class="hidden">Fork</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((checkpoint) => (
              <tr key={checkpoint.file}>
                <th scope="row" class="number">
                  {checkpoint.step}
                </th>
                <td class="right number">{formatBytes(checkpoint.bytes)}</td>
                <td class="right">
                  {checkpoint.present && !embedded ? (
                    <ForkButton id={id} step={checkpoint.step} config={reply.config} />
                  ) : (
                    <span class="muted">{checkpoint.present ? '' : 'removed since'}</span>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  )
}

/** Smallest, largest and last value of each metric, as `anneal show` prints them. */
function Figures({ run }: { readonly run: LiveRun }): JSX.Element {
  void run.version.value
  const { metrics, axes } = run.columns
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Metric</th>
            {['Last', 'Smallest', 'Largest'].map((name) => (
              <th key={name} scope="col" class="right">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {[...metrics].map(([name, { rows, values }]) => {
            let [least, most] = [-1, -1]
            for (let i = 0; i < values.length; i++) {
              const value = values.at(i)
              if (!Number.isFinite(value)) continue
              if (least < 0 || value < values.at(least)) least = i
              if (most < 0 || value > values.at(most)) most = i
            }
            return (
              <tr key={name}>
                <th scope="row">{name}</th>
                {[values.length - 1, least, most].map((i, column) => (
                  <td key={column} class="right number">
                    {i < 0 ? '–' : formatMetric(values.at(i))}{' '}
                    {i >= 0 && <small class="muted">@ {axes.step.at(rows.at(i))}</small>}
                  </td>
                ))}
              </tr>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}

interface Kernel {
  readonly kernel: string
  readonly ops: string
  readonly seconds: number
  readonly totalFlops: number
}

interface Profile {
  readonly profile: { readonly seconds: number; readonly runs: number; readonly sites: readonly Kernel[] }
}

/** The costliest kernels, of a run that was trained with --profile. */
function Kernels({ id }: { readonly id: string }): JSX.Element | null {
  const [found, setFound] = useState<Profile>()
  useEffect(() => {
    getJson<Profile | null>(runPath(id, '/profile')).then(
      (next) => setFound(next ?? undefined),
      () => setFound(undefined),
    )
  }, [id])
  if (found === undefined) return null
  const { seconds, runs, sites } = found.profile
  const rows = sites.toSorted((a, b) => b.seconds - a.seconds).slice(0, 30)
  return (
    <Fold title="Kernels">
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Kernel</th>
              <th scope="col">Work</th>
              <th scope="col" class="right">
                ms a step
              </th>
              <th scope="col" class="right">
                Share
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map(({ kernel, ops, seconds: own }, i) => (
              <tr key={i}>
                <th scope="row">{kernel}</th>
                <td>{ops.slice(0, 60)}</td>
                <td class="right number">{((own / runs) * 1000).toFixed(3)}</td>
                <td class="right number">{((own / seconds) * 100).toFixed(1)} %</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Fold>
  )
}

function Log({ id, running }: { readonly id: string; readonly running: boolean }): JSX.Element | null {
  const [text, setText] = useState('')
  useEffect(() => {
    const load = (): void => {
      request(runPath(id, '/log')).then(
        async (response) => setText(await response.text()),
        () => undefined,
      )
    }
    load()
    if (!running) return
    const timer = setInterval(load, 3000)
    return () => clearInterval(timer)
  }, [id, running])
  if (text === '') return null
  return (
    <Fold title="Log">
      <pre class="log" tabIndex={0} aria-label="Log">
        {text}
      </pre>
    </Fold>
  )
}

function Segments({ reply }: { readonly reply: RunReply }): JSX.Element | null {
  if (reply.segments.length < 2) return null
  return (
    <Fold title="Segments">
      <table>
        <thead>
          <tr>
            <th scope="col">Segment</th>
            <th scope="col">From step</th>
            <th scope="col">Started</th>
            <th scope="col">Ended as</th>
          </tr>
        </thead>
        <tbody>
          {reply.segments.map(({ number, fromStep, time, status }) => (
            <tr key={number}>
              <th scope="row">{number}</th>
              <td class="number">{fromStep}</td>
              <td>{new Date(time).toLocaleString()}</td>
              <td>{status ?? '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Fold>
  )
}
