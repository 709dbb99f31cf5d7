/**
 * This machine as a hardware file: arithmetic and memory as the peak probe measures them with every core at work, shared
 * out among the ranks that will run on it. Links are not measured here: their latency and bandwidth are those of the
 * transport in use, which has a probe of its own.
 */
import { cpus, totalmem } from 'node:os'
import { memoryRate } from '../../compiler/index.ts'
import { measurePeak } from '../../compiler/runtime/peak.ts'
import type { Hardware, LinkLevel } from './hardware.ts'

export interface ThisMachineOptions {
  /** Ranks on this machine, each with an equal part of its cores. */
  readonly ranks: number
  readonly threadsPerRank: number
  readonly links: readonly LinkLevel[]
}

/**
 * Measures this machine; half a second.
 *
 * @throws UserError when there is no C compiler or the system refuses the threads.
 */
export async function measureThisMachine({
  ranks,
  threadsPerRank,
  links,
}: ThisMachineOptions): Promise<Hardware> {
  const peak = await measurePeak({ threads: ranks * threadsPerRank })
  return {
    name: cpus()[0]?.model.trim() || 'this machine',
    peak: {
      f32: peak.flopsF32 / ranks,
      ...(peak.flopsBf16 === undefined ? {} : { bf16: peak.flopsBf16 / ranks }),
    },
    memoryBytes: totalmem() / ranks,
    memoryBandwidth: memoryRate(peak) / ranks,
    memoryAchieved: 1,
    products: {
      units: threadsPerRank,
      tiles: [{ rows: 16, columns: 64, share: 1 }],
      fill: 32,
      // What the engine's products reach of the measured peak on training shapes (docs/benchmarks.md).
      ceiling: 0.9,
      launchSeconds: 2e-6,
    },
    attentionAchieved: 0.5,
    links,
    sources: [
      'measured on this machine: all cores at once, multiply-adds from registers, copies between buffers',
    ],
  }
}

/**
 * Links of ranks that are threads of one process, until the transport's own probe says more: a byte sent is read and
 * written once. The latency is assumed: that of waking a thread at a barrier.
 */
export const memoryLinks = (hardware: Hardware): Hardware => ({
  ...hardware,
  links: [
    {
      name: 'memory',
      reach: Infinity,
      latency: 5e-6,
      bandwidth: hardware.memoryBandwidth / 2,
      achieved: 1,
      ranksPerPort: 1,
    },
  ],
})
