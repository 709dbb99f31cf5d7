/**
 * How long kernel calls take, from a profile of some: a call that was measured takes what it took; another takes
 * `overhead + size / rate`, fitted over the measured calls of its class. Classes are products, attention, its gradient, and
 * everything else, which moves bytes. Measured best in the program that it is about, with as many ranks on each core as there
 * will be (`profile: 'cpu'`): what a call finds in the caches decides as much as its size.
 */
import type { SiteProfile } from '../../compiler/index.ts'
import type { Work } from '../../compiler/targets/c/work.ts'

/** What a call does, as far as its time is told from it. */
export type CallSize = Pick<Work, 'ops' | 'flops' | 'bytes'>

export interface CallSample extends CallSize {
  readonly seconds: number
}

/** The mean of every call that a profile has seen; the first rank's, which does not come by the calls of other stages. */
export const callSamples = (sites: readonly SiteProfile[]): CallSample[] =>
  sites.flatMap((site) =>
    site.communication || site.seconds === 0
      ? []
      : [{ ops: site.ops, flops: site.flops, bytes: site.bytes, seconds: site.seconds / site.calls }],
  )

/** Each call once, with the mean of what it took. */
export function uniqueSamples(samples: readonly CallSample[]): CallSample[] {
  const alike = Map.groupBy(samples, keyOf)
  return Array.from(alike.values(), (same) => ({
    ...same[0]!,
    seconds: same.reduce((sum, { seconds }) => sum + seconds, 0) / same.length,
  }))
}

/** What decides how long a call takes, and how much of it there is. */
function classOf({ ops, flops, bytes }: CallSize): readonly [name: string, size: number] {
  const [name] = ops.split(' ') as [string]
  const counted = ['dot', 'attention', 'attentionBackward'].includes(name)
  return counted && flops > 0 ? [name, flops] : ['moves', bytes]
}

const keyOf = ({ ops, flops, bytes }: CallSize): string => `${ops} ${flops} ${bytes}`

/** Seconds of any call. */
export function callSeconds(samples: readonly CallSample[]): (work: CallSize) => number {
  const known = new Map(uniqueSamples(samples).map((sample) => [keyOf(sample), sample.seconds]))
  const classes = new Map<string, (readonly [size: number, seconds: number])[]>()
  for (const sample of samples) {
    const [name, size] = classOf(sample)
    classes.set(name, [...(classes.get(name) ?? []), [size, sample.seconds]])
  }
  const lines = new Map(Array.from(classes, ([name, points]) => [name, fitLine(points)]))
  return (work) => {
    const measured = known.get(keyOf(work))
    if (measured !== undefined) return measured
    const [name, size] = classOf(work)
    const [overhead, each] = lines.get(name) ?? lines.get('moves') ?? [0, 0]
    return overhead + size * each
  }
}

/**
 * `[overhead, each]` of seconds = overhead + each size, neither below 0, with the least sum of squared relative errors.
 */
export function fitLine(points: readonly (readonly [size: number, seconds: number])[]): [number, number] {
  // Divided by the seconds: 1 = overhead u + each v, with u = 1 / seconds and v = size / seconds.
  let [uu, uv, vv, u, v] = [0, 0, 0, 0, 0]
  for (const [size, seconds] of points) {
    const [a, b] = [1 / seconds, size / seconds]
    uu += a * a
    uv += a * b
    vv += b * b
    u += a
    v += b
  }
  const determinant = uu * vv - uv * uv
  const [overhead, each] =
    determinant > 1e-12 * uu * vv
      ? [(u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant]
      : [0, v / vv]
  if (overhead < 0) return [0, v / vv]
  if (each < 0) return [u / uu, 0]
  return [overhead, each]
}
