/**
 * What the server draws of curves that the page holds only an overview of: the whole of each, and the part that is zoomed
 * to, both smoothed over every point before they were thinned. New points that the page has got since go on from there.
 *
 * Subtle: an answer replaces the one before only when it comes, so that a curve that is dragged never vanishes; and the
 * part asked for is wider than what is seen, so that dragging seldom leaves it.
 */
import { decodeCurves } from '../../../src/lab/encode-curves.ts'
import { firstAtLeast, typicalDistance } from '../../../src/lab/thinning.ts'
import type { Curve } from '../../../src/lab/thinning.ts'
import { request } from './api.ts'
import type { ChartCurve } from './chart-curve.ts'

interface Form {
  readonly smoothing: number
  readonly logX: boolean
  readonly logY: boolean
}

export interface Wish extends Form {
  readonly curves: readonly ChartCurve[]
  readonly from: number
  readonly to: number
  /** Whether that is only a part. */
  readonly zoomed: boolean
  /** Pixels. */
  readonly width: number
}

export interface Lines {
  readonly raw: Curve
  readonly smooth: Curve
}

interface Part extends Lines {
  readonly from: number
  readonly to: number
  readonly buckets: number
}

interface Known {
  /** Of what form the answers are. */
  readonly form: string
  whole?: Lines
  wholeAt: number
  part?: Part
}

const pauseMs = 80
/** The whole of a run that grows is asked for again this often. */
const wholeMs = 10_000

const formOf = ({ smoothing, logX, logY }: Form): string => `${smoothing} ${logX} ${logY}`

export class Details {
  readonly #known = new Map<string, Known>()
  #timer: ReturnType<typeof setTimeout> | undefined
  #asking: AbortController | undefined

  /** Asks for what a wish lacks, soon; `came` is called when it is there. `place` is busy until then. */
  want(wish: Wish, place: Element, came: () => void): void {
    clearTimeout(this.#timer)
    const missing = wish.curves.flatMap((curve) => this.#missing(curve, wish))
    if (missing.length === 0) {
      if (this.#asking === undefined) place.removeAttribute('aria-busy')
      return
    }
    place.setAttribute('aria-busy', 'true')
    const isFirst = this.#known.size === 0
    this.#timer = setTimeout(
      () => {
        this.#asking?.abort()
        const asking = (this.#asking = new AbortController())
        Promise.all(missing.map((load) => load(asking.signal)))
          .then(came, () => undefined)
          .finally(() => {
            if (this.#asking !== asking) return
            this.#asking = undefined
            place.removeAttribute('aria-busy')
          })
      },
      isFirst ? 0 : pauseMs,
    )
  }

  #missing(curve: ChartCurve, wish: Wish): ((signal: AbortSignal) => Promise<void>)[] {
    const { address } = curve
    if (address === undefined) return []
    const form = formOf(wish)
    const known = this.#known.get(address)
    const isCurrent = known?.form === form
    const words = {
      smoothing: String(wish.smoothing),
      ...(wish.logX ? { logX: '1' } : {}),
      ...(wish.logY ? { logY: '1' } : {}),
    }
    const load = async (more: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Lines> => {
      const response = await request(`${address}&${new URLSearchParams({ ...words, ...more })}`, { signal })
      const [raw, smooth] = decodeCurves(await response.arrayBuffer()) as [Curve, Curve]
      return { raw, smooth }
    }
    const store = (change: Partial<Known>): void => {
      const before = this.#known.get(address)
      this.#known.set(address, { wholeAt: 0, ...(before?.form === form ? before : {}), form, ...change })
    }
    const wanted: ((signal: AbortSignal) => Promise<void>)[] = []
    const grew = known?.whole && curve.x.at(-1)! > (known.whole.raw.x.at(-1) ?? 0)
    if (!isCurrent || !known.whole || (grew && performance.now() - known.wholeAt > wholeMs))
      wanted.push(async (signal) => store({ whole: await load({}, signal), wholeAt: performance.now() }))
    if (wish.zoomed) {
      const span = wish.to - wish.from
      const [from, to] = [wish.from - span, wish.to + span]
      const buckets = Math.max(150, Math.floor(wish.width) * 3)
      const part = isCurrent ? known.part : undefined
      const fits =
        part !== undefined &&
        part.from <= wish.from &&
        part.to >= wish.to &&
        // Fine enough: as many buckets a length as were wished for, but for a little.
        part.buckets / (part.to - part.from) > (0.7 * buckets) / (to - from)
      if (!fits) {
        const place = { from: String(from), to: String(to), buckets: String(buckets) }
        wanted.push(async (signal) => store({ part: { ...(await load(place, signal)), from, to, buckets } }))
      }
    }
    return wanted
  }

  /** What is to be drawn of a curve; undefined when the page holds all of it. */
  linesOf(curve: ChartCurve, form: Form): Lines | undefined {
    const { address } = curve
    if (address === undefined) return undefined
    const known = this.#known.get(address)
    // The smoothed line comes with the answer: made of the overview it would be another.
    const none = { x: new Float64Array(0), y: new Float64Array(0) }
    if (known?.whole === undefined) return { raw: curve, smooth: none }
    const { whole } = known
    const part = known.form === formOf(form) ? known.part : undefined
    const newer = after(curve, whole.raw.x.at(-1) ?? -Infinity)
    const raw = splice(joined(whole.raw, newer), part?.raw)
    return {
      raw,
      smooth: splice(joined(whole.smooth, goneOn(whole.smooth, newer, form.smoothing)), part?.smooth),
    }
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#asking?.abort()
  }
}

/** The points beyond a place. */
function after({ x, y }: Curve, place: number): Curve {
  let begin = firstAtLeast(x, place)
  while (begin < x.length && x[begin]! <= place) begin++
  return { x: x.subarray(begin), y: y.subarray(begin) }
}

function joined(...curves: readonly Curve[]): Curve {
  const length = curves.reduce((sum, { x }) => sum + x.length, 0)
  const whole = { x: new Float64Array(length), y: new Float64Array(length) }
  let at = 0
  for (const { x, y } of curves) {
    whole.x.set(x, at)
    whole.y.set(y, at)
    at += x.length
  }
  return whole
}

/** A curve with a part of it in more detail. */
function splice(whole: Curve, part: Curve | undefined): Curve {
  if (part === undefined || part.x.length === 0) return whole
  const begin = firstAtLeast(whole.x, part.x[0]!)
  const before = { x: whole.x.subarray(0, begin), y: whole.y.subarray(0, begin) }
  return joined(before, part, after(whole, part.x.at(-1)!))
}

/** Smoothing that goes on over new points: after thousands of points the weight of the first no longer counts. */
function goneOn(smoothed: Curve, newer: Curve, strength: number): Curve {
  const typical = typicalDistance(newer.x)
  let mean = smoothed.y.findLast((value) => Number.isFinite(value)) ?? Number.NaN
  let last = smoothed.x.at(-1) ?? 0
  const y = newer.y.map((value, i) => {
    if (!Number.isFinite(value)) return value
    const decay = strength ** ((newer.x[i]! - last) / typical)
    last = newer.x[i]!
    mean = Number.isFinite(mean) ? decay * mean + (1 - decay) * value : value
    return mean
  })
  return { x: newer.x, y }
}
