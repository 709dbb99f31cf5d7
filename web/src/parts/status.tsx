/** A run's status as a word and a dot, never a colour alone; and how far it has come. */
import type { JSX } from 'preact'
import type { RunStatus } from '../../../src/runs/index.ts'

const words: Readonly<Record<RunStatus, string>> = {
  running: 'running',
  finished: 'finished',
  interrupted: 'interrupted',
  failed: 'failed',
}

export function Status({ status }: { readonly status: RunStatus }): JSX.Element {
  return <span class={`status ${status}`}>{words[status]}</span>
}

export function Progress({
  step,
  steps,
}: {
  readonly step: number
  readonly steps: number | undefined
}): JSX.Element {
  if (steps === undefined || steps <= 0) return <span>{step}</span>
  return (
    <span class="progress">
      <progress value={Math.min(step, steps)} max={steps} aria-label={`step ${step} of ${steps}`} />
      <span class="number">
        {step}
        <small> / {steps}</small>
      </span>
    </span>
  )
}

/** The number of steps a run was asked for. */
export const stepsOf = (config: Readonly<Record<string, unknown>>): number | undefined =>
  typeof config['steps'] === 'number' ? config['steps'] : undefined
