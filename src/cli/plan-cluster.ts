/**
 * `anneal plan language --cluster FILE`: closed forms choose which plans are worth compiling; those are ranked by the step of
 * their compiled program, simulated message by message on the cluster that was measured.
 */
import { badUsage } from '../errors.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import type { PlannedModel } from '../parallel/planner/index.ts'
import type { ExitCode, Io } from './command.ts'
import { formatBytes, formatCount, formatDuration, formatTable } from './format.ts'
import { describePlan, rejectedLines } from './plan-words.ts'

export interface OnCluster {
  readonly path: string
  readonly model: PlannedModel
  readonly config: LanguageConfig
  readonly vocab: number
  /** As asked for; the cluster's unless said. */
  readonly ranks: number | undefined
  readonly memoryBytes: number | undefined
  readonly globalBatch: number
  readonly top: number
}

export async function planOnCluster(io: Io, asked: OnCluster): Promise<ExitCode> {
  const { path, model, config, vocab, globalBatch, top } = asked
  const { searchPlans, parameterCount, settingsOf } = await import('../parallel/planner/index.ts')
  const { readCluster } = await import('../parallel/planner/cluster-file.ts')
  const { clusterHardware } = await import('../parallel/planner/on-cluster.ts')
  const { planSteps } = await import('../train/plan-steps.ts')
  const cluster = readCluster(path)
  const ranks = cluster.hosts.length
  if (asked.ranks !== undefined && asked.ranks !== ranks) {
    throw badUsage({
      where: '--ranks',
      got: String(asked.ranks),
      expected: `${ranks}, as many as ${path} was measured with`,
      fix: 'leave it out, or measure that many',
    })
  }
  const began = performance.now()
  const found = searchPlans(model, {
    ranks,
    globalBatch,
    hardware: clusterHardware(cluster),
    memoryBytes: asked.memoryBytes ?? cluster.memoryBytes,
    leastPiece: 2,
    simulated: Math.max(24, top),
  })
  const plans = found.plans.map(({ plan }) => plan)
  const { steps, refused } = await planSteps(config, vocab, plans, cluster, found.memoryBytes)
  const seconds = (performance.now() - began) / 1000
  const shown = steps.slice(0, top)
  const hosts = new Set(cluster.hosts).size
  const milliseconds = (value: number): string => `${(1e3 * value).toFixed(1)} ms`
  const table = [
    ['', 'memory', 'step', 'arithmetic', 'exposed', ...['near', 'far'].map((name) => `${name} sent`), 'plan'],
    ...shown.map(({ plan, step, arenaBytes }, i) => [
      String(i + 1),
      `${formatBytes(arenaBytes)} exact`,
      milliseconds(step.seconds),
      milliseconds(step.coreSeconds),
      `${(100 * step.exposedShare).toFixed(0)}%`,
      ...step.levels.map(({ totalBytes }) => formatBytes(totalBytes)),
      describePlan(plan),
    ]),
  ]
  const text = [
    `${model.name}: ${formatCount(parameterCount(model))} parameters, windows of ${model.context} tokens, ${globalBatch} a step`,
    `${ranks} ranks on ${hosts} ${hosts === 1 ? 'host' : 'hosts'}, measured: ${cluster.measured}`,
    `${found.considered} plans, ${found.feasible} fit, ${plans.length} compiled and simulated message by message, ${formatDuration(seconds)}`,
    '',
    shown.length > 0 ? formatTable(table) : 'no plan fits: more ranks, or a smaller batch',
    '',
    'arithmetic: of the busiest core, for all of its ranks; sent: by all ranks, within hosts and between them',
    ...refused.map(({ plan, reason }) => `refused: ${describePlan(plan)}: ${reason}`),
    ...rejectedLines(found.rejected),
  ]
  io.result(text.join('\n'), {
    model: model.name,
    parameters: parameterCount(model),
    cluster: path,
    measured: cluster.measured,
    ranks,
    globalBatch,
    memoryBytes: found.memoryBytes,
    considered: found.considered,
    feasible: found.feasible,
    plans: shown.map(({ plan, step, arenaBytes }) => ({
      plan,
      settings: settingsOf(plan),
      seconds: step.seconds,
      coreSeconds: step.coreSeconds,
      exposedShare: step.exposedShare,
      bubbleShare: step.bubbleShare,
      arenaBytes,
      links: step.levels,
    })),
    refused: refused.map(({ plan, reason }) => ({ settings: settingsOf(plan), reason })),
    rejected: found.rejected,
  })
  return shown.length > 0 ? 0 : 1
}
