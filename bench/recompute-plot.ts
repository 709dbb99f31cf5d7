/** The curve of `npm run bench recompute` as SVG: two lines that a printer without colours keeps apart by their dashes. */
import type { Point } from './recompute.ts'

const [width, height, left, bottom, top, right] = [720, 400, 70, 60, 50, 30]

export function curve(points: readonly Point[], title: string): string {
  const megabytes = points.flatMap(({ plannedBytes, heldBytes }) => [
    plannedBytes / 2 ** 20,
    heldBytes / 2 ** 20,
  ])
  const times = points.flatMap(({ seconds, predictedSeconds }) => [seconds, predictedSeconds])
  const xAxis = ticks(0, Math.max(...megabytes), 100)
  const yAxis = ticks(Math.min(...times) * 0.95, Math.max(...times), 0.1)
  const scale = (axis: readonly number[], from: number, to: number) => (value: number) =>
    from + ((value - axis[0]!) / (axis.at(-1)! - axis[0]!)) * (to - from)
  const x = scale(xAxis, left, width - right)
  const y = scale(yAxis, height - bottom, top)
  const at = (bytes: number, seconds: number): string =>
    `${x(bytes / 2 ** 20).toFixed(1)},${y(seconds).toFixed(1)}`
  const planned = points.map((point) => at(point.plannedBytes, point.predictedSeconds))
  const measured = points.map((point) => at(point.heldBytes, point.seconds))
  const dots = measured.map((place) => {
    const [cx, cy] = place.split(',')
    return `<circle cx="${cx}" cy="${cy}" r="4"/>`
  })
  const text = (px: number, py: number, anchor: string, content: string, more = ''): string =>
    `<text x="${px}" y="${py}" text-anchor="${anchor}"${more}>${content}</text>`
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    text(left, 24, 'start', 'Memory of a training step against its time', ' font-size="15"'),
    text(left, 40, 'start', title, ' fill="#555"'),
    ...yAxis.map((value) => `<path d="M${left} ${y(value).toFixed(1)}H${width - right}" stroke="#ddd"/>`),
    ...yAxis.map((value) => text(left - 8, y(value) + 4, 'end', value.toFixed(1))),
    ...xAxis.map((value) => text(x(value), height - bottom + 18, 'middle', String(value))),
    `<path d="M${left} ${top}V${height - bottom}H${width - right}" fill="none" stroke="black"/>`,
    text((left + width - right) / 2, height - 14, 'middle', 'memory, MiB'),
    text(
      18,
      (top + height - bottom) / 2,
      'middle',
      'seconds a step',
      ` transform="rotate(-90 18 ${(top + height - bottom) / 2})"`,
    ),
    `<polyline points="${planned.join(' ')}" fill="none" stroke="#666" stroke-width="2" stroke-dasharray="7 4"/>`,
    `<polyline points="${measured.join(' ')}" fill="none" stroke="black" stroke-width="2"/>`,
    ...dots,
    `<path d="M${width - 230} 62h30" stroke="black" stroke-width="2"/><circle cx="${width - 215}" cy="62" r="4"/>`,
    text(width - 190, 66, 'start', 'measured'),
    `<path d="M${width - 230} 82h30" stroke="#666" stroke-width="2" stroke-dasharray="7 4"/>`,
    text(width - 190, 86, 'start', 'planned before the run'),
    '</svg>',
    '',
  ].join('\n')
}

/** Multiples of a step that enclose a range. */
function ticks(low: number, high: number, step: number): number[] {
  const [from, to] = [Math.floor(low / step), Math.ceil(high / step)]
  return Array.from({ length: to - from + 1 }, (_, i) => Number(((from + i) * step).toFixed(6)))
}
