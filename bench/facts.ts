/** What every table is headed by: the machine, the compiler, and what was measured as the machine's best in this run. */
import { formatBytes, formatFlopRate } from '../src/cli/format.ts'
import { machine } from '../src/compiler/runtime/machine.ts'
import type { Peak } from '../src/compiler/runtime/peak.ts'
import { findCompiler } from '../src/compiler/runtime/toolchain.ts'
import { median } from './slices.ts'

/** Processor, cores, vector length and compiler on one line. */
export async function machineLine(): Promise<string> {
  const { cpuModel, cores, vectorBytes, features } = await machine()
  const { version } = await findCompiler()
  const isa = process.env['ANNEAL_ISA']
  const vectors = `${vectorBytes * 8}-bit vectors${isa ? ` (ANNEAL_ISA=${isa})` : ''}`
  return `${cpuModel}, ${cores} cores, ${vectors}, ${features.join(' ')}; ${version}; Node ${process.versions.node}`
}

/** The peaks of one run, measured several times: medians, and how far apart they were. */
export function peakLine(peaks: readonly Peak[], copyMegabytes = 16): string {
  const flops = peaks.map(({ flopsF32 }) => flopsF32)
  const dots = peaks.flatMap(({ flopsBf16 }) => flopsBf16 ?? [])
  const copies = peaks.map(({ copyBytesPerSecond }) => copyBytesPerSecond)
  const between = `${formatFlopRate(Math.min(...flops))} to ${formatFlopRate(Math.max(...flops))}`
  return (
    `peak of ${peaks[0]?.threads ?? 0} threads in this run: f32 ${formatFlopRate(median(flops))} (${between}), ` +
    (dots.length > 0 ? `bf16 dot ${formatFlopRate(median(dots))}, ` : '') +
    `copy ${formatBytes(median(copies))}/s (${copyMegabytes} MiB a thread)`
  )
}
