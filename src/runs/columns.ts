/**
 * The measured points of a run as columns of numbers, a table that grows: what curves are drawn from. One row a point
 * with its step, tokens, seconds and FLOPs; each metric keeps the rows it was measured at, so that one that is measured
 * seldom is not a column of holes. Used by the lab's server and by its page alike, so that both fold a run's lines into
 * the same history: a new segment drops the rows beyond the step it starts from, and a value measured again at a step
 * replaces the older one. Imports nothing, since it also runs in a browser.
 */
import type { PointLine } from './lines.ts'

/** An array that grows at its end and can be cut. */
export class Growing {
  #data: Float64Array
  length = 0

  constructor(data: Float64Array = new Float64Array(256)) {
    this.#data = data
  }

  /** Of values that are there already. */
  static of(values: Float64Array): Growing {
    const growing = new Growing(values)
    growing.length = values.length
    return growing
  }

  /** Room for that many more, so that growing copies once. */
  #reserve(more: number): void {
    if (this.length + more <= this.#data.length) return
    const larger = new Float64Array(Math.max(256, this.length * 2, this.length + more))
    larger.set(this.values)
    this.#data = larger
  }

  append(values: Float64Array): void {
    this.#reserve(values.length)
    this.#data.set(values, this.length)
    this.length += values.length
  }

  push(value: number): void {
    this.#reserve(1)
    this.#data[this.length++] = value
  }

  at(index: number): number {
    return this.#data[index]!
  }

  set(index: number, value: number): void {
    this.#data[index] = value
  }

  /** A window on what is there now; stale after the next change. */
  get values(): Float64Array {
    return this.#data.subarray(0, this.length)
  }
}

export const axes = ['step', 'tokens', 'seconds', 'flops'] as const
export type Axis = (typeof axes)[number]

export interface MetricColumn {
  /** Ascending row numbers. */
  readonly rows: Growing
  readonly values: Growing
}

export class Columns {
  readonly axes: Readonly<Record<Axis, Growing>>
  readonly metrics: Map<string, MetricColumn>

  constructor(
    given: Readonly<Record<Axis, Growing>> = {
      step: new Growing(),
      tokens: new Growing(),
      seconds: new Growing(),
      flops: new Growing(),
    },
    metrics = new Map<string, MetricColumn>(),
  ) {
    this.axes = given
    this.metrics = metrics
  }

  /** Number of rows. */
  get length(): number {
    return this.axes.step.length
  }

  add(point: PointLine): void {
    const row = this.length
    for (const axis of axes) this.axes[axis].push(point[axis])
    for (const [name, value] of Object.entries(point.metrics)) {
      let column = this.metrics.get(name)
      if (column === undefined) {
        column = { rows: new Growing(), values: new Growing() }
        this.metrics.set(name, column)
      }
      const last = column.rows.length - 1
      if (last >= 0 && this.axes.step.at(column.rows.at(last)) === point.step) {
        column.rows.set(last, row)
        column.values.set(last, value)
      } else {
        column.rows.push(row)
        column.values.push(value)
      }
    }
  }

  /** Adds the rows of another table, as if its points were added one by one. */
  append(other: Columns): void {
    const before = this.length
    for (const axis of axes) this.axes[axis].append(other.axes[axis].values)
    for (const [name, { rows, values }] of other.metrics) {
      let column = this.metrics.get(name)
      if (column === undefined) {
        column = { rows: new Growing(), values: new Growing() }
        this.metrics.set(name, column)
      }
      // Measured again at the step where this table ends: the newer value stands.
      const last = column.rows.length - 1
      const again =
        last >= 0 &&
        rows.length > 0 &&
        this.axes.step.at(column.rows.at(last)) === other.axes.step.at(rows.at(0))
      if (again) column.rows.length = column.values.length = last
      column.rows.append(rows.values.map((row) => row + before))
      column.values.append(values.values)
    }
  }

  /** Drops every row beyond a step. */
  truncate(step: number): void {
    let rows = this.length
    while (rows > 0 && this.axes.step.at(rows - 1) > step) rows--
    if (rows === this.length) return
    for (const axis of axes) this.axes[axis].length = rows
    for (const [name, column] of this.metrics) {
      let length = column.rows.length
      while (length > 0 && column.rows.at(length - 1) >= rows) length--
      column.rows.length = column.values.length = length
      if (length === 0) this.metrics.delete(name)
    }
  }
}
