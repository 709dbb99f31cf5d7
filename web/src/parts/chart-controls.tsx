/** What the curves of a page are drawn over, whether axes are logarithmic, and how much they are smoothed. */
import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import type { Axis } from '../data/shared.ts'
import { formatCount, formatDuration, formatFlops } from '../data/shared.ts'

export const xAxis = signal<Axis>('step')
export const logX = signal(false)
export const logY = signal(false)
export const smoothing = signal(0.9)

const names: Readonly<Record<Axis, string>> = {
  step: 'Steps',
  tokens: 'Tokens',
  seconds: 'Time',
  flops: 'FLOPs',
}

const formats: Readonly<Record<Axis, (x: number) => string>> = {
  step: (x) => (x >= 10_000 ? formatCount(x) : String(Math.round(x * 100) / 100)),
  tokens: formatCount,
  seconds: formatDuration,
  flops: formatFlops,
}

/** Prints a place on the axis that was chosen. */
export const formatPlace = (x: number): string => formats[xAxis.value](x)

export function ChartControls(): JSX.Element {
  return (
    <div class="controls" role="group" aria-label="Curves">
      <div class="segmented" role="group" aria-label="Horizontal axis">
        {(Object.keys(names) as Axis[]).map((axis) => (
          <button
            key={axis}
            type="button"
            aria-pressed={xAxis.value === axis}
            onClick={() => (xAxis.value = axis)}
          >
            {names[axis]}
          </button>
        ))}
      </div>
      <label class="check">
        <input
          type="checkbox"
          checked={logX.value}
          onChange={(e) => (logX.value = e.currentTarget.checked)}
        />
        log x
      </label>
      <label class="check">
        <input
          type="checkbox"
          checked={logY.value}
          onChange={(e) => (logY.value = e.currentTarget.checked)}
        />
        log y
      </label>
      <label class="slider">
        Smoothing
        <input
          type="range"
          min="0"
          max="0.99"
          step="0.01"
          value={smoothing.value}
          onInput={(e) => (smoothing.value = Number(e.currentTarget.value))}
        />
        <output class="number">{smoothing.value.toFixed(2)}</output>
      </label>
    </div>
  )
}
