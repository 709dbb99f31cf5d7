/**
 * What `train`, `resume` and `up` share: run a training job with a live status and Ctrl-C, then say how it ended
 * and what to type next.
 */
import { readRun } from '../runs/index.ts'
import type { TrainObserver, TrainResult } from '../train/events.ts'
import { self, type ExitCode } from './command.ts'
import { formatDuration, formatFlops, formatMetric } from './format.ts'
import { withInterrupt } from './interrupt.ts'
import { sparkline } from './plot.ts'
import { createStatus, stderrScreen } from './status.ts'

export interface JobTools {
  readonly observer: TrainObserver
  readonly signal: AbortSignal
}

/** Runs a training job under a status line. Errors of the job pass through, after the line is cleared. */
export async function runTraining(job: (tools: JobTools) => Promise<TrainResult>): Promise<TrainResult> {
  const status = createStatus(stderrScreen())
  const announce = (): void => status.phase('stopping: saving a checkpoint (Ctrl-C again quits at once)')
  try {
    return await withInterrupt(announce, (signal) => job({ observer: status, signal }))
  } finally {
    status.end()
  }
}

/** Text and exit code for a run that ended. `runsDir` is mentioned in commands only when it is not the default. */
export function describeEnd(result: TrainResult, runsDir: string): { text: string; code: ExitCode } {
  const suffix = runsDir === 'runs' || runsDir === process.env['ANNEAL_RUNS'] ? '' : ` --runs ${runsDir}`
  const cost = `${formatFlops(result.flops)} in ${formatDuration(result.seconds)}`
  if (result.status === 'interrupted') {
    const text = `interrupted at step ${result.step}, after ${cost}\nresume with: ${self} resume ${result.runId}${suffix}`
    return { text, code: 130 }
  }
  const loss =
    result.validationLoss === null ? '' : `validation loss ${formatMetric(result.validationLoss)}, `
  const lines = [
    ...describeLosses(runsDir, result.runId),
    `finished at step ${result.step}: ${loss}${cost}`,
    `run      ${result.runDir}`,
    `next     ${self} sample ${result.runId} --prompt "ROMEO:"${suffix}`,
    `         ${self} show ${result.runId}${suffix}`,
  ]
  return { text: lines.join('\n'), code: 0 }
}

function describeLosses(runsDir: string, runId: string): string[] {
  const losses = readRun(runsDir, runId).points.flatMap(({ metrics }) => metrics['loss'] ?? [])
  const [first, last] = [losses[0], losses.at(-1)]
  if (first === undefined || last === undefined || losses.length < 2) return []
  return [`loss     ${formatMetric(first)} ${sparkline(losses)} ${formatMetric(last)}`]
}
