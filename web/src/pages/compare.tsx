/** Up to ten runs on the same charts, the settings in which they differ, and their best figures side by side. */
import type { JSX } from 'preact'
import { useEffect, useMemo, useState } from 'preact/hooks'
import { differingSettings, settingText } from '../../../src/runs/settings.ts'
import { download } from '../data/download.ts'
import { embedded } from '../data/embedded.ts'
import { chartCurve } from '../data/chart-curve.ts'
import type { ChartCurve } from '../data/chart-curve.ts'
import { panelsOf } from '../data/metrics.ts'
import type { Panel } from '../data/metrics.ts'
import { openRun } from '../data/run-store.ts'
import type { LiveRun } from '../data/run-store.ts'
import { formatMetric } from '../data/shared.ts'
import { Chart, paletteSize } from '../parts/chart.tsx'
import { ChartControls, formatPlace, logX, logY, smoothing, xAxis } from '../parts/chart-controls.tsx'
import { complain } from '../parts/notice.tsx'
import { Status } from '../parts/status.tsx'
import { query, runAddress } from '../router.ts'

const mostRuns = 10

export function Compare(): JSX.Element {
  const ids = (query.value.get('runs') ?? '').split(',').filter(Boolean).slice(0, mostRuns)
  return <Comparison key={ids.join()} ids={ids} />
}

/** Of runs that may come from the server or from the file that this page is. */
export function Comparison({ ids }: { readonly ids: readonly string[] }): JSX.Element {
  const [runs, setRuns] = useState<readonly LiveRun[]>([])
  useEffect(() => {
    const opened = ids.map(openRun)
    setRuns(opened)
    return () => {
      for (const run of opened) run.close()
    }
  }, [ids.join()])
  if (ids.length < 2) {
    return (
      <section class="empty">
        <h1 tabIndex={-1}>Compare runs</h1>
        <p>
          Choose two to ten runs in <a href="/runs">the list</a>.
        </p>
      </section>
    )
  }
  const version = runs.reduce((sum, run) => sum + run.version.value, 0)
  const names = [...new Set(runs.flatMap((run) => [...run.columns.metrics.keys()]))]
  // One metric a chart: the colour says which run.
  const panels = panelsOf(names).flatMap(({ metrics, format }) =>
    metrics
      .filter((name) => metrics.length === 1 || names.includes(name))
      .map((name): Panel =>
        format ? { title: name, metrics: [name], format } : { title: name, metrics: [name] },
      ),
  )
  return (
    <>
      <div class="heading">
        <h1 tabIndex={-1}>Compare {ids.length} runs</h1>
        {!embedded && (
          <button
            type="button"
            onClick={() => {
              const address = `/api/export?runs=${ids.map(encodeURIComponent).join(',')}`
              download(address, 'comparison.html').catch(complain)
            }}
          >
            Save as one HTML file
          </button>
        )}
      </div>
      <ul class="runs-legend">
        {runs.map((run, i) => (
          <li key={run.id}>
            <a class={`key curve-${i % paletteSize}`} href={runAddress(run.id)}>
              {run.id}
            </a>{' '}
            {run.status.value && <Status status={run.status.value} />}
            {run.problem.value !== undefined && <span class="problem">{run.problem.value}</span>}
          </li>
        ))}
      </ul>
      <ChartControls />
      <div class="charts">
        {panels.map((panel, i) => (
          <CompareChart key={panel.title} runs={runs} panel={panel} version={version} tall={i === 0} />
        ))}
      </div>
      <Differences runs={runs} />
      <Best runs={runs} names={names} />
    </>
  )
}

interface CompareChartProps {
  readonly runs: readonly LiveRun[]
  readonly panel: Panel
  readonly version: number
  readonly tall: boolean
}

function CompareChart({ runs, panel, version, tall }: CompareChartProps): JSX.Element {
  const axis = xAxis.value
  const [metric = ''] = panel.metrics
  const curves = useMemo(
    () =>
      runs.flatMap((run, color): ChartCurve[] => {
        const curve = chartCurve(run, metric, axis)
        return curve === undefined ? [] : [{ ...curve, name: run.id.slice(-4), color }]
      }),
    [version, axis, metric, runs],
  )
  return (
    <Chart
      title={panel.title}
      curves={curves}
      smoothing={smoothing.value}
      logX={logX.value}
      logY={logY.value}
      formatX={formatPlace}
      version={version}
      tall={tall}
      {...(panel.format ? { formatY: panel.format } : {})}
    />
  )
}

function Differences({ runs }: { readonly runs: readonly LiveRun[] }): JSX.Element {
  const differing = differingSettings(runs.map((run) => run.reply.value?.config ?? {}))
  return (
    <section class="card">
      <h2>Settings that differ</h2>
      {differing.length === 0 ? (
        <p class="muted">None: these runs were told the same.</p>
      ) : (
        <Matrix
          runs={runs}
          rows={differing.map(([key, values]) => [
            key,
            values.map((value) => (value === undefined ? '–' : settingText(value))),
          ])}
        />
      )}
    </section>
  )
}

function Best({
  runs,
  names,
}: {
  readonly runs: readonly LiveRun[]
  readonly names: readonly string[]
}): JSX.Element {
  const rows = names.flatMap((name): [string, string[]][] => {
    const columns = runs.map((run) => run.columns.metrics.get(name)?.values.values ?? new Float64Array())
    const extreme = (of: (a: number, b: number) => number) => (values: Float64Array) => {
      let best: number | undefined
      for (const value of values)
        if (Number.isFinite(value)) best = best === undefined ? value : of(best, value)
      return best === undefined ? '–' : formatMetric(best)
    }
    return [
      [`${name}, last`, columns.map((values) => (values.length === 0 ? '–' : formatMetric(values.at(-1)!)))],
      [`${name}, smallest`, columns.map(extreme(Math.min))],
      [`${name}, largest`, columns.map(extreme(Math.max))],
    ]
  })
  return (
    <section class="card">
      <h2>Figures</h2>
      <Matrix runs={runs} rows={rows} />
    </section>
  )
}

interface MatrixProps {
  readonly runs: readonly LiveRun[]
  readonly rows: readonly (readonly [string, readonly string[]])[]
}

function Matrix({ runs, rows }: MatrixProps): JSX.Element {
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <td />
            {runs.map((run, i) => (
              <th key={run.id} scope="col" class="right">
                <span class={`key curve-${i % paletteSize}`}>{run.id.slice(-4)}</span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(([name, cells]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              {cells.map((cell, i) => (
                <td key={i} class="right number">
                  {cell}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
