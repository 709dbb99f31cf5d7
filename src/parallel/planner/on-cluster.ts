/**
 * A step of a compiled program on a measured cluster, and a measured cluster as a hardware file. The first is what
 * `anneal plan --cluster` shows and `npm run bench links` holds against the clock; the second is for the closed forms that
 * choose which plans are worth compiling.
 */
import type { Program } from '../../compiler/index.ts'
import type { Hardware, LinkLevel } from '../hardware/index.ts'
import { wireOf } from '../links.ts'
import { compiledPlan, simulate, summarize, type Cluster, type StepSummary } from '../simulate/index.ts'
import { callSeconds, type CallSample } from './call-rates.ts'
import type { ClusterFile } from './cluster-file.ts'

export interface ClusterStep extends StepSummary {
  /** What the busiest core calculates, for all of its ranks. */
  readonly coreSeconds: number
}

/** `calls`: samples to use instead of the cluster's own, such as those of this very program. */
export function stepOnCluster(
  name: string,
  outline: Program['outline'],
  cluster: ClusterFile,
  calls: readonly CallSample[] = cluster.calls,
): ClusterStep {
  const step = summarize(simulate(compiledPlan(name, outline, clusterOf(cluster, calls))))
  const perCore = new Map<number, number>()
  step.ranks.forEach(({ computeSeconds }, rank) => {
    const core = cluster.cores[rank]!
    perCore.set(core, (perCore.get(core) ?? 0) + computeSeconds)
  })
  return { ...step, coreSeconds: Math.max(...perCore.values()) }
}

function clusterOf(file: ClusterFile, calls: readonly CallSample[]): Cluster {
  const { hosts, cores, turnSeconds, eagerBytes } = file
  const [near, far] = [file.near ?? file.far!, file.far ?? file.near!]
  const call = callSeconds(calls)
  return {
    hosts,
    cores,
    turnSeconds,
    eagerBytes,
    near: wireOf('host', near, near.sharing),
    far: wireOf('network', far, far.sharing),
    call,
    memory: (bytes) => (bytes > 0 ? call({ ops: 'copy', flops: 0, bytes }) : 0),
  }
}

/** Rates are those that the calls reached together, shared out among the ranks of a core. */
export function clusterHardware(file: ClusterFile): Hardware {
  const { hosts, cores, calls, near, far, memoryBytes } = file
  const ranksPerCore = cores.length / new Set(cores).size
  const rate = (unit: 'flops' | 'bytes', products: boolean): number => {
    const counted = calls.filter((call) => call.ops.startsWith('dot ') === products && call[unit] > 0)
    const sum = (of: 'flops' | 'bytes' | 'seconds'): number =>
      counted.reduce((total, call) => total + call[of], 0)
    return sum(unit) / sum('seconds') / ranksPerCore
  }
  const ranksPerHost = hosts.length / new Set(hosts).size
  const blocks = hosts.every((host, rank) => rank === 0 || host >= hosts[rank - 1]!)
  const level = (name: string, { latency, samples }: NonNullable<typeof near>): LinkLevel => {
    const [middle, large] = [samples.at(-2)!, samples.at(-1)!]
    return {
      name,
      reach: Infinity,
      latency,
      bandwidth: (large.bytes - middle.bytes) / Math.max(large.seconds - middle.seconds, 1e-9),
      achieved: 1,
      // What was measured is each sender's part.
      ranksPerPort: 1,
    }
  }
  return {
    name: 'ranks of a measured cluster',
    peak: { f32: rate('flops', true) },
    memoryBytes,
    memoryBandwidth: rate('bytes', false),
    memoryAchieved: 1,
    products: {
      units: 1,
      tiles: [{ rows: 16, columns: 64, share: 1 }],
      fill: 32,
      ceiling: 1,
      launchSeconds: 2e-6,
    },
    attentionAchieved: 0.5,
    links: [
      ...(near && (blocks || !far) ? [{ ...level('host', near), reach: far ? ranksPerHost : Infinity }] : []),
      ...(far ? [level('network', far)] : []),
    ],
    sources: [file.measured],
  }
}
