/**
 * A guard for continuous integration that tells two changes apart. Cost: the operations up to the first evaluation are one
 * exact integer, and any change of it fails until the entry is run again on purpose. Progress: a fresh seed's compute to a
 * target must lie in the 99 % prediction interval of the stored seeds, so that chance alone fails one time in a hundred.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { badUsage } from '../../errors.ts'
import { studentQuantile } from '../student.ts'
import type { BoardEntry, CurvePoint } from './board-files.ts'
import { moments } from './compare.ts'
import type { Task } from './task.ts'
import { firstCrossing } from './time-to-target.ts'
import { trainOnce, type Watch } from './train-once.ts'

export interface Checked {
  readonly entry: string
  readonly kind: 'cost' | 'progress'
  readonly found: number | null
  /** The stored integer, or the interval. */
  readonly wanted: readonly [low: number, high: number]
  readonly fine: boolean
}

/** The exact part; a few steps. */
export async function checkCost(
  task: Task,
  { entry, recipe, runs }: BoardEntry,
  watch: Watch = {},
): Promise<Checked | null> {
  const done = await trainOnce(task, recipe, 0, { ...watch, point: () => true })
  if (!done) return null
  const [found, wanted] = [done.curve[0]?.[0] ?? null, runs[0]!.curve[0]?.[0] ?? 0]
  return { entry: entry.id, kind: 'cost', found, wanted: [wanted, wanted], fine: found === wanted }
}

/** The statistical part, on the first seed that is not stored. Null when interrupted or when stored seeds say nothing. */
export async function checkProgress(
  task: Task,
  { entry, recipe, runs }: BoardEntry,
  target: number,
  watch: Watch = {},
): Promise<Checked | null> {
  const reachedAt = (curve: readonly CurvePoint[]): number | null =>
    firstCrossing(curve, target, task.sense)?.[0] ?? null
  // Crossings are seen at evaluations only, so a cost is known to one of them.
  const grain = runs[0]?.curve[0]?.[0] ?? 0
  const wanted = predictionInterval(
    runs.map(({ curve }) => reachedAt(curve)),
    grain,
  )
  if (!wanted) return null
  const done = await trainOnce(task, recipe, runs.length, {
    ...watch,
    point: (curve) => reachedAt(curve) !== null || curve.at(-1)![0] > wanted[1],
  })
  if (!done) return null
  const found = reachedAt(done.curve)
  const fine = found !== null && found >= wanted[0] && found <= wanted[1]
  return { entry: entry.id, kind: 'progress', found, wanted, fine }
}

/**
 * Where the next cost lies with 99 %, on ln FLOP, and `grain` more at both ends; null for fewer than three costs, or where one
 * is missing.
 */
export function predictionInterval(
  costs: readonly (number | null)[],
  grain = 0,
): readonly [low: number, high: number] | null {
  const known = costs.filter((cost) => cost !== null)
  if (known.length < 3 || known.length < costs.length) return null
  const { count, mean, deviation } = moments(known.map(Math.log))
  const reach = studentQuantile(0.995, count - 1) * deviation * Math.sqrt(1 + 1 / count)
  return [Math.exp(mean - reach) - grain, Math.exp(mean + reach) + grain]
}

/** Boards of a folder, or as a commit has them; `use` gets the folder. */
export async function withBase<T>(
  base: string,
  boards: string,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  if (statSync(base, { throwIfNoEntry: false })?.isDirectory()) return await use(base)
  const folder = mkdtempSync(join(tmpdir(), 'anneal-boards-'))
  try {
    const archive = execFileSync('git', ['archive', '--format=tar', `${base}:leaderboards`], {
      cwd: dirname(boards),
      maxBuffer: 2 ** 30,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    execFileSync('tar', ['-x', '-C', folder], { input: archive })
    return await use(folder)
  } catch (error) {
    if (!(error instanceof Error) || !('status' in error)) throw error
    throw badUsage({
      where: '--base',
      got: `'${base}'`,
      expected: 'a folder of leaderboards, or a commit that has them',
      fix: 'try --base HEAD',
    })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
