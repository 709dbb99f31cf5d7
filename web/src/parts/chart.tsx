/**
 * A chart of curves on uPlot, which is handed only what the window can show: on zoom, pan or new points the visible part
 * is thinned again. What the page holds only an overview of, the server is asked for (`detail.ts`). Smoothed curves are drawn over their own raw line, faint. Drag zooms, double
 * click or Escape shows everything; from the keyboard arrows move and + - zoom. All charts of a page share the cursor.
 */
import type { JSX } from 'preact'
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import uPlot from 'uplot'
import { showable, smooth, thin } from '../../../src/lab/thinning.ts'
import type { Curve } from '../../../src/lab/thinning.ts'
import type { ChartCurve } from '../data/chart-curve.ts'
import { Details } from '../data/detail.ts'
import { formatMetric } from '../data/shared.ts'
import { theme } from './theme.tsx'

export interface ChartProps {
  readonly title: string
  readonly curves: readonly ChartCurve[]
  readonly smoothing: number
  readonly logX: boolean
  readonly logY: boolean
  /** Prints a place on the x axis. */
  readonly formatX: (x: number) => string
  /** Prints a value; default as a metric. */
  readonly formatY?: (y: number) => string
  /** Changes whenever the curves have other values. */
  readonly version: number
  readonly tall?: boolean
}

interface Drawn extends Curve {
  readonly series: uPlot.Series
}

const style = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim()
export const paletteSize = 8
const paletteColor = (index: number): string => style(`--curve-${index % paletteSize}`)

export function Chart(props: ChartProps): JSX.Element {
  const { title, curves, smoothing, logX, logY, version, tall, formatX, formatY = formatMetric } = props
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(undefined)
  const drawn = useRef<readonly Drawn[]>([])
  /** The part that was zoomed to; undefined: everything, growing. */
  const window = useRef<readonly [number, number]>(undefined)
  const [at, setAt] = useState<number | null>(null)
  const details = useRef<Details>(undefined)
  details.current ??= new Details()
  const key = [
    theme.value,
    logX,
    logY,
    smoothing > 0,
    tall,
    ...curves.map((c) => `${c.name}${c.color}`),
  ].join('|')

  /** Draws what is known, and asks for what is not. */
  const show = (chart: uPlot): void => {
    const [from, to] = refresh(chart, drawn.current, window.current, logX)
    const zoomed = window.current !== undefined
    const wish = { curves, smoothing, logX, logY, from, to, zoomed, width: chart.width }
    details.current!.want(wish, place.current!, () => {
      if (plot.current !== chart) return
      drawn.current = prepare(curves, smoothing, logX, logY, details.current!)
      refresh(chart, drawn.current, window.current, logX)
    })
  }
  useEffect(() => () => details.current!.close(), [])

  // Made anew when its form changes.
  useEffect(() => {
    const element = place.current!
    drawn.current = prepare(curves, smoothing, logX, logY, details.current!)
    const chart = new uPlot(
      optionsFor(element, props, drawn.current, {
        zoomed: (range) => {
          window.current = range
          show(chart)
        },
        moved: setAt,
      }),
      [[]],
      element,
    )
    plot.current = chart
    show(chart)
    const observer = new ResizeObserver(() => {
      chart.setSize({ width: element.clientWidth, height: heightOf(tall) })
      refresh(chart, drawn.current, window.current, logX)
    })
    observer.observe(element)
    return () => {
      observer.disconnect()
      chart.destroy()
      plot.current = undefined
    }
  }, [key])

  // Given other values otherwise; those it was made with are drawn already.
  const made = useRef('')
  useEffect(() => {
    const isNew = made.current !== key
    made.current = key
    if (!plot.current || isNew) return
    drawn.current = prepare(curves, smoothing, logX, logY, details.current!)
    show(plot.current)
  }, [version, smoothing, curves])

  const words = useMemo(() => describe(title, curves, formatX, formatY), [curves, title])
  const move = (event: KeyboardEvent): void => {
    const chart = plot.current
    if (!chart) return
    const [from, to] = [chart.scales['x']!.min ?? 0, chart.scales['x']!.max ?? 1]
    const span = to - from
    const next: readonly [number, number] | undefined | null =
      event.key === 'ArrowLeft'
        ? [from - span / 10, to - span / 10]
        : event.key === 'ArrowRight'
          ? [from + span / 10, to + span / 10]
          : event.key === '+' || event.key === '='
            ? [from + span / 4, to - span / 4]
            : event.key === '-'
              ? [from - span / 2, to + span / 2]
              : event.key === 'Escape' || event.key === '0'
                ? undefined
                : null
    if (next === null) return
    event.preventDefault()
    window.current = next
    show(chart)
  }

  return (
    <figure class="chart">
      <figcaption>
        <h3>{title}</h3>
        <Legend curves={curves} at={at} formatX={formatX} formatY={formatY} />
      </figcaption>
      <div
        class="plot"
        ref={place}
        role="img"
        aria-label={words}
        tabIndex={0}
        onKeyDown={move}
        title="Drag to zoom, double click for everything; arrows, + and - from the keyboard"
      />
    </figure>
  )
}

interface LegendProps extends Pick<ChartProps, 'curves' | 'formatX'> {
  readonly at: number | null
  readonly formatY: (y: number) => string
}

/** Names with the value under the cursor, or the last. */
function Legend({ curves, at, formatX, formatY }: LegendProps): JSX.Element {
  return (
    <p class="legend">
      {at !== null && <span class="muted">{formatX(at)}</span>}
      {curves.map((curve) => {
        const value = valueAt(curve, at)
        return (
          <span key={`${curve.name}${curve.color}`} class={`key curve-${curve.color % paletteSize}`}>
            {curve.name} <b>{value === undefined ? '–' : formatY(value)}</b>
          </span>
        )
      })}
    </p>
  )
}

function valueAt({ x, y }: Curve, at: number | null): number | undefined {
  if (at === null) return y.at(-1)
  let low = 0
  let high = x.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (x[middle]! <= at) low = middle
    else high = middle - 1
  }
  return x.length === 0 || x[low]! > at ? undefined : y[low]
}

/** The chart in words, for those who do not see it. */
function describe(
  title: string,
  curves: readonly ChartCurve[],
  formatX: (x: number) => string,
  formatY: (y: number) => string,
): string {
  const sentences = curves.map(({ name, x, y }) => {
    if (y.length === 0) return `${name}: no values yet`
    let least = 0
    for (let i = 1; i < y.length; i++) if (y[i]! < y[least]! || Number.isNaN(y[least]!)) least = i
    const last = y.length - 1
    return `${name}: ${formatY(y[0]!)} at ${formatX(x[0]!)}, now ${formatY(y[last]!)} at ${formatX(x[last]!)}, smallest ${formatY(y[least]!)}`
  })
  return `Chart of ${title}. ${sentences.join('; ')}.`
}

const heightOf = (tall: boolean | undefined): number => (tall ? 340 : 200)

/** Each curve, or its raw line faintly and its smoothed line over it. What a log axis cannot show becomes a gap. */
function prepare(
  curves: readonly ChartCurve[],
  smoothing: number,
  logX: boolean,
  logY: boolean,
  details: Details,
): readonly Drawn[] {
  return curves.flatMap((curve) => {
    const color = paletteColor(curve.color)
    const lines = details.linesOf(curve, { smoothing, logX, logY })
    const raw = showable(lines?.raw ?? curve, logX, logY)
    const points = { show: curve.sparse === true || curve.x.length < 2, size: 5, fill: color, width: 0 }
    if (smoothing <= 0 || curve.sparse) return [{ ...raw, series: { stroke: color, width: 1.5, points } }]
    const over = showable(lines?.smooth ?? smooth(curve, smoothing), logX, logY)
    return [
      { ...raw, series: { stroke: color, alpha: 0.25, width: 1, points: { show: false } } },
      { ...over, series: { stroke: color, width: 1.75, points } },
    ]
  })
}

/** Thins the visible part of every curve and gives it to uPlot. Returns which part that is. */
function refresh(
  chart: uPlot,
  drawn: readonly Drawn[],
  window: readonly [number, number] | undefined,
  logX: boolean,
): readonly [from: number, to: number] {
  let [from, to] = window ?? [Infinity, -Infinity]
  if (!window) {
    for (const { x } of drawn) {
      if (x.length === 0) continue
      from = Math.min(from, x[0]!)
      to = Math.max(to, x[x.length - 1]!)
    }
    if (from > to) [from, to] = [0, 1]
    if (from === to) to = from + 1
  }
  const buckets = Math.max(50, Math.floor(chart.width))
  const tables = drawn.map((curve): uPlot.AlignedData => {
    const { x, y } = thin(curve, from, to, buckets, logX)
    return [x as unknown as number[], Array.from(y, (v) => (Number.isFinite(v) ? v : null))]
  })
  const first = tables[0]
  const data = first === undefined ? [[]] : tables.length === 1 ? first : uPlot.join(tables)
  chart.batch(() => {
    chart.setData(data as uPlot.AlignedData, false)
    chart.setScale('x', { min: from, max: to })
  })
  return [from, to]
}

interface Reactions {
  zoomed(range: readonly [number, number] | undefined): void
  moved(x: number | null): void
}

function optionsFor(
  element: HTMLElement,
  { logX, logY, tall, formatX, formatY = formatMetric }: ChartProps,
  drawn: readonly Drawn[],
  { zoomed, moved }: Reactions,
): uPlot.Options {
  const axis = { stroke: style('--muted'), font: `12px ${style('--font')}`, ticks: { show: false } }
  const grid = { stroke: style('--line'), width: 1 }
  return {
    width: element.clientWidth,
    height: heightOf(tall),
    legend: { show: false },
    scales: {
      x: { time: false, distr: logX ? 3 : 1 },
      y: { distr: logY ? 3 : 1, range: logY ? rangeOfLog : rangeOfValues },
    },
    series: [{}, ...drawn.map(({ series }) => series)],
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 34,
        values: (_, splits) => splits.map((x) => (x === null ? '' : formatX(x))),
        space: 80,
      },
      {
        ...axis,
        grid,
        size: 58,
        values: (_, splits) => splits.map((y) => (y === null ? '' : tick(y, formatY))),
      },
    ],
    cursor: {
      sync: { key: 'page', setSeries: false },
      drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      y: false,
    },
    hooks: {
      setSelect: [
        (chart) => {
          const { left, width } = chart.select
          if (width < 4) return
          zoomed([chart.posToVal(left, 'x'), chart.posToVal(left + width, 'x')])
          chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false)
        },
      ],
      setCursor: [
        (chart) =>
          moved(
            chart.cursor.left === undefined || chart.cursor.left < 0
              ? null
              : chart.posToVal(chart.cursor.left, 'x'),
          ),
      ],
      ready: [
        (chart) => {
          chart.over.addEventListener('dblclick', () => zoomed(undefined))
        },
      ],
    },
  }
}

/** A value beside the axis: no zeros for their own sake, no unit that the title names. */
const tick = (y: number, format: (y: number) => string): string =>
  format === formatMetric && Math.abs(y) >= 1e-3 && Math.abs(y) < 1e4
    ? String(Number(y.toPrecision(4)))
    : format(y)
        .replace(/FLOP.*$/, '')
        .trimEnd()

/** Some air around the values; a flat line in the middle. */
function rangeOfValues(_: uPlot, least: number | null, most: number | null): [number, number] {
  if (least === null || most === null) return [0, 1]
  // At least a percent, so that rounding noise does not fill the picture.
  const pad = Math.max((most - least) * 0.06, Math.abs(most) * 0.01) || 1
  return [least >= 0 && least - pad < 0 ? 0 : least - pad, most + pad]
}

function rangeOfLog(_: uPlot, least: number | null, most: number | null): [number, number] {
  if (least === null || most === null || least <= 0) return [0.1, 1]
  return least === most ? [least / 2, most * 2] : [least * 0.95, most * 1.05]
}
