/**
 * What to keep and what to compute again: the exact trade of bytes against cost on a small graph of values. A value that
 * is wanted is either kept, at its bytes, or computed again, at its cost, and then wants its inputs; each is computed
 * again at most once.
 *
 * Walked from the last value to the first, only the set of wanted values still ahead matters. For each such set the best
 * pairs (bytes, cost) are carried along, so what is left at the end is every choice that no other beats in both: not the
 * convex hull alone, as a minimum cut would give. Layers are chains with few values alive at a time, so the sets stay few.
 */

/** A value of the graph; inputs are positions before its own. What costs neither bytes nor time is left out. */
export interface Choosable {
  /** Bytes it takes to keep; undefined: cannot be kept. */
  readonly bytes: number | undefined
  /** Cost of computing it again from its inputs; undefined: cannot be computed again. */
  readonly cost: number | undefined
  readonly inputs: readonly number[]
}

export interface KeepPoint {
  readonly bytes: number
  readonly cost: number
  readonly kept: readonly number[]
}

export interface Frontier {
  /** From the most bytes (and least cost) to the fewest; each point is better than the next in cost, worse in bytes. */
  readonly points: readonly KeepPoint[]
  /** False when there were too many combinations, so that some had to be dropped: a better point may exist. */
  readonly optimal: boolean
}

/** A choice under way: kept values as a list shared with others. */
interface Partial {
  readonly bytes: number
  readonly cost: number
  readonly kept: Kept | undefined
}
interface Kept {
  readonly value: number
  readonly before: Kept | undefined
}

/** More partial choices than this at a time are thinned out. */
const most = 200_000

export function keepFrontier(
  values: readonly Choosable[],
  wanted: readonly number[],
  limit = most,
): Frontier {
  let optimal = true
  // Key: positions wanted and not yet decided, ascending.
  let states = new Map<string, { ahead: readonly number[]; list: Partial[] }>()
  const start = [...new Set(wanted)].toSorted((a, b) => a - b)
  states.set(start.join(), { ahead: start, list: [{ bytes: 0, cost: 0, kept: undefined }] })
  for (let at = values.length - 1; at >= 0; at--) {
    const { bytes, cost, inputs } = values[at]!
    const next: typeof states = new Map()
    const move = (ahead: readonly number[], list: readonly Partial[]): void => {
      const key = ahead.join()
      const known = next.get(key)
      if (known) known.list.push(...list)
      else next.set(key, { ahead, list: [...list] })
    }
    for (const { ahead, list } of states.values()) {
      if (ahead.at(-1) !== at) {
        move(ahead, list)
        continue
      }
      const rest = ahead.slice(0, -1)
      if (bytes !== undefined) {
        const keep = (one: Partial): Partial => ({
          bytes: one.bytes + bytes,
          cost: one.cost,
          kept: { value: at, before: one.kept },
        })
        move(rest, list.map(keep))
      }
      if (cost !== undefined) {
        const grown = [...new Set([...rest, ...inputs])].toSorted((a, b) => a - b)
        move(
          grown,
          list.map(({ bytes, cost: before, kept }) => ({ bytes, cost: before + cost, kept })),
        )
      }
    }
    let total = 0
    for (const state of next.values()) total += (state.list = unbeaten(state.list)).length
    if (total > limit) {
      optimal = false
      for (const state of next.values()) state.list = thinned(state.list, limit / total)
    }
    states = next
  }
  const points = (states.get('')?.list ?? []).map(({ bytes, cost, kept }) => ({
    bytes,
    cost,
    kept: listed(kept),
  }))
  return { points, optimal }
}

/** The choices that no other beats in both bytes and cost, from the most bytes to the fewest. */
export function unbeaten<T extends { readonly bytes: number; readonly cost: number }>(list: T[]): T[] {
  const kept: T[] = []
  for (const one of list.toSorted((a, b) => a.bytes - b.bytes || a.cost - b.cost))
    if (kept.length === 0 || one.cost < kept.at(-1)!.cost) kept.push(one)
  return kept.toReversed()
}

/** Evenly spaced, the ends included. */
function thinned<T>(list: T[], share: number): T[] {
  const count = Math.max(2, Math.floor(list.length * share))
  if (count >= list.length) return list
  return Array.from({ length: count }, (_, i) => list[Math.round((i * (list.length - 1)) / (count - 1))]!)
}

function listed(kept: Kept | undefined): number[] {
  const found: number[] = []
  for (let one = kept; one; one = one.before) found.push(one.value)
  return found.toSorted((a, b) => a - b)
}
