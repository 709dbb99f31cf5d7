/**
 * Whether the machine is ours. Other programs do not slow all contestants alike (a team that waits for a descheduled
 * thread loses far more than its share), so how busy they keep the machine is measured while we wait, and said.
 */
import { cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

/** Cores that others may keep busy in a comparison that counts. */
export const tolerated = 0.2

/** Cores that others keep busy while we and the peers wait: over half a second, as far as this system can see. */
export async function busyCores(): Promise<number> {
  const start = cpus()
  await sleep(500)
  return cpus().reduce((sum, { times }, i) => {
    const before = start[i]?.times ?? times
    const idle = times.idle - before.idle
    const busy = times.user + times.nice + times.sys - before.user - before.nice - before.sys
    return sum + (busy + idle > 0 ? busy / (busy + idle) : 0)
  }, 0)
}

/** The line that stands over a table measured on a busy machine; nothing for a quiet one. */
export const busyNote = (othersCores: number): readonly string[] =>
  othersCores > tolerated
    ? [
        `NOT a fair measurement: other programs kept ${othersCores.toFixed(1)} cores busy; not recorded, repeat when they are done`,
      ]
    : []
