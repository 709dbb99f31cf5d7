/**
 * Which rank holds what, as docs/parallel.md shows it: a value as a rectangle of boxes, each with the numbers of the
 * ranks that hold it. Nothing is drawn by hand: where a value lies is what a plan tells the compiler. Ranks differ in
 * lightness and carry their number, so the pictures can be read in grey, and on light and dark pages alike.
 */
import { boxesOf, ranksOf, type Layout, type Mesh, type Order } from '../compiler/graph/mesh.ts'
import { valueType, type ValueType } from '../compiler/graph/types.ts'
import { placementOf, placeOf, type Plan } from './plan.ts'
import { grey, svgPage, text } from './simulate/timeline-svg.ts'

/** By the first rank that holds a box. */
const looks = [
  { fill: '#dcebf8', ink: '#10202e' },
  { fill: '#94c1e6', ink: '#10202e' },
  { fill: '#2f6fb0', ink: '#ffffff' },
  { fill: '#173359', ink: '#ffffff' },
] as const

const [panelWidth, panelHeight, gap, margin, lineHeight] = [216, 128, 20, 8, 15]

interface Panel {
  readonly caption: readonly string[]
  readonly mesh: Mesh
  readonly layout: Layout
  readonly type: ValueType
  /** Drawn downwards: the dimensions up to this one, the innermost fastest; the next one goes across. */
  readonly down: number
}

const plan = (mesh: Mesh, rest: Partial<Plan> = {}): Plan => ({
  mesh,
  zero: 0,
  sequence: false,
  attention: 'gather',
  ...rest,
})
const axis = (name: string, size: number, order?: Order): Mesh[number] => ({
  name,
  size,
  ...(order ? { order } : {}),
})

const up = valueType('f32', [2, 4, 8], ['layer', 'embed', 'hidden'])
const down = valueType('f32', [2, 8, 4], ['layer', 'hidden', 'embed'])
const experts = valueType('f32', [4, 4, 8], ['expert', 'embed', 'hidden'])
/** What goes from layer to layer, its width left out of the picture. */
const stream = valueType('f32', [4, 8, 8], ['batch', 'time', 'embed'])

const held = (path: string, type: ValueType, plan: Plan, ...caption: string[]): Panel => ({
  caption,
  mesh: plan.mesh,
  layout: placeOf(plan, path, type).layout,
  type,
  down: 1,
})
const passed = (plan: Plan, ...caption: string[]): Panel => ({
  caption,
  mesh: plan.mesh,
  layout: placementOf(plan).boundary(stream),
  type: stream,
  down: 0,
})

const param = (type: ValueType, plan: Plan, ...caption: string[]): Panel =>
  held('state.params.w', type, plan, ...caption)
const moment = (type: ValueType, plan: Plan, ...caption: string[]): Panel =>
  held('state.optim.w.m', type, plan, ...caption)

/** Each box of the value once, with everybody who holds it. */
function drawPanel({ caption, mesh, layout, type, down }: Panel, left: number): string[] {
  const { shape } = type
  const rows = shape.slice(0, down + 1).reduce((product, n) => product * n, 1)
  const [rowHeight, columnWidth] = [panelHeight / rows, panelWidth / shape[down + 1]!]
  const holders = new Map<string, number[]>()
  for (let rank = 0; rank < ranksOf(mesh); rank++) {
    for (const { start, size } of boxesOf(mesh, layout, shape, rank)) {
      // The layers of a stack lie below each other, each with its part of the box.
      const layers = down === 0 ? [0] : Array.from({ length: size[0]! }, (_, i) => start[0]! + i)
      for (const layer of layers) {
        const row = layer * shape[down]! + start[down]!
        const place = [row, size[down], start[down + 1], size[down + 1]].join()
        holders.set(place, [...(holders.get(place) ?? []), rank])
      }
    }
  }
  const parts = [...holders].map(([place, ranks]) => {
    const [row, height, column, width] = place.split(',').map(Number) as [number, number, number, number]
    const { fill, ink } = looks[ranks[0]!]!
    const [x, y] = [left + column * columnWidth, margin + row * rowHeight]
    const [w, h] = [width * columnWidth, height * rowHeight]
    return (
      `<rect x="${x}" y="${y}" width="${w}" height="${h}" fill="${fill}" stroke="${grey}"/>` +
      text(x + w / 2, y + h / 2 + 4, ranks.join(' '), { anchor: 'middle', fill: ink })
    )
  })
  return parts.concat(
    caption.map((line, i) => text(left, margin + panelHeight + lineHeight * (i + 1) + 2, line)),
  )
}

function panels(title: string, list: readonly Panel[]): string {
  const lines = Math.max(...list.map(({ caption }) => caption.length))
  return svgPage(
    2 * margin + list.length * panelWidth + (list.length - 1) * gap,
    2 * margin + panelHeight + lineHeight * lines + 4,
    title,
    list.flatMap((panel, i) => drawPanel(panel, margin + i * (panelWidth + gap))),
  )
}

/** Who computes which part of a causal mask: queries down, keys across, in chunks of the window. */
function maskPicture(title: string): string {
  const ranks = 4
  const chunks = 2 * ranks
  const side = 216
  const cell = side / chunks
  const parts = (['plain', 'zigzag'] as const).flatMap((order, at) => {
    const mesh: Mesh = [axis('context', ranks, order)]
    const left = margin + at * (side + 3 * gap)
    const shares: string[] = []
    const cells = Array.from({ length: ranks }, (_, rank) => {
      const boxes = boxesOf(mesh, { dims: [['context']], partial: {} }, [chunks], rank)
      const queries = boxes.flatMap(({ start, size }) =>
        Array.from({ length: size[0]! }, (_, i) => start[0]! + i),
      )
      // The last chunk of keys that a query sees is the one it is in, and of that a half.
      shares.push(String(queries.reduce((sum, query) => sum + query + 0.5, 0)))
      const { fill, ink } = looks[rank]!
      return queries.flatMap((query) =>
        Array.from({ length: query + 1 }, (_, key) => {
          const [x, y] = [left + key * cell, margin + query * cell]
          const points = `${x},${y} ${x},${y + cell} ${x + cell},${y + cell}`
          const shape =
            key === query
              ? `<polygon points="${points}"`
              : `<rect x="${x}" y="${y}" width="${cell}" height="${cell}"`
          const number =
            key === 0
              ? text(x + (query === 0 ? 8 : cell / 2), y + cell - 8, String(rank), {
                  anchor: 'middle',
                  fill: ink,
                })
              : ''
          return `${shape} fill="${fill}" stroke="${grey}"/>${number}`
        }),
      )
    })
    const bottom = margin + side + lineHeight + 2
    return cells
      .flat(2)
      .concat(text(left, bottom, `${order}: chunk pairs of ranks 0 to ${ranks - 1}: ${shares.join(', ')}`))
  })
  return svgPage(2 * margin + 2 * side + 5 * gap, 2 * margin + side + lineHeight + 6, title, parts)
}

/** File names and their text. */
export function layoutPictures(): Readonly<Record<string, string>> {
  const four = (name: string, rest: Partial<Plan> = {}): Plan => plan([axis(name, 4)], rest)
  const square = plan([axis('data', 2), axis('tensor', 2)], { zero: 3, sequence: true })
  return {
    'layout-data.svg': panels('Data parallel', [
      param(up, four('data'), 'a weight matrix, two layers of it:', 'whole on every rank'),
      passed(four('data'), 'activations, batch down, time across:', 'mesh.data=4 cuts the batch'),
    ]),
    'layout-zero.svg': panels('ZeRO', [
      param(up, plan([axis('data', 2)], { zero: 2 }), 'weights, mesh.data=2,', 'parallel.zero=0, 1 or 2'),
      moment(up, plan([axis('data', 2)], { zero: 1 }), 'their optimizer state, zero=1:', 'whole layers'),
      moment(
        up,
        plan([axis('data', 2)], { zero: 2 }),
        'their optimizer state, zero=2 and 3:',
        'cut within layers',
      ),
      param(up, plan([axis('data', 2)], { zero: 3 }), 'weights, zero=3'),
    ]),
    'layout-tensor.svg': panels('Tensor and sequence parallel', [
      param(up, four('tensor'), 'the first matrix (up), mesh.tensor=4:', 'hidden units, across'),
      param(down, four('tensor'), 'the second (down), two layers:', 'hidden units, down'),
      passed(four('tensor'), 'activations between layers,', 'batch down, time across'),
      passed(four('tensor', { sequence: true }), 'the same,', 'parallel.sequence=true'),
    ]),
    'layout-context.svg': panels('Context parallel', [
      passed(four('context'), 'activations, batch down, time across:', 'mesh.context=4'),
      passed(
        plan([axis('context', 4, 'zigzag')], { attention: 'ring' }),
        'the same, parallel.attention=ring:',
        'zig-zag',
      ),
    ]),
    'layout-mask.svg': maskPicture('Shares of a causal mask'),
    'layout-expert.svg': panels('Expert parallel', [
      param(experts, four('expert'), 'matrices of four experts,', 'mesh.expert=4'),
      passed(four('expert'), 'activations, batch down, time across'),
    ]),
    'layout-mixed.svg': panels('A mixed plan', [
      param(up, square, 'up: mesh.data=2 mesh.tensor=2', 'parallel.zero=3 parallel.sequence=true'),
      param(down, square, 'down'),
      passed(square, 'activations between layers,', 'batch down, time across'),
    ]),
  }
}
