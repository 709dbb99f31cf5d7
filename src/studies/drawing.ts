/**
 * The few marks that figures of studies are made of. Nothing rests on colour: series differ in the shape of their points and
 * the dashes of their lines, and are named where they end. No background and middle greys, for light and dark pages.
 */
import { escapeMarkup } from './report.ts'

export const grey = '#7d7d7d'

/** Told apart by colour-blind readers too (after Okabe and Ito), and about equally dark. */
export const colours = [
  '#0072b2',
  '#d55e00',
  '#008f68',
  '#b0508c',
  '#8a6d00',
  '#4b74c9',
  '#a8442a',
  '#5f7d2f',
]
export const dashes = ['', '8 5', '2 4', '10 4 2 4', '5 3', '12 3', '3 3', '14 4 2 4 2 4']
export const shapes = ['circle', 'square', 'triangle', 'diamond', 'cross', 'plus', 'down', 'star'] as const
export type Shape = (typeof shapes)[number]

export interface TextLook {
  readonly size?: number
  readonly weight?: number
  readonly anchor?: 'start' | 'middle' | 'end'
  readonly fill?: string
}

export const text = (
  x: number,
  y: number,
  words: string,
  { size = 13, weight = 400, anchor = 'start', fill = grey }: TextLook,
): string =>
  `<text x="${round(x)}" y="${round(y)}" font-size="${size}" font-weight="${weight}" text-anchor="${anchor}" fill="${fill}">${escapeMarkup(words)}</text>`

export const line = (x1: number, y1: number, x2: number, y2: number, look: string): string =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${look}/>`

export const round = (value: number): number => Math.round(10 * value) / 10

/** A broken line through points. */
export const path = (points: readonly (readonly [x: number, y: number])[], look: string): string =>
  `<polyline points="${points.map(([x, y]) => `${round(x)},${round(y)}`).join(' ')}" fill="none" ${look}/>`

/** A point; what it says shows when it is pointed at. */
export function marker(shape: Shape, x: number, y: number, size: number, look: string, says = ''): string {
  const at = (dx: number, dy: number): string => `${round(x + dx * size)},${round(y + dy * size)}`
  const corners = (list: readonly (readonly [number, number])[]): string =>
    list.map(([dx, dy]) => at(dx, dy)).join(' ')
  const title = says === '' ? '' : `<title>${escapeMarkup(says)}</title>`
  const polygon = (list: readonly (readonly [number, number])[]): string =>
    `<polygon points="${corners(list)}" ${look}>${title}</polygon>`
  const strokes = (list: readonly (readonly [number, number, number, number])[]): string =>
    `<path d="${list.map(([a, b, c, d]) => `M${at(a, b)}L${at(c, d)}`).join('')}" ${look}>${title}</path>`
  switch (shape) {
    case 'circle':
      return `<circle cx="${round(x)}" cy="${round(y)}" r="${size}" ${look}>${title}</circle>`
    case 'square':
      return polygon([
        [-0.9, -0.9],
        [0.9, -0.9],
        [0.9, 0.9],
        [-0.9, 0.9],
      ])
    case 'triangle':
      return polygon([
        [0, -1.15],
        [1.05, 0.8],
        [-1.05, 0.8],
      ])
    case 'down':
      return polygon([
        [0, 1.15],
        [1.05, -0.8],
        [-1.05, -0.8],
      ])
    case 'diamond':
      return polygon([
        [0, -1.25],
        [1.25, 0],
        [0, 1.25],
        [-1.25, 0],
      ])
    case 'cross':
      return strokes([
        [-0.9, -0.9, 0.9, 0.9],
        [-0.9, 0.9, 0.9, -0.9],
      ])
    case 'plus':
      return strokes([
        [-1.1, 0, 1.1, 0],
        [0, -1.1, 0, 1.1],
      ])
    case 'star':
      return strokes([
        [-1.1, 0, 1.1, 0],
        [-0.6, -1, 0.6, 1],
        [-0.6, 1, 0.6, -1],
      ])
  }
}

export interface Frame {
  readonly width: number
  readonly height: number
  /** What the picture shows, in words. */
  readonly says: string
}

export const svg = ({ width, height, says }: Frame, parts: readonly string[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" role="img"><title>${escapeMarkup(says)}</title>
${parts.join('\n')}
</svg>
`
