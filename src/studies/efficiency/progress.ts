/** How far a queue of runs is: runs done, operations a second, time left. */
import type { Measurement } from './task.ts'
import { phases } from './task.ts'

export class Progress {
  readonly #total: number
  readonly #started = performance.now()
  readonly #active = new Map<string, { share: number; line: string; flop: number }>()
  #done = 0
  #flop = 0

  constructor(total: number) {
    this.#total = total
  }

  measured(label: string, { phases: counts, step, metric }: Measurement, steps: number): void {
    const flop = phases.reduce((sum, phase) => sum + counts[phase], 0)
    this.#flop += flop - (this.#active.get(label)?.flop ?? 0)
    const line = `${label}: step ${step} of ${steps}, ${metric.toFixed(3)}`
    this.#active.set(label, { share: Math.min(1, step / steps), line, flop })
  }

  finished(label: string): void {
    this.#active.delete(label)
    this.#done++
  }

  line(): string {
    const seconds = (performance.now() - this.#started) / 1000
    const shares = [...this.#active.values()].reduce((sum, { share }) => sum + share, 0)
    const fraction = (this.#done + shares) / this.#total
    const left = fraction > 0 ? seconds / fraction - seconds : NaN
    return [
      `${this.#done} of ${this.#total} runs`,
      `${(this.#flop / seconds / 1e9).toFixed(1)} GFLOP/s`,
      Number.isFinite(left) ? `about ${duration(left)} left` : 'starting',
      ...[...this.#active.values()].map(({ line }) => line),
    ].join('; ')
  }
}

export const duration = (seconds: number): string =>
  seconds < 90
    ? `${Math.ceil(seconds)} s`
    : seconds < 5400
      ? `${Math.round(seconds / 60)} min`
      : `${(seconds / 3600).toFixed(1)} h`

/** Takes items off a queue, `jobs` at a time, in order; the first failure ends all. */
export async function inParallel<T>(
  jobs: number,
  items: readonly T[],
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
    while (next < items.length) await work(items[next++]!)
  }
  await Promise.all(Array.from({ length: Math.min(jobs, items.length) }, worker))
}
