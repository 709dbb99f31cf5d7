/** A timeline shows every bar once, in its place, and can be read in grey and by anyone. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makeSchedule, timeline } from '../schedule/index.ts'
import { scheduleRows, timelineSvg } from './timeline-svg.ts'

const schedule = makeSchedule('zb-h1', { ranks: 3, microbatches: 4 })
const line = timeline(schedule, { F: 1, B: 1, W: 1 })
const svg = timelineSvg(scheduleRows(schedule, line), { title: 'a < b & c', unit: 'steps' })

/** Relative luminance of a colour, from 0 to 1 (WCAG). */
function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!
}
const contrast = (a: string, b: string): number => {
  const [dark, light] = [luminance(a), luminance(b)].toSorted((x, y) => x - y)
  return (light! + 0.05) / (dark! + 0.05)
}

test('each action is one labelled bar, from its start to its end', () => {
  const bars = [
    ...svg.matchAll(/<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)" height="24" rx="1.5" fill="(#\w+)"\/>/g),
  ]
  const actions = line.ranks.flat()
  assert.equal(bars.length, actions.length)
  const labels = [...svg.matchAll(/<text [^>]*>([FBW]\d)<\/text>/g)].map((match) => match[1]!)
  assert.deepEqual(
    labels,
    actions.map(({ kind, microbatch }) => `${kind}${microbatch}`),
  )
  const first = Number(bars[0]![1])
  const unit = Number(bars[1]![1]) - first
  for (const [i, { start }] of actions.entries()) {
    assert.ok(Math.abs(Number(bars[i]![1]) - first - start * unit) < 0.05 * unit)
  }
})

test('text can be read on its bar, and kinds differ in lightness', () => {
  const pairs = [...svg.matchAll(/rx="1.5" fill="(#\w+)"\/><text [^>]*fill="(#\w+)"[^>]*>([FBW])/g)]
  const fills = new Map(pairs.map(([, fill, , kind]) => [kind!, fill!]))
  assert.equal(fills.size, 3)
  for (const [, fill, ink] of pairs) assert.ok(contrast(fill!, ink!) >= 4.5, `${ink} on ${fill}`)
  for (const [a, b] of [
    ['F', 'B'],
    ['F', 'W'],
    ['B', 'W'],
  ] as const) {
    assert.ok(contrast(fills.get(a)!, fills.get(b)!) >= 1.4, `${a} and ${b}`)
  }
})

test('text outside of bars can be read on light and on dark pages', () => {
  const outside = [...svg.matchAll(/<text [^>]*fill="(#7\w+)"/g)].map((match) => match[1]!)
  assert.ok(outside.length > 0)
  for (const ink of outside) {
    assert.ok(contrast(ink, '#ffffff') >= 4 && contrast(ink, '#0d1117') >= 4, ink)
  }
})

test('a title is escaped', () => assert.ok(svg.includes('<title>a &lt; b &amp; c</title>')))
