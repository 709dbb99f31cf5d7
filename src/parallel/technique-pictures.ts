/**
 * One training step under each technique, as docs/parallel.md shows it. All ranks of a group do the same, so a row
 * stands for all four, and rows of several simulations can be compared in one picture. The model is a made-up one of a
 * likely size: four layers of width 4096 in bf16, 8192 tokens, on the links of the H100 file.
 */
import { hardwareByName } from './hardware/index.ts'
import { makeSchedule } from './schedule/index.ts'
import {
  buildPlan,
  runRows,
  shardedCollectives,
  simulate,
  timelineSvg,
  type CollectiveKind,
  type PieceCollective,
  type PlanCosts,
  type ShardLevel,
  type SimulatedRun,
  type TimelineRow,
} from './simulate/index.ts'

const [ranks, layers, width, tokens, elementBytes] = [4, 4, 4096, 8192, 2]
const layerParameters = 12 * width ** 2
/** FLOPs a second that a rank is taken to reach. */
const rate = 600e12
const group = ['group']
const activation = tokens * width * elementBytes
const weights = layerParameters * elementBytes

type Collectives = NonNullable<PlanCosts['stages'][number]['collectives']>

interface Variation {
  readonly pieces?: number
  readonly collectives?: Collectives
  readonly optimizer?: Omit<PlanCosts['optimizer'], 'seconds'>
  readonly microbatches?: number
  /** Times the arithmetic of the forward pass that a backward pass does again. */
  readonly again?: number
  /** Into how many parts arithmetic is cut. */
  readonly share?: number
}

function run({ pieces = layers, collectives = {}, optimizer = {}, ...rest }: Variation): SimulatedRun {
  const { microbatches = 1, again = 0, share = 1 } = rest
  const forward = (2 * layers * layerParameters * tokens) / rate / microbatches / share
  return simulate(
    buildPlan({
      name: 'a training step',
      axes: [{ name: 'group', size: ranks }],
      schedule: makeSchedule('1f1b', { ranks: 1, microbatches }),
      stages: [
        {
          pieces,
          seconds: { F: forward, B: forward * (1 + again), W: forward },
          outputBytes: 0,
          collectives,
        },
      ],
      links: hardwareByName('h100').links,
      optimizer: { seconds: [1e-3], ...optimizer },
    }),
  )
}

const collective = (kind: CollectiveKind, bytes: number, when: PieceCollective['when']): PieceCollective => ({
  kind,
  bytes,
  axes: group,
  when,
})

/** The same around the pieces of both passes. */
const inBoth = (...collectives: PieceCollective[]): Collectives => ({ F: collectives, B: collectives })

function zero(level: ShardLevel, microbatches = 1): Variation {
  const sharded = shardedCollectives(level, group, {
    pieceParameters: weights,
    pieceGradients: weights,
    rankParameters: layers * weights,
  })
  return { collectives: sharded.pieces, optimizer: { after: sharded.after }, microbatches }
}

/** One rank's share of the tokens, and their keys and values. */
const part = activation / ranks
const keys = 2 * part

const repeated = <T>(count: number, value: T): T[] => Array<T>(count).fill(value)

interface Picture {
  readonly title: string
  /** A row for each, by its name. */
  readonly rows: Readonly<Record<string, Variation>>
}

const steps: Readonly<Record<string, Picture>> = {
  data: {
    title: 'Data parallel: gradients reduced at the end, or while the backward pass goes on',
    rows: {
      'at the end': {
        optimizer: { before: [{ kind: 'allReduce', bytes: layers * weights, axes: group }] },
      },
      overlapped: zero(0),
    },
  },
  zero: {
    title: 'ZeRO: what is sent when, with 2 microbatches',
    rows: {
      'zero=0': zero(0, 2),
      'zero=1': zero(1, 2),
      'zero=2': zero(2, 2),
      'zero=3': zero(3, 2),
    },
  },
  tensor: {
    title: 'Tensor parallel: every layer waits, twice in each pass; sequence parallel in two halves',
    rows: {
      // A layer is two pieces: attention and feed-forward.
      tensor: {
        pieces: 2 * layers,
        share: ranks,
        collectives: inBoth(collective('allReduce', activation, 'after')),
      },
      // In the backward pass inputs, kept in parts, are gathered again for the gradients of weights.
      sequence: {
        pieces: 2 * layers,
        share: ranks,
        collectives: {
          F: [
            collective('allGather', activation, 'before'),
            collective('reduceScatter', activation, 'after'),
          ],
          B: [
            ...repeated(2, collective('allGather', activation, 'before')),
            collective('reduceScatter', activation, 'after'),
          ],
        },
      },
    },
  },
  context: {
    title: 'Context parallel: three ways to see the keys of other ranks',
    rows: {
      gather: {
        share: ranks,
        collectives: {
          F: [collective('allGather', ranks * keys, 'before')],
          B: [
            collective('allGather', ranks * keys, 'before'),
            collective('allReduce', ranks * keys, 'after'),
          ],
        },
      },
      // There: queries, keys, values, and in the backward pass results and their gradients; back: results, gradients.
      heads: {
        share: ranks,
        collectives: {
          F: [collective('allToAll', 3 * part, 'before'), collective('allToAll', part, 'after')],
          B: [collective('allToAll', 5 * part, 'before'), collective('allToAll', 3 * part, 'after')],
        },
      },
      // In the backward pass the gradients of keys and values travel with them, and home at the end.
      ring: {
        share: ranks,
        collectives: {
          F: repeated(ranks - 1, collective('shift', keys, 'prefetch')),
          B: [
            ...repeated(ranks - 1, collective('shift', 2 * keys, 'prefetch')),
            collective('shift', keys, 'after'),
          ],
        },
      },
    },
  },
  expert: {
    title: 'Expert parallel: rows go to their experts and come back, in both passes',
    rows: {
      expert: {
        collectives: inBoth(
          collective('allToAll', 2 * activation, 'before'),
          collective('allToAll', 2 * activation, 'after'),
        ),
      },
    },
  },
  accumulate: {
    title: 'Accumulation: more microbatches, as many gradients sent, fewer activations held',
    rows: {
      '1 batch': zero(0),
      '4 parts': zero(0, 4),
    },
  },
  recompute: {
    title: 'Recompute: a backward pass begins with the forward pass again',
    rows: {
      kept: {},
      recomputed: { again: 1 },
    },
  },
}

function rowOf(name: string, variation: Variation): TimelineRow {
  const { bars, under = [] } = runRows(run(variation))[0]!
  return { name, bars, under }
}

/** File names and their text. */
export const techniquePictures = (): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(steps).map(([name, { title, rows }]) => [
      `step-${name}.svg`,
      timelineSvg(
        Object.entries(rows).map(([name, variation]) => rowOf(name, variation)),
        { title },
      ),
    ]),
  )
