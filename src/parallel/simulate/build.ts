/**
 * From what a plan costs to the tasks of a simulation: finds which ranks do the same, walks the program of one of each
 * (rank-tasks.ts), then joins up the messages between them.
 */
import { InternalError } from '../../errors.ts'
import { rankPrograms } from '../schedule/index.ts'
import type { PlanCosts } from './costs.ts'
import { createGroups } from './groups.ts'
import { sendTask } from './messages.ts'
import type { SimulatedPlan } from './plan.ts'
import { createPorts } from './ports.ts'
import { addRank, type Build } from './rank-tasks.ts'
import { findSymmetry, type RankClass } from './symmetry.ts'

export function buildPlan(costs: PlanCosts): SimulatedPlan {
  check(costs)
  const { axes, injected = {}, pipelineAxis } = costs
  const { slowRanks = [], slowLinks = [], failure } = injected
  const marked = [slowRanks, slowLinks, failure ?? []].flat().map(({ rank }) => rank)
  const alone = costs.everyRank ? axes.map(({ name }) => name) : [pipelineAxis ?? '']
  const symmetry = findSymmetry(axes, alone, marked)
  const ports = createPorts(symmetry, costs.links, slowLinks)
  const groups = createGroups(costs, symmetry, ports)
  const pipeline = axes.findIndex(({ name }) => name === pipelineAxis)
  const build: Build = { costs, symmetry, groups, pipeline, tasks: [], messages: new Map() }
  const programs = rankPrograms(costs.schedule)
  for (const [rank, { coordinates }] of symmetry.classes.entries()) {
    addRank(build, rank, programs[pipeline < 0 ? 0 : coordinates[pipeline]!]!)
  }
  addMessages(build, ports)
  return {
    name: costs.name,
    ranks: symmetry.classes.map(({ rank, count }) => ({ rank, count, name: nameOf({ rank, count }) })),
    lanes: groups.lanes,
    levels: costs.links.map(({ name }) => name),
    links: ports.links,
    tasks: build.tasks,
    collectives: groups.collectives,
    ...(costs.work ? { work: costs.work } : {}),
    ...(failure ? { failure: { rank: symmetry.classOf(failure.rank), at: failure.at } } : {}),
  }
}

const nameOf = ({ rank, count }: Pick<RankClass, 'rank' | 'count'>): string =>
  count === 1 ? `rank ${rank}` : `rank ${rank}, like ${count - 1} more`

function addMessages({ costs, tasks, messages }: Build, ports: ReturnType<typeof createPorts>): void {
  for (const message of messages.values()) {
    message.task = tasks.length
    tasks.push({ ...sendTask(costs, ports, message), after: message.after })
  }
  for (const { task, before, follows } of messages.values()) {
    for (const waiting of before) tasks[waiting]!.after.push(task)
    for (const earlier of follows) tasks[task]!.after.push(earlier.task)
  }
}

function check({ axes, pipelineAxis, schedule, stages, optimizer, links }: PlanCosts): void {
  const ranks = axes.reduce((product, { size }) => product * size, 1)
  const pipelineSize = axes.find(({ name }) => name === pipelineAxis)?.size ?? 1
  const problems = [
    links.some(({ reach }) => reach >= ranks) || `no link reaches all of ${ranks} ranks`,
    pipelineSize === schedule.ranks ||
      `a schedule of ${schedule.ranks} ranks, but ${pipelineSize} in the mesh`,
    optimizer.seconds.length === schedule.ranks || `optimizer costs of ${optimizer.seconds.length} ranks`,
    stages.length === schedule.stages ||
      `a schedule of ${schedule.stages} stages, but costs of ${stages.length}`,
  ].filter((problem) => problem !== true)
  if (problems.length > 0) throw new InternalError(problems.join('; '))
}
