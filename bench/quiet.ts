/**
 * Whether the machine is ours. Other programs do not slow all contestants alike (a team that waits for a descheduled
 * thread loses far more than its share), so how busy they keep the machine is measured while we wait, and said. On a
 * virtual machine the neighbours do not show in that; they show as a peak that differs from round to round.
 */
import { cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

/** Cores that others may keep busy in a comparison that counts. */
const tolerated = 0.2

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

/** The lowest peak of a quiet run, as a share of the highest. */
const steady = 0.9

/**
 * Lines that stand over a table measured on a busy machine; none for a quiet one, and then the result may be recorded.
 *
 * @param peaks multiply-adds a second, measured again in every round.
 */
export function disturbances(othersCores: number, peaks: readonly number[] = []): readonly string[] {
  const lowest = Math.min(...peaks) / Math.max(...peaks)
  return [
    ...(othersCores > tolerated ? [`other programs kept ${othersCores.toFixed(1)} cores busy`] : []),
    ...(lowest < steady ? [`the peak fell to ${Math.round(lowest * 100)}% of its best during the run`] : []),
  ].map((what) => `NOT a fair measurement: ${what}; not recorded, repeat when the machine is quiet`)
}
