/** Small plans for tests: links that cost nothing or exactly one unit, and costs with everything left out. */
import type { LinkLevel } from '../hardware/index.ts'
import { makeSchedule, type Schedule } from '../schedule/index.ts'
import type { PlanCosts, StageCosts } from './costs.ts'

/** No latency, and bandwidth without end. */
export const freeLinks: readonly LinkLevel[] = [
  { name: 'free', reach: Infinity, latency: 0, bandwidth: Infinity, achieved: 1, ranksPerPort: 1 },
]

/** Nodes of 4 with links of 8 bytes a second, 1 byte a second between them. */
export const unitLinks: readonly LinkLevel[] = [
  { name: 'inside', reach: 4, latency: 0, bandwidth: 8, achieved: 1, ranksPerPort: 1 },
  { name: 'between', reach: Infinity, latency: 0, bandwidth: 1, achieved: 1, ranksPerPort: 1 },
]

export const unitStage: StageCosts = { pieces: 1, seconds: { F: 1, B: 1, W: 1 }, outputBytes: 1 }

/** A pipeline of equal stages without anything else. */
export const pipelineOnly = (schedule: Schedule, stage: StageCosts = unitStage): PlanCosts => ({
  name: schedule.name,
  axes: [{ name: 'pipeline', size: schedule.ranks }],
  pipelineAxis: 'pipeline',
  schedule,
  stages: schedule.rankOfStage.map(() => stage),
  links: freeLinks,
  optimizer: { seconds: Array<number>(schedule.ranks).fill(0) },
})

/** One stage and one microbatch on a group of ranks that run along one axis. */
export const groupOnly = (size: number, stage: Partial<StageCosts>): PlanCosts => ({
  ...pipelineOnly(makeSchedule('gpipe', { ranks: 1, microbatches: 1 })),
  name: 'group',
  axes: [{ name: 'group', size }],
  stages: [{ ...unitStage, ...stage }],
})
