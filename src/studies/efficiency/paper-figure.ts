/**
 * The paper's first figure drawn anew: training compute to AlexNet's level against the date, costs in powers of two.
 * Nothing rests on colour: networks on the frontier are filled and named, others hollow, the fit is solid, Moore's Law
 * dashed, both named where they end. No background and middle greys, so that it reads on light and dark pages.
 */
import { grey, line, round, svg, text } from '../drawing.ts'
import { monthsOf } from '../halving.ts'
import { escapeMarkup } from '../report.ts'
import type { PaperAnalysis } from './paper.ts'

const [width, height] = [960, 540]
const plot = { left: 64, right: 770, top: 48, bottom: 490 }
const years = [2012, 2013, 2014, 2015, 2016, 2017, 2018, 2019]
const costs = [0.0625, 0.125, 0.25, 0.5, 1, 2, 4]
const [blue, orange] = ['#0072b2', '#d55e00']

/** Where a name would run into something if it stood to the right of its point. */
const namesLeft: readonly string[] = ['GoogLeNet', 'ShuffleNet_v1_1x', 'ShuffleNet_v2_1x', 'EfficientNet-b0']

export function paperFigure({ rows, frontier, halving, moore, tables }: PaperAnalysis): string {
  const x = (months: number): number => round(plot.left + ((months + 6) / 96) * (plot.right - plot.left))
  const y = (cost: number): number =>
    round(plot.bottom - ((Math.log2(cost) + 4.5) / 7.5) * (plot.bottom - plot.top))
  const costOf = (name: string): number => tables.networks.find(({ model }) => model === name)!.tflops_days
  const [first, last] = [frontier[0]!, frontier.at(-1)!]
  const [from, to] = [monthsOf(first.date), monthsOf(last.date)]
  // The line is of printed values, in petaFLOP; the axis is in teraflop/s-days.
  const unit = costOf(first.name) / first.cost
  const fitted = (months: number): number =>
    unit * 2 ** (halving.line.intercept + halving.line.slope * months)
  const mooreCost = costOf(first.name) / moore.factor
  const parts = [
    text(plot.left, 24, 'Training compute to reach AlexNet’s level (79.1 % top-5 on ImageNet)', {
      size: 16,
      weight: 600,
    }),
    text(plot.left, 42, 'teraflop/s-days, a multiply-add as one operation; one step down is half', {}),
  ]
  for (const cost of costs) {
    parts.push(line(plot.left, y(cost), plot.right, y(cost), `stroke="${grey}" stroke-opacity="0.3"`))
    parts.push(text(plot.left - 8, y(cost) + 4, String(cost), { anchor: 'end' }))
  }
  for (const year of years) {
    const at = x(monthsOf(`${year}-01-01`))
    parts.push(line(at, plot.bottom, at, plot.bottom + 5, `stroke="${grey}"`))
    parts.push(text(at, plot.bottom + 20, String(year), { anchor: 'middle' }))
  }
  parts.push(
    line(x(from), y(fitted(from)), x(to), y(fitted(to)), `stroke="${blue}" stroke-width="2.5"`),
    text(x(to) + 10, y(fitted(to)) + 4, `fit: halves in ${halving.months.toFixed(1)} months`, { fill: blue }),
    line(
      x(from),
      y(costOf(first.name)),
      x(to),
      y(mooreCost),
      `stroke="${orange}" stroke-width="2.5" stroke-dasharray="8 5"`,
    ),
    text(x(to) + 10, y(mooreCost) + 4, `Moore’s Law: ${moore.factor.toFixed(1)}x`, { fill: orange }),
  )
  for (const { name, date, onFrontier } of rows) {
    const [cx, cy] = [x(monthsOf(date)), y(costOf(name))]
    const look = onFrontier
      ? `fill="${blue}" stroke="${blue}"`
      : `fill="none" stroke="${grey}" stroke-width="1.5"`
    parts.push(
      `<circle cx="${cx}" cy="${cy}" r="${onFrontier ? 6 : 4.5}" ${look}><title>${escapeMarkup(
        `${name}, ${date}: ${costOf(name)} teraflop/s-days`,
      )}</title></circle>`,
    )
    if (!onFrontier) continue
    const left = namesLeft.includes(name)
    parts.push(
      text(cx + (left ? -11 : 11), cy + (left ? 14 : -8), name.replaceAll('_', ' '), {
        anchor: left ? 'end' : 'start',
      }),
    )
  }
  parts.push(
    text(plot.left, height - 12, 'filled: cheapest so far (frontier); hollow: the other networks', {
      size: 12,
    }),
  )
  const summary = `${frontier.length} networks on the frontier fall from ${costOf(first.name)} to ${costOf(last.name)} teraflop/s-days, ${halving.factor.toFixed(1)} times`
  return svg({ width, height, says: summary }, parts)
}
