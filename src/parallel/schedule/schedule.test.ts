/**
 * Every generator makes right schedules in every size, with exactly the bubbles and activations of the literature; and
 * the judge finds what is wrong with wrong ones.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../../errors.ts'
import {
  gapsWithin,
  idleTimes,
  inspectPrograms,
  inspectSchedule,
  isMessage,
  makeSchedule,
  rankProgram,
  rankPrograms,
  schedules,
  timeline,
  type Action,
  type ActionTimes,
  type Instruction,
  type Schedule,
  type ScheduleName,
} from './index.ts'

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i)
const times = fc.record({
  F: fc.integer({ min: 1, max: 9 }),
  B: fc.integer({ min: 1, max: 9 }),
  W: fc.integer({ min: 1, max: 9 }),
})
const size = fc.record({
  ranks: fc.integer({ min: 1, max: 9 }),
  microbatches: fc.integer({ min: 1, max: 24 }),
})
const property = <T>(arbitrary: fc.Arbitrary<T>, check: (value: T) => void): void =>
  fc.assert(fc.property(arbitrary, check), { numRuns: 100 })
/** The share of a step that ranks spend idle; all of them equally. */
const bubble = (schedule: Schedule, t: ActionTimes): number => {
  const line = timeline(schedule, t)
  const idle = new Set(idleTimes(line))
  assert.equal(idle.size, 1)
  return [...idle][0]! / line.end
}
const near = (a: number, b: number): void => assert.ok(Math.abs(a - b) < 1e-12, `${a} is not ${b}`)

const anySchedule = fc
  .record({
    name: fc.constantFrom(...(Object.keys(schedules) as ScheduleName[])),
    ranks: fc.integer({ min: 1, max: 7 }),
    microbatches: fc.integer({ min: 1, max: 20 }),
    stagesPerRank: fc.integer({ min: 1, max: 4 }),
  })
  .map(({ name, ranks, microbatches, stagesPerRank }) => {
    const enough = { interleaved: microbatches * ranks, 'dualpipe-v': microbatches + 2 * ranks }
    return makeSchedule(name, {
      ranks,
      microbatches: name in enough ? enough[name as keyof typeof enough] : microbatches,
      stagesPerRank,
    })
  })

test('every generator, every size: nothing wrong, and gradients in ascending microbatches', () => {
  for (const name of Object.keys(schedules)) {
    for (const ranks of [1, 2, 3, 4, 8]) {
      const { problems, unorderedStages } = inspectSchedule(
        makeSchedule(name, { ranks, microbatches: 2 * ranks, stagesPerRank: 3 }),
      )
      assert.deepEqual(
        { name, ranks, problems, unorderedStages },
        { name, ranks, problems: [], unorderedStages: [] },
      )
    }
  }
  property(anySchedule, (schedule) => {
    const { problems, unorderedStages } = inspectSchedule(schedule)
    assert.deepEqual({ problems, unorderedStages }, { problems: [], unorderedStages: [] })
  })
})

test('GPipe and 1F1B: bubble (p - 1) / (m + p - 1)', () => {
  property(fc.tuple(size, times), ([{ ranks: p, microbatches: m }, t]) => {
    for (const name of ['gpipe', '1f1b']) {
      const schedule = makeSchedule(name, { ranks: p, microbatches: m })
      near(bubble(schedule, t), (p - 1) / (m + p - 1))
      assert.deepEqual(idleTimes(timeline(schedule, t)), Array(p).fill((p - 1) * (t.F + t.B + t.W)))
    }
  })
})

test('activations: GPipe keeps m, 1F1B p - i at stage i', () => {
  property(size, ({ ranks: p, microbatches: m }) => {
    const kept = (name: string) =>
      inspectSchedule(makeSchedule(name, { ranks: p, microbatches: m })).activations
    assert.deepEqual(kept('gpipe'), Array(p).fill(m))
    assert.deepEqual(
      kept('1f1b'),
      range(p).map((i) => Math.min(m, p - i)),
    )
  })
})

test('interleaved: bubble to ideal (p - 1) / (v m)', () => {
  property(
    fc.record({
      p: fc.integer({ min: 1, max: 6 }),
      groups: fc.integer({ min: 1, max: 4 }),
      v: fc.integer({ min: 1, max: 5 }),
      t: times,
    }),
    ({ p, groups, v, t }) => {
      const m = p * groups
      const schedule = makeSchedule('interleaved', { ranks: p, microbatches: m, stagesPerRank: v })
      const ideal = v * m * (t.F + t.B + t.W)
      for (const idle of idleTimes(timeline(schedule, t))) near(idle / ideal, (p - 1) / (v * m))
    },
  )
})

test('interleaved keeps as many activations as the warm-up of Megatron-LM takes in, and one more', () => {
  for (const [p, v, groups] of [
    [4, 2, 3],
    [3, 3, 4],
    [8, 4, 2],
  ] as const) {
    const { activations } = inspectSchedule(
      makeSchedule('interleaved', { ranks: p, microbatches: groups * p, stagesPerRank: v }),
    )
    // Warm-up of 2 (p - 1 - i) + (v - 1) p forward passes, and one more before each backward pass.
    assert.deepEqual(
      activations,
      range(p).map((i) => Math.min(groups * p * v, 2 * (p - 1 - i) + (v - 1) * p + 1)),
    )
  }
})

test('ZB-H1: idle (p - 1)(F + B - W), a third of 1F1B in equal parts, at its memory', () => {
  property(
    fc.record({ p: fc.integer({ min: 1, max: 8 }), extra: fc.integer({ min: 0, max: 20 }), t: times }),
    ({ p, extra, t }) => {
      const m = p + extra
      const schedule = makeSchedule('zb-h1', { ranks: p, microbatches: m })
      assert.equal(Math.max(...inspectSchedule(schedule).activations), p)
      // In DeepSeek's letters, B the whole backward pass: F + B - 2W. It holds while W is the smallest part.
      const w = Math.min(t.F, t.B, t.W)
      const part = { ...t, W: w }
      assert.deepEqual(idleTimes(timeline(schedule, part)), Array(p).fill((p - 1) * (t.F + t.B - w)))
      const [unit, base] = [schedule, makeSchedule('1f1b', { ranks: p, microbatches: m })].map(
        (s) => idleTimes(timeline(s, { F: t.F, B: t.F, W: t.F }))[0]!,
      )
      assert.equal(3 * unit!, base)
    },
  )
})

test('ZB-H2: no bubble inside a rank, 2p - 1 activations', () => {
  property(
    fc.record({ p: fc.integer({ min: 1, max: 8 }), extra: fc.integer({ min: 0, max: 20 }) }),
    ({ p, extra }) => {
      const schedule = makeSchedule('zb-h2', { ranks: p, microbatches: 2 * p - 1 + extra })
      assert.deepEqual(gapsWithin(timeline(schedule, { F: 1, B: 1, W: 1 })), Array(p).fill(0))
      assert.equal(Math.max(...inspectSchedule(schedule).activations), 2 * p - 1)
    },
  )
})

test('DualPipe-V: idle p - 1 of the half-sized stages in equal parts, 2p + 1 activations of half size', () => {
  property(
    fc.record({ p: fc.integer({ min: 2, max: 8 }), extra: fc.integer({ min: 0, max: 20 }) }),
    ({ p, extra }) => {
      const schedule = makeSchedule('dualpipe-v', { ranks: p, microbatches: 2 * p + extra })
      assert.deepEqual(idleTimes(timeline(schedule, { F: 1, B: 1, W: 1 })), Array(p).fill(p - 1))
      assert.equal(Math.max(...inspectSchedule(schedule).activations), 2 * p + 1)
    },
  )
})

test('no schedule is faster than its work and its first and last way through the pipeline', () => {
  property(fc.tuple(anySchedule, times), ([schedule, t]) => {
    const { end, ranks } = timeline(schedule, t)
    const way = schedule.stages * (t.F + t.B) + t.W
    assert.ok(end >= way, `${end} < ${way}`)
    for (const actions of ranks) {
      for (const [i, action] of actions.entries()) assert.ok(i === 0 || action.start >= actions[i - 1]!.end)
    }
  })
})

test('rank programs hold the actions of the schedule, and each message on both sides', () => {
  property(anySchedule, (schedule) => {
    const programs = rankPrograms(schedule)
    for (const [rank, program] of programs.entries()) {
      assert.deepEqual(
        program.filter((i) => !isMessage(i)),
        schedule.actions[rank],
      )
    }
    const messages = programs.flatMap((program) => program.filter(isMessage))
    const crossings = schedule.rankOfStage.filter(
      (rank, i) => i > 0 && rank !== schedule.rankOfStage[i - 1],
    ).length
    const expected = 2 * crossings * schedule.microbatches
    assert.equal(messages.filter(({ kind }) => kind === 'send').length, expected)
    assert.equal(messages.filter(({ kind }) => kind === 'receive').length, expected)
  })
})

test('a rank program reads as one would write it by hand', () => {
  const text = (i: Instruction): string =>
    isMessage(i) ? `${i.kind} ${i.direction} ${i.microbatch} rank ${i.peer}` : `${i.kind}${i.microbatch}`
  assert.deepEqual(rankProgram(makeSchedule('1f1b', { ranks: 2, microbatches: 2 }), 0).map(text), [
    'F0',
    'send forward 0 rank 1',
    'F1',
    'send forward 1 rank 1',
    'receive backward 0 rank 1',
    'B0',
    'receive backward 1 rank 1',
    'B1',
  ])
})

test('received messages that wait to be read, by hand', () => {
  assert.deepEqual(inspectSchedule(makeSchedule('gpipe', { ranks: 1, microbatches: 3 })).inputs, [0])
  // Rank 0 gets a gradient every two steps and takes two steps for it; rank 1 reads what it gets at once.
  assert.deepEqual(inspectSchedule(makeSchedule('gpipe', { ranks: 2, microbatches: 3 })).inputs, [1, 1])
  // Forward passes come in a row while rank 1 alternates: F1 and F2 wait while it is at F0 and B0.
  assert.deepEqual(inspectSchedule(makeSchedule('zb-h2', { ranks: 2, microbatches: 4 })).inputs, [1, 2])
  property(anySchedule, (schedule) => {
    const { inputs } = inspectSchedule(schedule)
    for (const [rank, count] of inputs.entries()) {
      assert.equal(count === 0, schedule.ranks === 1, `rank ${rank} has ${count}`)
      assert.ok(count <= (2 * schedule.stages * schedule.microbatches) / schedule.ranks)
    }
  })
})

// What the judge must find.

const changed = (schedule: Schedule, rank: number, change: (actions: Action[]) => Action[]): Schedule => ({
  ...schedule,
  actions: schedule.actions.map((actions, i) => (i === rank ? change([...actions]) : actions)),
})
const base = makeSchedule('1f1b', { ranks: 3, microbatches: 4 })
const problemsOf = (schedule: Schedule): string => inspectSchedule(schedule).problems.join('\n')

test('the judge finds missing, double, unknown and misplaced actions', () => {
  assert.match(problemsOf(changed(base, 1, (a) => a.slice(0, -1))), /B3\.1 is missing/)
  assert.match(problemsOf(changed(base, 1, (a) => [...a, a[0]!])), /F0\.1 comes twice/)
  assert.match(
    problemsOf(changed(base, 1, (a) => [...a, { kind: 'W', stage: 1, microbatch: 0 }])),
    /W0\.1 on rank 1 is no/,
  )
  assert.match(
    problemsOf(changed(base, 1, (a) => [...a, { kind: 'F', stage: 1, microbatch: 4 }])),
    /F4\.1 on rank 1 is no/,
  )
  assert.match(problemsOf({ ...base, rankOfStage: [0, 2, 1] }), /F0\.1 is on rank 1, not its stage's/)
})

test('the judge finds circles', () => {
  assert.match(problemsOf(changed(base, 2, (a) => a.toReversed())), /rank 2 waits for ever to begin B3\.2/)
})

test('the judge finds gradients out of order', () => {
  const schedule = makeSchedule('gpipe', { ranks: 2, microbatches: 3 })
  const backwardsLast: Schedule = {
    ...schedule,
    actions: schedule.actions.map((actions) => actions.slice(0, 3).concat(actions.slice(3).toReversed())),
  }
  assert.deepEqual(inspectSchedule(backwardsLast).problems, [])
  assert.deepEqual(inspectSchedule(backwardsLast).unorderedStages, [0, 1])
})

test('the judge of programs finds the deadlock of sends that block in 1F1B, and messages that cross', () => {
  const schedule = makeSchedule('1f1b', { ranks: 2, microbatches: 4 })
  // Every rank sends what it made at once and receives at the last moment: right only while sends return at once.
  const naive = schedule.actions.map((actions, rank): Instruction[] =>
    actions.flatMap((action): Instruction[] => {
      const { kind, stage, microbatch } = action
      const message = {
        stage,
        microbatch,
        peer: 1 - rank,
        direction: kind === 'F' ? 'forward' : 'backward',
      } as const
      const hasInput = kind === 'F' ? rank === 1 : rank === 0
      return hasInput ? [{ kind: 'receive', ...message }, action] : [action, { kind: 'send', ...message }]
    }),
  )
  assert.deepEqual(inspectPrograms(schedule, naive, 'buffered'), [])
  assert.match(
    inspectPrograms(schedule, naive, 'blocking').join('\n'),
    /rank 0 waits for ever in send of F1\.0/,
  )
  const programs = rankPrograms(schedule).map((program) => program.slice())
  const sends = programs[0]!.flatMap((i, at) => (i.kind === 'send' ? [at] : []))
  const [a, b] = [programs[0]![sends[0]!]!, programs[0]![sends[1]!]!]
  programs[0]!.splice(sends[1]!, 1, a)
  programs[0]!.splice(sends[0]!, 1, b)
  assert.match(
    inspectPrograms(schedule, programs, 'buffered').join('\n'),
    /receives F1\.0 where it expects F0\.0/,
  )
  assert.match(
    inspectPrograms(
      schedule,
      programs.map((p) => p.filter((i) => i.kind !== 'receive')),
      'buffered',
    ).join('\n'),
    /begins F0\.1 without F0\.0/,
  )
})

test('what cannot be is said', () => {
  const usage = (message: RegExp) => (error: unknown) =>
    error instanceof UserError && message.test(error.message)
  assert.throws(() => makeSchedule('1f1', { ranks: 2, microbatches: 2 }), usage(/did you mean 1f1b/))
  assert.throws(() => makeSchedule('gpipe', { ranks: 0, microbatches: 2 }), usage(/ranks: got 0/))
  assert.throws(
    () => makeSchedule('interleaved', { ranks: 4, microbatches: 6 }),
    usage(/take 8 microbatches/),
  )
  assert.throws(() => makeSchedule('dualpipe-v', { ranks: 4, microbatches: 6 }), usage(/at least 8/))
})
