/**
 * Draws a training run's progress on stderr. On a terminal one line is redrawn at most ten times a second; into a
 * file or pipe a plain line is written every five seconds. Evaluations and samples stay as lines of their own.
 *
 * Subtle: speed and remaining time come from the last few seconds, not from the start of the run: compiling, pauses
 * and a resume would otherwise bend them for minutes.
 */
import { stripVTControlCharacters } from 'node:util'
import type { RecomputeReport } from '../compiler/index.ts'
import type { TrainObserver, TrainPlan, TrainPoint } from '../train/events.ts'
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatFlopRate,
  formatFlops,
  formatMetric,
  formatPercent,
} from './format.ts'

/** Where the status goes, and the clock it follows (milliseconds). */
export interface Screen {
  readonly isTTY: boolean
  readonly columns: number
  write(text: string): void
  now(): number
}

export interface Status extends Required<TrainObserver> {
  /** Removes the live line. Call once, however the run ended. */
  end(): void
}

const redrawMs = 100
const lineMs = 5000
/** Seconds of training that speed is measured over. */
const windowSeconds = 5

/** The process's stderr as a screen. */
export const stderrScreen = (): Screen => ({
  isTTY: process.stderr.isTTY ?? false,
  get columns() {
    // Some terminals report a width of 0.
    return process.stderr.columns || 80
  },
  write: (text) => void process.stderr.write(text),
  now: () => performance.now(),
})

export function createStatus(screen: Screen): Status {
  let plan: TrainPlan | undefined
  const recent: TrainPoint[] = []
  let phase: { readonly text: string; readonly since: number } | undefined
  let lastDraw = -Infinity
  let live = ''

  const draw = (text: string): void => {
    lastDraw = screen.now()
    if (!screen.isTTY) return screen.write(`${text}\n`)
    live = text.length < screen.columns ? text : `${text.slice(0, screen.columns - 2)}…`
    screen.write(`\r${live}\u001b[K`)
  }
  const clear = (): void => {
    if (live !== '') screen.write('\r\u001b[K')
    live = ''
  }
  const line = (text: string): void => {
    const kept = live
    clear()
    screen.write(`${text}\n`)
    if (kept !== '') draw(kept)
  }
  const drawPhase = (): void => {
    if (phase === undefined) return
    const seconds = (screen.now() - phase.since) / 1000
    draw(seconds < 1 ? `${phase.text}…` : `${phase.text}… ${formatDuration(seconds)}`)
  }
  const ticker = screen.isTTY ? setInterval(drawPhase, 1000).unref() : undefined

  return {
    plan(given) {
      plan = given
      for (const text of describePlan(given)) line(text)
    },
    phase(text) {
      phase = { text, since: screen.now() }
      drawPhase()
    },
    note(text) {
      line(`note: ${text}`)
    },
    point(point) {
      phase = undefined
      recent.push(point)
      // Of the points older than the window one is kept, so that it is always spanned.
      while (recent.length > 2 && point.seconds - recent[1]!.seconds >= windowSeconds) recent.shift()
      const isLast = point.step === plan?.steps
      if (isLast || screen.now() - lastDraw >= (screen.isTTY ? redrawMs : lineMs))
        draw(describeProgress(recent, plan))
    },
    evaluation(point) {
      const loss = point.metrics['validationLoss'] ?? Number.NaN
      line(
        `step ${point.step}  validation loss ${formatMetric(loss)}  ` +
          `after ${formatFlops(point.flops)}, ${formatDuration(point.seconds)}`,
      )
    },
    sample({ step, prompt, text }) {
      const rows = stripVTControlCharacters(prompt + text)
        .trim()
        .split('\n')
      const shown = [...rows.slice(0, 5), ...(rows.length > 5 ? ['…'] : [])]
      line(`step ${step}  sample:\n${shown.map((row) => `    ${row}`).join('\n')}`)
    },
    checkpoint({ step, bytes }) {
      if (screen.isTTY) draw(`step ${step}  saved (${formatBytes(bytes)})`)
    },
    end() {
      clearInterval(ticker)
      clear()
    },
  }
}

const activeOf = ({ parameters, activeParameters }: TrainPlan): string =>
  activeParameters === parameters ? '' : ` (${formatCount(activeParameters)} active)`

/** The plan in a few lines, shown before the first step. */
export function describePlan(plan: TrainPlan): string[] {
  const { data } = plan
  const skipped = data.skipped.slice(0, 3).map(({ name, reason }) => `  left out ${name}: ${reason}`)
  const more = data.skipped.length - skipped.length
  return [
    `data     ${data.name}: ${formatCount(data.trainTokens)} training and ${formatCount(data.validationTokens)} ` +
      `validation tokens, vocabulary ${data.vocabSize} (${data.tokenizer})`,
    ...skipped,
    ...(more > 0 ? [`  left out ${more} more`] : []),
    `model    ${formatCount(plan.parameters)} parameters${activeOf(plan)}, ${formatBytes(plan.arenaBytes)} of memory for a training step, ` +
      `about ${formatBytes(plan.processBytes)} for the process`,
    ...(plan.offloadedBytes > 0
      ? [
          `file     ${formatBytes(plan.offloadedBytes)} lie in a file, a step moves ${formatBytes(plan.movedBytes)} to it and from it`,
        ]
      : []),
    ...(plan.recompute ? [describeRecompute(plan.recompute, plan.flopsPerStep)] : []),
    `compute  ${plan.steps} steps, ${formatCount(plan.tokens)} tokens, ${formatFlops(plan.flops)} ` +
      `(${formatFlops(plan.flopsPerStep)} a step)`,
    describeOperations(plan.operations),
    `machine  ${plan.threads} ${plan.threads === 1 ? 'thread' : 'threads'}, measured peak ${formatFlopRate(plan.peakFlops)}; ` +
      `${plan.cached ? 'program found in the cache' : `compiled in ${formatDuration(plan.compileSeconds)}`}; ` +
      `about ${formatDuration(plan.etaSeconds)} to go`,
  ]
}

/** A step by phase, as a line of the plan. */
function describeOperations(operations: TrainPlan['operations']): string {
  const { forward, backward, recompute, optimizer, data, evaluation, model } = operations
  const phases = Object.entries({ forward, backward, recompute, optimizer, data })
    .filter(([, flops]) => flops > 0)
    .map(([phase, flops]) => `${phase} ${formatFlops(flops)}`)
  return (
    `a step   ${phases.join(', ')}; the model needs ${formatFlops(model)} in products; ` +
    `an evaluation is ${formatFlops(evaluation)}, not in the sum`
  )
}

/** What is computed again and what that costs, as a line of the plan. */
function describeRecompute(report: RecomputeReport, flopsPerStep: number): string {
  const { recomputed, keptBytes, allBytes, extraFlops, optimal } = report
  const more = formatPercent(extraFlops / (flopsPerStep - extraFlops))
  return (
    `memory   layers keep ${formatBytes(keptBytes)} of ${formatBytes(allBytes)} for the backward pass, ` +
    `${recomputed} values a layer are computed again: ${more} more compute` +
    (optimal ? '' : ' (a cheaper choice may exist)')
  )
}

/** One line from the points of the last seconds, oldest first. */
export function describeProgress(recent: readonly TrainPoint[], plan: TrainPlan | undefined): string {
  const first = recent[0]!
  const last = recent.at(-1)!
  const parts = [plan === undefined ? `step ${last.step}` : `step ${last.step}/${plan.steps}`]
  const { loss } = last.metrics
  if (loss !== undefined) parts.push(`loss ${formatMetric(loss)}`)
  const seconds = last.seconds - first.seconds
  if (seconds > 0) {
    const flopRate = (last.flops - first.flops) / seconds
    const share = plan === undefined ? '' : ` (${formatPercent(flopRate / plan.peakFlops)} of peak)`
    parts.push(
      `${formatCount((last.tokens - first.tokens) / seconds)} tokens/s`,
      formatFlopRate(flopRate) + share,
    )
    if (plan !== undefined && last.step > first.step) {
      const left = ((plan.steps - last.step) * seconds) / (last.step - first.step)
      parts.push(`ETA ${formatDuration(left)}`)
    }
  } else if (plan !== undefined) {
    parts.push(`ETA ${formatDuration(plan.etaSeconds)}`)
  }
  return parts.join('  ')
}
