/**
 * How long messages between ranks take, measured with what carries them in training: a small program in which every rank
 * sends a value to the next, for values of several sizes, as threads or (in each process that mpirun started) over MPI.
 * A message of b bytes takes latency + b / bandwidth seconds.
 */
import { groupOf, whole, type Mesh } from '../compiler/graph/mesh.ts'
import { compile, iota, scan, Tensor, valueType, type Tensors } from '../compiler/index.ts'
import { shift } from '../compiler/ops/shift.ts'
import type { Parallel } from '../compiler/ranked.ts'
import type { Wire } from './simulate/compiled.ts'
import { placementOf } from './plan.ts'

export interface LinkMeasure {
  /** Seconds for the smallest message. */
  readonly latency: number
  /** Bytes a second of a large one, one way, while as much comes the other way. */
  readonly bandwidth: number
  readonly samples: readonly { readonly bytes: number; readonly seconds: number }[]
}

/** Bytes of the messages, and how many of each are sent in a run. */
const messages = [
  [64, 200],
  [4 << 10, 100],
  [16 << 10, 60],
  [64 << 10, 50],
  [256 << 10, 30],
  [1 << 20, 20],
  [4 << 20, 6],
] as const

/** Measures messages around a ring of `ranks`. */
export const measureLink = (
  ranks: number,
  transport: Parallel['transport'] = 'threads',
): Promise<LinkMeasure> => measureAxis([{ name: 'ring', size: ranks }], 'ring', transport)

/** Measures messages around all rings that ranks form along an axis of a mesh, at once. The first run warms up. */
export async function measureAxis(
  mesh: Mesh,
  axis: string,
  transport: Parallel['transport'] = 'threads',
): Promise<LinkMeasure> {
  const parallel: Parallel = {
    transport,
    placement: placementOf({ mesh, zero: 0, sequence: false, attention: 'gather' }),
    placeOf: (_, { shape }) => ({ layout: whole(shape.length), weight: false }),
  }
  const inputs = Object.fromEntries(messages.map(([bytes]) => [`b${bytes}`, valueType('f32', [bytes / 4])]))
  const body = (given: Tensors): Tensors =>
    Object.fromEntries(
      messages.map(([bytes, count]) => {
        const around = (x: Tensor): Tensor => new Tensor(shift(x.node, groupOf(mesh, [axis]), 1))
        const start = (given as Record<string, Tensor>)[`b${bytes}`]!
        const [last] = scan(start, iota(count, null), (x) => [around(x), {}] as const)
        return [`r${bytes}`, last]
      }),
    )
  const program = await compile(body, inputs, { name: 'links', threads: 1, profile: true, parallel })
  try {
    program.runBlocking()
    program.profile()
    program.runBlocking()
    const { sites, lastRun } = program.profile()
    const sent = sites.flatMap(({ communication }, site) => (communication ? [site] : []))
    // From the first to the last, so that what a rank waits for another counts: the median would leave it out.
    const typical = (site: number): number => {
      const events = lastRun.events.filter((event) => event.site === site)
      return (events.at(-1)!.ended - events[0]!.began) / events.length
    }
    const samples = messages.map(([bytes], i) => ({ bytes, seconds: typical(sent[i]!) }))
    return linkOf(samples)
  } finally {
    program.close()
  }
}

/**
 * Several measurements of a link as one: for each size the middle of what it took, as a step meets the link in all of its
 * states. Its latency is the least of all: whatever else a machine does only adds to it.
 */
export const typicalLink = (measures: readonly LinkMeasure[]): LinkMeasure => ({
  ...linkOf(
    measures[0]!.samples.map(({ bytes }, i) => {
      const sorted = measures.map(({ samples }) => samples[i]!.seconds).toSorted((a, b) => a - b)
      return { bytes, seconds: sorted[Math.floor(sorted.length / 2)]! }
    }),
  ),
  latency: Math.min(...measures.map(({ latency }) => latency)),
})

function linkOf(samples: LinkMeasure['samples']): LinkMeasure {
  const [middle, large] = [samples.at(-2)!, samples.at(-1)!]
  return {
    latency: Math.min(...samples.map(({ seconds }) => seconds)),
    bandwidth: (large.bytes - middle.bytes) / Math.max(large.seconds - middle.seconds, 1e-9),
    samples,
  }
}

/**
 * The wire that was measured, for the simulator. `sharing`: how many ranks of a host sent at once through its port, which one
 * message alone holds that much shorter. Sizes in between lie on the lines between the samples, larger ones on the last. What
 * the quickest sample takes is latency, which holds no port: not what the smallest takes, which may have had to wait for its
 * core, and would then make all up to its seconds free.
 */
export function wireOf(
  name: string,
  { latency, samples }: Pick<LinkMeasure, 'latency' | 'samples'>,
  sharing: number,
): Wire {
  const smallest = samples[0]!
  return {
    name,
    latency,
    busy(bytes) {
      if (bytes <= smallest.bytes) return 0
      const found = samples.findIndex((sample) => sample.bytes >= bytes)
      const after = found < 0 ? samples.length - 1 : found
      const [low, high] = [samples[after - 1]!, samples[after]!]
      const slope = (high.seconds - low.seconds) / (high.bytes - low.bytes)
      return Math.max(0, low.seconds + slope * (bytes - low.bytes) - latency) / sharing
    },
  }
}
