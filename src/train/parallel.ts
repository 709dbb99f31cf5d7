/** From the settings of a run to its parallel plan, and to what `compile` needs to carry it out. */
import { ranksOf, type Mesh, type MeshAxis } from '../compiler/graph/mesh.ts'
import type { Parallel } from '../compiler/ranked.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import { parallelOf, type Plan } from '../parallel/plan.ts'
import { makeSchedule, type Schedule } from '../parallel/schedule/index.ts'
import { pipelineSources } from './pipeline.ts'
import { isReplicated } from './replicas.ts'

/** Axes from the one whose ranks are farthest apart, which talk least, to the one whose ranks talk most. */
const axes = ['pipe', 'data', 'expert', 'context', 'tensor'] as const

/** The plan of a run. Axes of one rank are left out. */
export function planOf(config: LanguageConfig): Plan {
  const { mesh, parallel } = config
  const order = (name: (typeof axes)[number]): Pick<MeshAxis, 'order'> => {
    if (name === 'context' && parallel.attention === 'ring') return { order: 'zigzag' }
    // Its stages lie on the ranks as a V: each has one from the front and one from the back.
    if (name === 'pipe' && parallel.schedule === 'dualpipe-v') return { order: 'zigzag' }
    return name === 'pipe' && stagesPerRank({ parallel }) > 1 ? { order: parallel.stages } : {}
  }
  return {
    mesh: axes.flatMap((name) => (mesh[name] > 1 ? [{ name, size: mesh[name], ...order(name) }] : [])),
    zero: parallel.zero as Plan['zero'],
    sequence: parallel.sequence,
    attention: parallel.attention,
    ...(isReplicated(config) ? { replicas: true } : {}),
  }
}

export const ranksOfRun = (config: LanguageConfig): number => ranksOf(planOf(config).mesh)

const stagesPerRank = ({ parallel }: Pick<LanguageConfig, 'parallel'>): number =>
  parallel.schedule === 'interleaved' ? parallel.stages : 1

/** The schedule of a run with a pipeline. */
export const scheduleOf = (config: LanguageConfig): Schedule =>
  makeSchedule(config.parallel.schedule, {
    ranks: config.mesh.pipe,
    microbatches: config.accumulate,
    stagesPerRank: stagesPerRank(config),
  })

/**
 * Where the windows of a batch stand in the step's `tokens`, [microbatch, row] as one index. Each rank that shares out the
 * batch has a run of it, which it takes in microbatches: then however many of either there are, neighbours are added up
 * first, and the sums over the batch have the same bits (compiler/passes/leaves.ts). Replicas have an axis of their own in
 * front, and take the windows of one local step after those of another.
 */
export function batchPlaces(
  config: Pick<LanguageConfig, 'batch' | 'accumulate' | 'mesh' | 'parallel'>,
): number[] {
  const { batch, accumulate, mesh } = config
  if (isReplicated(config)) {
    const local = Math.max(1, config.parallel.local)
    const each = batch / (local * mesh.data)
    return Array.from({ length: batch }, (_, window) => {
      const step = Math.floor(window / (mesh.data * each))
      const replica = Math.floor(window / each) % mesh.data
      return (replica * local + step) * each + (window % each)
    })
  }
  const ranks = mesh.data * mesh.expert
  const rows = batch / (ranks * accumulate)
  return Array.from({ length: batch }, (_, window) => {
    const rank = Math.floor(window / (accumulate * rows))
    const microbatch = Math.floor(window / rows) % accumulate
    return (microbatch * ranks + rank) * rows + (window % rows)
  })
}

/** What `compile` takes to spread a training step over the mesh; nothing for one device. */
export function parallelOptions(
  config: LanguageConfig,
  vocab: number,
  transport: Parallel['transport'] = 'threads',
): { readonly parallel?: Parallel } {
  const plan = planOf(config)
  const { mesh }: { readonly mesh: Mesh } = plan
  if (mesh.length === 0) return {}
  const parallel = { ...parallelOf(plan), transport }
  if (config.mesh.pipe === 1) return { parallel }
  const stages = pipelineSources(config, vocab, mesh, 'pipe', scheduleOf(config))
  return { parallel: { ...parallel, pipeline: { axis: 'pipe', stages } } }
}
