/**
 * Loss against compute: the runs, the law fitted to them, its forecast with an interval, and the run that was predicted.
 * Nothing rests on colour: runs are filled circles, the predicted run a diamond, the forecast a bar with ends, the law
 * solid, the pure power law dashed, the text's own entropy dotted; each is named where it stands.
 */
import { escapeMarkup } from '../report.ts'
import { lawAt } from './law.ts'
import type { Analysis } from './registration.ts'

const [width, height] = [960, 540]
const plot = { left: 70, right: 740, top: 56, bottom: 480 }
const grey = '#7d7d7d'
const [blue, orange] = ['#0072b2', '#d55e00']

export interface FigureData extends Analysis {
  readonly runs: readonly { readonly flops: number; readonly loss: number }[]
  readonly targetFlops: number
  readonly floor: number
  /** The predicted run's loss, once it is there. */
  readonly actual?: number
}

export function scalingFigure(data: FigureData): string {
  const { law, power, forecast, runs, targetFlops, floor, actual } = data
  const [from, to] = [Math.min(...runs.map(({ flops }) => flops)) / 1.6, targetFlops * 1.6]
  const losses = [...runs.map(({ loss }) => loss), floor, ...forecast.interval, lawAt(power, to), law.c]
  const [low, high] = [Math.min(...losses) - 0.015, Math.max(...losses) + 0.015]
  const x = (flops: number): number =>
    plot.left + (Math.log(flops / from) / Math.log(to / from)) * (plot.right - plot.left)
  const y = (loss: number): number => plot.bottom - ((loss - low) / (high - low)) * (plot.bottom - plot.top)
  const curve = (at: (flops: number) => number): string =>
    Array.from({ length: 61 }, (_, i) => from * (to / from) ** (i / 60))
      .map((flops, i) => `${i === 0 ? 'M' : 'L'}${round(x(flops))} ${round(y(at(flops)))}`)
      .join(' ')
  const parts = [
    text(
      plot.left,
      24,
      'A loss predicted before the run: held-out nats a token against training compute',
      16,
    ),
    text(plot.left, 42, 'text of a known grammar; compute counted on the program, in FLOP (logarithmic)'),
  ]
  const step = (high - low) / 6 > 0.04 ? 0.05 : 0.02
  for (let loss = Math.ceil(low / step) * step; loss <= high; loss += step) {
    parts.push(line(plot.left, y(loss), plot.right, y(loss), `stroke="${grey}" stroke-opacity="0.25"`))
    parts.push(text(plot.left - 8, y(loss) + 4, loss.toFixed(2), 13, 'end'))
  }
  for (let power = Math.ceil(Math.log10(from)); power <= Math.log10(to); power++) {
    const at = x(10 ** power)
    parts.push(line(at, plot.bottom, at, plot.bottom + 5, `stroke="${grey}"`))
    parts.push(text(at, plot.bottom + 22, `1e${power}`, 13, 'middle'))
  }
  const named = [
    { at: lawAt(law, to), words: `law: ${formula(law)}`, fill: blue },
    { at: lawAt(power, to), words: `power law alone: b = ${power.b.toFixed(3)}`, fill: orange },
    { at: floor, words: `entropy of the text: ${floor.toFixed(4)}`, fill: grey },
  ].toSorted((a, b) => b.at - a.at)
  let above = -Infinity
  for (const { at, words, fill } of named) {
    above = Math.max(y(at) + 4, above + 17)
    parts.push(text(plot.right + 8, above, words, 12, 'start', fill))
  }
  const [lowest, highest] = forecast.interval
  const at = x(targetFlops)
  const bar = `stroke="${blue}" stroke-width="2"`
  parts.push(
    `<path d="${curve((flops) => lawAt(law, flops))}" fill="none" stroke="${blue}" stroke-width="2.5"/>`,
    `<path d="${curve((flops) => lawAt(power, flops))}" fill="none" stroke="${orange}" stroke-width="2" stroke-dasharray="8 5"/>`,
    line(
      plot.left,
      y(floor),
      plot.right,
      y(floor),
      `stroke="${grey}" stroke-width="2" stroke-dasharray="2 4"`,
    ),
    line(at, y(lowest), at, y(highest), bar),
    line(at - 7, y(lowest), at + 7, y(lowest), bar),
    line(at - 7, y(highest), at + 7, y(highest), bar),
    text(at, y(highest) - 10, `predicted ${forecast.loss.toFixed(4)}`, 13, 'middle', blue),
  )
  for (const { flops, loss } of runs) {
    parts.push(
      `<circle cx="${round(x(flops))}" cy="${round(y(loss))}" r="5" fill="${blue}"><title>${flops.toExponential(3)} FLOP: ${loss.toFixed(4)}</title></circle>`,
    )
  }
  if (actual !== undefined) {
    parts.push(
      `<path d="M${round(at)} ${round(y(actual) - 8)} l8 8 l-8 8 l-8 -8 z" fill="none" stroke="${orange}" stroke-width="2.5"/>`,
      text(at - 14, y(actual) + 18, `measured ${actual.toFixed(4)}`, 13, 'end', orange),
    )
  }
  parts.push(
    text(
      plot.left,
      height - 12,
      'filled circles: runs the law is fitted to; bar: forecast with its 90 % interval; diamond: the run it was about',
      12,
    ),
  )
  const summary = `${runs.length} runs and the law ${formula(law)}, which predicts ${forecast.loss.toFixed(4)} nats a token at ${targetFlops.toExponential(1)} FLOP${actual === undefined ? '' : `; measured ${actual.toFixed(4)}`}`
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" role="img"><title>${escapeMarkup(summary)}</title>
${parts.join('\n')}
</svg>
`
}

const formula = ({ a, b, c }: { a: number; b: number; c: number }): string =>
  `${a.toPrecision(3)} C^${b.toFixed(3)} + ${c.toFixed(3)}`

const text = (x: number, y: number, words: string, size = 13, anchor = 'start', fill = grey): string =>
  `<text x="${round(x)}" y="${round(y)}" font-size="${size}" text-anchor="${anchor}" fill="${fill}">${escapeMarkup(words)}</text>`

const line = (x1: number, y1: number, x2: number, y2: number, look: string): string =>
  `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" ${look}/>`

const round = (value: number): number => Math.round(10 * value) / 10
