/**
 * The discrete-event simulator. Events are ends of tasks, taken in order of time (of index where times are equal, so runs
 * repeat exactly); each may make others ready. Arithmetic begins when it is ready; a collective when its last part is.
 * Contention: a link serves one message at a time, in the order in which they become ready (at the same moment: in the
 * order of their ranks' programs, so that equal ranks are treated equally), at full bandwidth. In sum over
 * competing messages that takes as long as sharing the link fairly would; a single early message is faster, a late one
 * slower. A collective holds the links of a level for the seconds it spends on that level. A core that ranks share is held
 * in the same way.
 */
import { createHeap } from '../../data/heap.ts'
import type { SimulatedPlan } from './plan.ts'

export interface SimulatedRun {
  readonly plan: SimulatedPlan
  /** When each task was ready, began and ended; NaN for what never happened. */
  readonly ready: Float64Array
  readonly start: Float64Array
  readonly end: Float64Array
  /** Seconds that each link was held. */
  readonly linkBusy: Float64Array
  /** The end of the last task. */
  readonly seconds: number
  /** After a failure, for each rank that waits for ever: its first task that never ended, and since when it is idle. */
  readonly stalled: readonly Stall[]
}

export interface Stall {
  readonly rank: number
  readonly task: number
  readonly since: number
}

export function simulate(plan: SimulatedPlan): SimulatedRun {
  const { tasks, collectives, failure } = plan
  const count = tasks.length
  const nothing = (): Float64Array => new Float64Array(count).fill(NaN)
  const [ready, start, end] = [nothing(), nothing(), nothing()]
  const { waitsFor, firstOf, next } = edges(plan)
  const turns = turnsOf(plan)
  const linkFree = new Float64Array(plan.links.length)
  const linkBusy = new Float64Array(plan.links.length)
  /** When each shared core is free again. */
  const coreFree: number[] = []
  const missing = Int32Array.from(collectives, ({ parts }) => parts)
  const parts: number[][] = collectives.map(() => [])
  // An event is the end of a task, or of all parts of a collective: those are numbered after the tasks.
  const times = new Float64Array(count + collectives.length)
  const events = createHeap<number>((a, b) => {
    const [first, second] = [times[a]!, times[b]!]
    return first < second || (first === second && a < b)
  })

  const hold = (links: readonly number[], from: number, seconds: number): void => {
    for (const link of links) {
      linkFree[link] = from + seconds
      linkBusy[link]! += seconds
    }
  }
  const firstFree = (links: readonly number[], from: number): number =>
    links.reduce((time, link) => Math.max(time, linkFree[link]!), from)
  const expect = (event: number, time: number, isHit: boolean): void => {
    if (isHit && time > failure!.at) return
    times[event] = time
    events.push(event)
  }
  const isHit = (index: number): boolean => failure !== undefined && involves(plan, index, failure.rank)

  /** What became ready at this moment and has no links, or no core, yet. */
  let requests: number[] = []
  const begin = (index: number, now: number): void => {
    const task = tasks[index]!
    ready[index] = now
    if (task.kind === 'compute' && task.core === undefined) {
      start[index] = now
      expect(index, now + task.seconds, isHit(index))
    } else if (task.kind !== 'collective') requests.push(index)
    else {
      parts[task.collective]!.push(index)
      if (--missing[task.collective]! === 0) requests.push(index)
    }
  }
  const grant = (index: number, now: number): void => {
    const task = tasks[index]!
    if (task.kind === 'collective') return grantCollective(task.collective, now)
    if (task.kind === 'compute') {
      const from = Math.max(now, coreFree[task.core!] ?? 0)
      start[index] = from
      coreFree[task.core!] = from + task.seconds
      return expect(index, from + task.seconds, isHit(index))
    }
    const from = firstFree(task.links, now)
    hold(task.links, from, task.busySeconds)
    start[index] = from
    expect(index, from + task.busySeconds + task.latency, isHit(index))
  }
  const grantCollective = (index: number, now: number): void => {
    const { cost, links } = collectives[index]!
    const from = links.reduce((time, some) => firstFree(some, time), now)
    for (const [i, { seconds }] of cost.levels.entries()) hold(links[i]!, from, seconds)
    for (const part of parts[index]!) start[part] = from
    expect(count + index, from + cost.seconds, parts[index]!.some(isHit))
  }
  const finish = (task: number, now: number): void => {
    end[task] = now
    for (let edge = firstOf[task]!; edge < firstOf[task + 1]!; edge++) {
      const other = next[edge]!
      if (--waitsFor[other]! === 0) begin(other, now)
    }
  }

  for (let task = 0; task < count; task++) if (waitsFor[task] === 0) begin(task, 0)
  let now = 0
  for (;;) {
    const event = events.pop()
    const isNow = event !== undefined && times[event] === now
    if (!isNow && requests.length > 0) {
      // All that happens at this moment has happened: links go to those who came now, in the order of their programs.
      if (event !== undefined) events.push(event)
      const granted = requests.toSorted((a, b) => turns[a]! - turns[b]! || a - b)
      requests = []
      for (const task of granted) grant(task, now)
      continue
    }
    if (event === undefined) break
    now = times[event]!
    if (event < count) finish(event, now)
    else for (const part of parts[event - count]!) finish(part, now)
  }
  return { plan, ready, start, end, linkBusy, seconds: now, stalled: stalledRanks(plan, end) }
}

/** The place of each task among its rank's. */
function turnsOf({ tasks, ranks }: SimulatedPlan): Int32Array {
  const seen = new Int32Array(ranks.length)
  return Int32Array.from(tasks, ({ rank }) => seen[rank]!++)
}

/** A message needs both its ends; anything else its own rank. */
function involves({ tasks }: SimulatedPlan, index: number, rank: number): boolean {
  const task = tasks[index]!
  return task.rank === rank || (task.kind === 'send' && task.to === rank)
}

/** What follows each task, as one list with the beginning of each task's part, and how many each waits for. */
function edges({ tasks, lanes, ranks }: SimulatedPlan): {
  readonly waitsFor: Int32Array
  readonly firstOf: Int32Array
  readonly next: Int32Array
} {
  const waitsFor = new Int32Array(tasks.length)
  const before = new Int32Array(tasks.length).fill(-1)
  const lastOnLane = new Int32Array(ranks.length * lanes.length).fill(-1)
  const firstOf = new Int32Array(tasks.length + 1)
  for (const [index, task] of tasks.entries()) {
    if (task.kind !== 'send') {
      const lane = task.rank * lanes.length + (task.kind === 'collective' ? task.lane : 0)
      before[index] = lastOnLane[lane]!
      lastOnLane[lane] = index
    }
    waitsFor[index] = task.after.length + (before[index]! >= 0 ? 1 : 0)
    for (const needed of task.after) firstOf[needed + 1]!++
    if (before[index]! >= 0) firstOf[before[index]! + 1]!++
  }
  for (let i = 0; i < tasks.length; i++) firstOf[i + 1]! += firstOf[i]!
  const next = new Int32Array(firstOf[tasks.length]!)
  const filled = firstOf.slice()
  for (const [index, { after }] of tasks.entries()) {
    for (const needed of after) next[filled[needed]!++] = index
    if (before[index]! >= 0) next[filled[before[index]!]!++] = index
  }
  return { waitsFor, firstOf, next }
}

function stalledRanks({ tasks, ranks }: SimulatedPlan, end: Float64Array): Stall[] {
  const first = ranks.map(() => -1)
  const since = ranks.map(() => 0)
  for (let task = tasks.length - 1; task >= 0; task--) {
    const { rank } = tasks[task]!
    if (Number.isNaN(end[task]!)) first[rank] = task
    else since[rank] = Math.max(since[rank]!, end[task]!)
  }
  return first.flatMap((task, rank) => (task < 0 ? [] : [{ rank, task, since: since[rank]! }]))
}
