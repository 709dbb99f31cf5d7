/** The simulator gives the closed forms of the literature exactly, through the builder; and does what is injected. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { exchangeBytes } from '../expert-exchange.ts'
import { makeSchedule, schedules, timeline } from '../schedule/index.ts'
import {
  buildPlan,
  shardedCollectives,
  simulate,
  simulatedTrace,
  stateBytesPerParameter,
  summarize,
  type Injected,
  type PieceCollective,
  type PlanCosts,
  type ShardLevel,
  type StepSummary,
} from './index.ts'
import { freeLinks, groupOnly, pipelineOnly, unitLinks, unitStage } from './testing.ts'

const step = (costs: PlanCosts): StepSummary => summarize(simulate(buildPlan(costs)))
const near = (a: number, b: number): void =>
  assert.ok(Math.abs(a - b) <= 1e-9 * Math.abs(b), `${a} is not ${b}`)
const bytesOf = (summary: StepSummary): number =>
  summary.levels.reduce((sum, { bytesOfBusiestRank }) => sum + bytesOfBusiestRank, 0)
const p = 4

// Pipelines.

test('free messages: every schedule takes as long as its timeline, and the bubble is the closed form', () => {
  const times = { F: 2, B: 3, W: 2 }
  const m = 12
  for (const name of Object.keys(schedules)) {
    const schedule = makeSchedule(name, { ranks: p, microbatches: m, stagesPerRank: 3 })
    const { seconds } = step(pipelineOnly(schedule, { ...unitStage, seconds: times }))
    assert.equal(seconds, timeline(schedule, times).end)
  }
  const bubble = (name: string, v = 1): number =>
    step(pipelineOnly(makeSchedule(name, { ranks: p, microbatches: m, stagesPerRank: v }))).bubbleShare
  near(bubble('gpipe'), (p - 1) / (m + p - 1))
  near(bubble('1f1b'), (p - 1) / (m + p - 1))
  near(bubble('interleaved', 3), (p - 1) / (3 * m + p - 1))
  // Against the ideal: ZB-H1 (p - 1)(F + B - W) / m (F + B + W).
  near(bubble('zb-h1'), (p - 1) / (3 * m + p - 1))
  // ZB-H2 idles within no rank: only before a rank's first action and after its last, p - 1 in all.
  near(bubble('zb-h2'), (p - 1) / (3 * m + p - 1))
  // DualPipe-V: p - 1 of the half-sized stages, of which a rank has two.
  near(bubble('dualpipe-v'), (p - 1) / (6 * m + p - 1))
})

test('messages overlap arithmetic where they can, and cost a rank its time where they block', () => {
  const schedule = makeSchedule('1f1b', { ranks: 2, microbatches: 4 })
  const costs = {
    ...pipelineOnly(schedule, { ...unitStage, outputBytes: 0.5 }),
    links: [{ ...freeLinks[0]!, bandwidth: 1 }],
  }
  const free = timeline(schedule, { F: 1, B: 1, W: 1 }).end
  const [overlapped, blocking] = [step(costs), step({ ...costs, messages: 'blocking' })]
  // Half a second each way is what the first and the last message cannot hide.
  assert.ok(overlapped.seconds >= free + 1)
  assert.ok(blocking.seconds > overlapped.seconds)
  // Two ranks that wait for each other: the sum of all messages is the most it can cost.
  assert.ok(blocking.seconds <= free + 8 * 0.5)
  assert.deepEqual([bytesOf(overlapped), bytesOf(blocking)], [2, 2])
})

test('blocking messages never deadlock, in any schedule', () => {
  for (const name of Object.keys(schedules)) {
    const schedule = makeSchedule(name, { ranks: p, microbatches: 8, stagesPerRank: 2 })
    const plan = buildPlan({ ...pipelineOnly(schedule), links: unitLinks, messages: 'blocking' })
    const run = simulate(plan)
    assert.ok(
      run.end.every((end) => !Number.isNaN(end)),
      name,
    )
    assert.deepEqual(run.stalled, [])
  }
})

// Groups.

const collective = (
  kind: PieceCollective['kind'],
  bytes: number,
  when: PieceCollective['when'] = 'after',
): PieceCollective => ({
  kind,
  bytes,
  axes: ['group'],
  when,
})

test('data parallel: a ring sends 2 (d - 1) / d of the gradients; levels 1 and 2 the same, level 3 half as much again', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 24 }), fc.integer({ min: 1, max: 6 }), (d, pieces) => {
      const value = 5040
      const bytes = { pieceParameters: value / pieces, pieceGradients: value / pieces, rankParameters: value }
      for (const level of [0, 1, 2, 3] as ShardLevel[]) {
        const sharded = shardedCollectives(level, ['group'], bytes)
        const costs = groupOnly(d, { pieces, collectives: sharded.pieces })
        const sent = bytesOf(step({ ...costs, optimizer: { seconds: [0], after: sharded.after } }))
        near(sent, ((level === 3 ? 3 : 2) * (d - 1) * value) / d)
      }
    }),
    { numRuns: 30 },
  )
})

test('data parallel over microbatches: levels 0 and 1 send once a step, 2 and 3 with each', () => {
  const value = 1200
  const bytes = { pieceParameters: value, pieceGradients: value, rankParameters: value }
  const sent = ([0, 1, 2, 3] as ShardLevel[]).map((level) => {
    const sharded = shardedCollectives(level, ['group'], bytes)
    const costs = groupOnly(4, { collectives: sharded.pieces })
    const schedule = makeSchedule('gpipe', { ranks: 1, microbatches: 5 })
    return bytesOf(step({ ...costs, schedule, optimizer: { seconds: [0], after: sharded.after } }))
  })
  const once = (3 / 4) * value
  assert.deepEqual(sent, [2 * once, 2 * once, (5 + 1) * once, 3 * 5 * once])
})

test('bytes of state per parameter: 16, 4 + 12 / d, 2 + 14 / d, 16 / d', () => {
  for (const d of [1, 2, 8, 64]) {
    const held = ([0, 1, 2, 3] as ShardLevel[]).map((level) => stateBytesPerParameter(level, d))
    assert.deepEqual(held, [16, 4 + 12 / d, 2 + 14 / d, 16 / d])
  }
})

test('tensor parallel: two all-reduces a layer in each direction, of 2 (t - 1) / t b s h e', () => {
  const [t, layers, activation] = [4, 3, 2 * 16 * 32 * 2]
  const both = [collective('allReduce', activation), collective('allReduce', activation)]
  const summary = step(groupOnly(t, { pieces: layers, collectives: { F: both, B: both } }))
  assert.equal(bytesOf(summary), layers * 4 * ((2 * (t - 1)) / t) * activation)
})

test('mixture of experts: an all-to-all sends the rows routed to other ranks, times h e', () => {
  const [ranks, rows, h, e] = [8, 64, 16, 2]
  const routed = collective('allToAll', rows * h * e)
  const summary = step(groupOnly(ranks, { collectives: { F: [routed, routed], B: [routed, routed] } }))
  // With balanced routing (ranks - 1) / ranks of the rows go elsewhere: out and back, forward and backward.
  assert.equal(bytesOf(summary), 4 * ((rows * (ranks - 1)) / ranks) * h * e)
})

test('mixture of experts: the simulator sends what is counted from choices that are even', () => {
  const [ranks, tokens, topK, experts, width, e] = [4, 64, 2, 8, 16, 2]
  const choices = Array.from({ length: tokens * topK }, (_, i) => i)
  const even = {
    tokenRanks: choices.map((i) => Math.floor((Math.floor(i / topK) * ranks) / tokens)),
    experts: choices.map((i) => i % experts),
    expertRanks: Array.from({ length: experts }, (_, i) => Math.floor((i * ranks) / experts)),
  }
  const own = collective('allToAll', ((tokens * topK) / ranks) * width * e)
  const { levels } = step(groupOnly(ranks, { collectives: { F: [own, own], B: [own, own] } }))
  const sent = levels.reduce((sum, { totalBytes }) => sum + totalBytes, 0)
  assert.equal(sent, 4 * exchangeBytes(even, ranks, width, e))
})

test('context parallel: a ring sends c - 1 blocks of keys and values', () => {
  const [c, block] = [4, 96]
  const ring = Array.from({ length: c - 1 }, () => collective('shift', block, 'prefetch'))
  assert.equal(bytesOf(step(groupOnly(c, { collectives: { F: ring } }))), (c - 1) * block)
})

test('what is hidden behind arithmetic costs nothing, what stands between costs itself', () => {
  // Over four ranks, eight bytes at eight a second: 0.75 s for a gather, against 1 s of arithmetic a piece.
  const costs = (when: PieceCollective['when']): PlanCosts => ({
    ...groupOnly(4, {
      pieces: 4,
      seconds: { F: 4, B: 0, W: 0 },
      collectives: { F: [collective('allGather', 8, when)] },
    }),
    links: unitLinks,
  })
  const of = (when: PieceCollective['when']): StepSummary => step(costs(when))
  assert.equal(of('before').seconds, 4 + 4 * 0.75)
  assert.equal(of('before').exposedShare, 3 / 7)
  // The first two have nothing before them to hide behind: they begin at once, one after the other.
  assert.equal(of('prefetch').seconds, 4 + 0.75)
  assert.equal(of('drain').seconds, 4 + 0.75)
  assert.equal(of('after').seconds, 4 + 4 * 0.75)
  for (const when of ['before', 'prefetch', 'drain', 'after'] as const) {
    const { ranks } = of(when)
    assert.equal(ranks[0]!.communicationSeconds, 3)
    assert.equal(ranks[0]!.computeSeconds, 4)
  }
})

test('collectives on one port follow each other', () => {
  const over = (axis: string): PieceCollective => ({
    kind: 'allGather',
    bytes: 8,
    axes: [axis],
    when: 'drain',
  })
  const costs: PlanCosts = {
    ...groupOnly(1, { collectives: { W: [over('a'), over('b')] }, seconds: { F: 0, B: 0, W: 0 } }),
    axes: [
      { name: 'a', size: 2 },
      { name: 'b', size: 2 },
    ],
    links: unitLinks,
  }
  // Two communicators, so nothing but the port keeps them apart: half of eight bytes each, at eight a second.
  assert.equal(step(costs).seconds, 0.5 + 0.5)
  const apart: PlanCosts = { ...costs, links: [{ ...unitLinks[0]!, reach: 2 }, unitLinks[1]!] }
  // One runs inside nodes, the other between them: they overlap.
  assert.equal(step(apart).seconds, 4)
})

test('ranks on one port share it', () => {
  const costs = groupOnly(8, {
    seconds: { F: 0, B: 0, W: 0 },
    collectives: { W: [collective('allReduce', 64)] },
  })
  const seconds = (ranksPerPort: number): number =>
    step({ ...costs, links: [unitLinks[0]!, { ...unitLinks[1]!, ranksPerPort }] }).seconds
  // Inside the node 2 * 3 / 4 * 64 at 8, between the nodes 2 * 1 / 2 * 16 at 1 for each rank.
  assert.equal(seconds(1), 12 + 16)
  assert.equal(seconds(4), 12 + 4 * 16)
})

// A whole plan, for what follows.

const whole = (injected: Injected = {}, everyRank = false): PlanCosts => {
  const schedule = makeSchedule('1f1b', { ranks: 2, microbatches: 4 })
  const tensor: PieceCollective = { kind: 'allReduce', bytes: 16, axes: ['tensor'], when: 'after' }
  const data: PieceCollective = {
    kind: 'reduceScatter',
    bytes: 8,
    axes: ['data'],
    when: 'drain',
    only: 'last',
  }
  return {
    ...pipelineOnly(schedule),
    axes: [
      { name: 'data', size: 4 },
      { name: 'pipeline', size: 2 },
      { name: 'tensor', size: 4 },
    ],
    stages: schedule.rankOfStage.map(() => ({
      pieces: 3,
      seconds: { F: 6, B: 6, W: 6 },
      outputBytes: 1,
      collectives: { F: [tensor], B: [tensor], W: [data] },
    })),
    links: unitLinks,
    optimizer: { seconds: [1, 2], after: [{ kind: 'allGather', bytes: 8, axes: ['data'] }] },
    work: { modelFlops: 32 * 60, peakFlops: 2 },
    injected,
    everyRank,
  }
}

test('ranks that do the same are simulated once, with the result of simulating all', () => {
  const cases: Injected[] = [
    {},
    { slowRanks: [{ rank: 13, factor: 1.5 }] },
    { slowLinks: [{ rank: 6, level: 'between', factor: 3 }] },
    {
      slowRanks: [
        { rank: 3, factor: 2 },
        { rank: 30, factor: 1.25 },
      ],
    },
  ]
  for (const injected of cases) {
    const [few, all] = [buildPlan(whole(injected)), buildPlan(whole(injected, true))]
    assert.equal(all.ranks.length, 32)
    assert.ok(few.ranks.length < 32)
    assert.equal(
      few.ranks.reduce((sum, { count }) => sum + count, 0),
      32,
    )
    const [a, b] = [summarize(simulate(few)), summarize(simulate(all))]
    near(a.seconds, b.seconds)
    near(a.exposedShare, b.exposedShare)
    near(a.bubbleShare, b.bubbleShare)
    near(a.utilisation!, b.utilisation!)
    for (const [level, { totalBytes }] of a.levels.entries()) near(totalBytes, b.levels[level]!.totalBytes)
  }
  assert.equal(buildPlan(whole()).ranks.length, 2)
  assert.equal(buildPlan(whole(cases[1])).ranks.length, 8)
})

test('the same on random meshes, schedules, messages and injections', () => {
  const power = fc.constantFrom(1, 2, 4)
  const arbitrary = fc.record({
    order: fc.shuffledSubarray(['data', 'pipeline', 'tensor'], { minLength: 3 }),
    sizes: fc.record({ data: power, pipeline: power, tensor: power }),
    name: fc.constantFrom(...Object.keys(schedules)),
    messages: fc.constantFrom('overlapped' as const, 'blocking' as const),
    slow: fc.array(fc.record({ rank: fc.nat(), factor: fc.integer({ min: 1, max: 4 }) }), { maxLength: 2 }),
    level: fc.constantFrom('inside', 'between'),
  })
  fc.assert(
    fc.property(arbitrary, ({ order, sizes, name, messages, slow, level }) => {
      const base = whole()
      const schedule = makeSchedule(name, { ranks: sizes.pipeline, microbatches: 8 })
      const total = sizes.data * sizes.pipeline * sizes.tensor
      const slowRanks = slow.map(({ rank, factor }) => ({ rank: rank % total, factor }))
      const costs: PlanCosts = {
        ...base,
        axes: order.map((axis) => ({ name: axis, size: sizes[axis as keyof typeof sizes] })),
        schedule,
        stages: schedule.rankOfStage.map(() => base.stages[0]!),
        optimizer: { ...base.optimizer, seconds: Array<number>(sizes.pipeline).fill(1) },
        messages,
        injected: {
          slowRanks,
          slowLinks: slowRanks.slice(1).map(({ rank, factor }) => ({ rank, factor, level })),
        },
      }
      const [few, all] = [step(costs), step({ ...costs, everyRank: true })]
      near(few.seconds, all.seconds)
      near(few.exposedShare + 1, all.exposedShare + 1)
      near(few.bubbleShare + 1, all.bubbleShare + 1)
    }),
    { numRuns: 60 },
  )
})

test('arithmetic, exposed communication and bubble make up the step; utilisation is work over peak', () => {
  const summary = step(whole())
  for (const { computeSeconds, exposedSeconds, bubbleSeconds } of summary.ranks) {
    near(computeSeconds + exposedSeconds + bubbleSeconds, summary.seconds)
    assert.ok(exposedSeconds > 0 && bubbleSeconds > 0)
  }
  near(summary.utilisation!, (32 * 60) / (summary.seconds * 32 * 2))
})

test('a straggler holds up everybody', () => {
  const plan = pipelineOnly(makeSchedule('1f1b', { ranks: p, microbatches: 8 }))
  const slow = step({ ...plan, injected: { slowRanks: [{ rank: 2, factor: 2 }] } })
  // Its 8 microbatches take 6 s each; 2 s come before the first, 1 s it waits for the first gradient, 4 s come after.
  assert.equal(slow.seconds, 8 * 6 + 2 + 1 + 4)
  const group = groupOnly(64, { collectives: { W: [collective('allReduce', 0)] } })
  assert.equal(step({ ...group, injected: { slowRanks: [{ rank: 17, factor: 3 }] } }).seconds, 9)
})

test('a slow link holds up those who use it', () => {
  const group = groupOnly(8, { collectives: { W: [collective('allReduce', 64)] } })
  const slow = (level: string): number =>
    step({ ...group, links: unitLinks, injected: { slowLinks: [{ rank: 3, level, factor: 2 }] } }).seconds
  assert.equal(slow('inside'), 3 + 2 * 12 + 16)
  assert.equal(slow('between'), 3 + 12 + 2 * 16)
})

test('a rank that dies stalls all ranks that need it, each where it waits', () => {
  const plan = buildPlan({
    ...pipelineOnly(makeSchedule('1f1b', { ranks: p, microbatches: 4 })),
    injected: { failure: { rank: 1, at: 5.5 } },
  })
  const run = simulate(plan)
  assert.deepEqual(
    run.stalled.map(({ rank, since }) => [rank, since]),
    // By hand: rank 1 dies waiting; those behind it first use up what it had sent.
    [
      [0, 4],
      [1, 4],
      [2, 11],
      [3, 12],
    ],
  )
  const waiting = run.stalled.map(({ task }) => plan.tasks[task]!.label)
  assert.deepEqual(waiting, ['B0', 'B0', 'F3', 'F3'])
  assert.ok(run.end.every((end, task) => Number.isNaN(end) || end <= 5.5 || plan.tasks[task]!.rank !== 1))
  const survivor = simulate(
    buildPlan({
      ...pipelineOnly(makeSchedule('1f1b', { ranks: p, microbatches: 4 })),
      injected: { failure: { rank: 1, at: 1000 } },
    }),
  )
  assert.deepEqual(survivor.stalled, [])
})

test('the same plan gives the same run', () => {
  const [a, b] = [simulate(buildPlan(whole())), simulate(buildPlan(whole()))]
  assert.deepEqual(a.start, b.start)
  assert.deepEqual(a.end, b.end)
})

test('a trace has an event for each task, within the step', () => {
  const run = simulate(buildPlan(whole()))
  const { traceEvents } = simulatedTrace(run) as { traceEvents: { ph: string; ts: number; dur: number }[] }
  const events = traceEvents.filter(({ ph }) => ph === 'X')
  assert.equal(events.length, run.plan.tasks.length)
  assert.ok(events.every(({ ts, dur }) => ts >= 0 && dur >= 0 && ts + dur <= run.seconds * 1e6 * (1 + 1e-12)))
})
