/**
 * Ctrl-C: the first asks the job to save and stop, the second ends the process at once.
 *
 * Subtle: one key press can arrive several times, because the terminal signals the whole process group and npm and
 * our launcher pass on what they receive. Signals close behind the first therefore count as the same press.
 */

/** Signals this soon after the first are copies of it. */
const samePressMs = 500

/** Runs `job` with a signal that aborts on SIGINT, SIGTERM or SIGHUP; `announce` is called when it does. */
export async function withInterrupt<T>(
  announce: () => void,
  job: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController()
  let first: number | undefined
  const onSignal = (): void => {
    if (first === undefined) {
      first = performance.now()
      controller.abort()
      announce()
    } else if (performance.now() - first > samePressMs) {
      process.exit(130)
    }
  }
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of names) process.on(name, onSignal)
  try {
    return await job(controller.signal)
  } finally {
    for (const name of names) process.off(name, onSignal)
  }
}
