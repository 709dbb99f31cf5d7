/**
 * DualPipe-V against its published bubble, (p / 2 - 1)(F&B + B - 3W) for p stages on p / 2 ranks: there a forward and a
 * backward pass of different stages run together, as one action of F&B seconds whose results come at its end. So this
 * test joins them in the order that the generator gives, and finds the longest path itself.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { dualPipeV } from './dualpipe-v.ts'
import { actionName, dependencies, type Action, type Schedule } from './schedule.ts'

/** Actions that run together: a forward pass and a whole backward pass of the rank's other stage that follows it. */
function joined(schedule: Schedule, rank: number): Action[][] {
  const actions = schedule.actions[rank]!
  const blocks: Action[][] = []
  // The last rank has nothing to hide its first forward pass of the steady state behind: it feeds its own other stage.
  let skipped = rank < schedule.ranks - 1
  for (let i = 0; i < actions.length; i++) {
    const [a, b, c] = [actions[i]!, actions[i + 1], actions[i + 2]]
    const isPair =
      a.kind === 'F' && b?.kind === 'B' && c?.kind === 'W' && b.stage !== a.stage && c.stage === b.stage
    if (isPair && skipped) blocks.push(actions.slice(i, i + 3))
    else blocks.push([a])
    if (isPair && skipped) i += 2
    if (isPair) skipped = true
  }
  return blocks
}

/** How long each rank is idle. */
function idle(schedule: Schedule, part: number, together: number): number[] {
  const blocks = schedule.actions.map((_, rank) => joined(schedule, rank))
  const ends = new Map<string, number>()
  const [next, free, busy] = [blocks.map(() => 0), blocks.map(() => 0), blocks.map(() => 0)]
  const advance = (rank: number): boolean => {
    const block = blocks[rank]![next[rank]!]
    if (!block) return false
    const own = new Set(block.map((action) => actionName(action)))
    const needed = block
      .flatMap((action) => dependencies(schedule, action))
      .map((action) => actionName(action))
    const before = needed.filter((name) => !own.has(name)).map((name) => ends.get(name))
    if (before.includes(undefined)) return false
    const seconds = block.length > 1 ? together : part
    free[rank] = seconds + before.reduce<number>((time, end) => Math.max(time, end!), free[rank]!)
    busy[rank]! += seconds
    for (const name of own) ends.set(name, free[rank]!)
    next[rank]! += 1
    return true
  }
  let moved = true
  while (moved) {
    moved = false
    for (const rank of blocks.keys()) while (advance(rank)) moved = true
  }
  assert.equal(ends.size, 3 * schedule.stages * schedule.microbatches)
  return busy.map((seconds) => Math.max(...free) - seconds)
}

test('with pairs that run together the bubble is the published one, for equal parts', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 8 }),
      fc.integer({ min: 0, max: 12 }),
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 0, max: 9 }),
      (ranks, extra, part, hidden) => {
        // Together at best as long as the backward pass alone, at worst as both.
        const together = 3 * part - Math.min(hidden, part)
        const schedule = dualPipeV({ ranks, microbatches: 2 * ranks + extra })
        const published = (ranks - 1) * (together + 2 * part - 3 * part)
        assert.equal(Math.max(...idle(schedule, part, together)), published)
      },
    ),
    { numRuns: 60 },
  )
})
