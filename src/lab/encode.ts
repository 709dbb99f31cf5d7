/**
 * Columns of a run as bytes, and back: a JSON header, then every column as 64-bit floats, so that a million points cross
 * to the page without being printed and parsed. Little-endian, columns aligned to 8 bytes. Runs in a browser too.
 *
 *     u32 length of the header | header, padded with spaces | step tokens seconds flops | rows values of each metric
 */
import { axes, Columns, Growing } from '../runs/columns.ts'
import type { MetricColumn } from '../runs/columns.ts'

interface Header {
  readonly cursor: string
  readonly points: number
  readonly metrics: readonly (readonly [name: string, count: number])[]
  readonly whole?: Whole
}

/** How much there is of what was thinned. */
export interface Whole {
  readonly points: number
  readonly metrics: Readonly<Record<string, number>>
}

/** `whole` is what `columns` is an overview of, where it is one. */
export function encodeColumns(columns: Columns, cursor: string, whole?: Columns): Uint8Array<ArrayBuffer> {
  const metrics = [...columns.metrics]
  const header: Header = {
    cursor,
    points: columns.length,
    metrics: metrics.map(([name, { values }]) => [name, values.length]),
    ...(whole === undefined ? {} : { whole: sizeOf(whole) }),
  }
  const text = new TextEncoder().encode(JSON.stringify(header))
  const start = Math.ceil((4 + text.length) / 8) * 8
  const parts = [
    ...axes.map((axis) => columns.axes[axis].values),
    ...metrics.flatMap(([, { rows, values }]) => [rows.values, values.values]),
  ]
  const bytes = new Uint8Array(start + parts.reduce((sum, part) => sum + part.byteLength, 0)).fill(
    0x20,
    0,
    start,
  )
  new DataView(bytes.buffer).setUint32(0, start - 4, true)
  bytes.set(text, 4)
  let at = start
  for (const part of parts) {
    bytes.set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), at)
    at += part.byteLength
  }
  return bytes
}

const sizeOf = ({ length, metrics }: Columns): Whole => ({
  points: length,
  metrics: Object.fromEntries([...metrics].map(([name, { values }]) => [name, values.length])),
})

export interface Decoded {
  readonly columns: Columns
  readonly cursor: string
  /** Undefined: nothing is missing. */
  readonly whole: Whole | undefined
}

export function decodeColumns(bytes: ArrayBuffer): Decoded {
  const length = new DataView(bytes).getUint32(0, true)
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length))) as Header
  let at = 4 + length
  const take = (count: number): Growing => {
    const values = new Float64Array(bytes, at, count)
    at += count * 8
    return Growing.of(values)
  }
  const [step, tokens, seconds, flops] = axes.map(() => take(header.points)) as [
    Growing,
    Growing,
    Growing,
    Growing,
  ]
  const metrics = new Map<string, MetricColumn>()
  for (const [name, count] of header.metrics) metrics.set(name, { rows: take(count), values: take(count) })
  const { cursor, whole } = header
  return { columns: new Columns({ step, tokens, seconds, flops }, metrics), cursor, whole }
}
