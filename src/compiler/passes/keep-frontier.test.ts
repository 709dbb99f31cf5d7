/** The frontier of bytes against cost equals what trying every subset of kept values gives, on random small graphs. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { uniformPick } from '../random-samples.ts'
import { keepFrontier, unbeaten, type Choosable } from './keep-frontier.ts'

interface Problem {
  readonly values: readonly Choosable[]
  readonly wanted: readonly number[]
}

/** Small whole numbers, so that sums are exact and ties are common. */
function randomProblem(seed: number): Problem {
  const pick = uniformPick(seed)
  const values = Array.from({ length: 9 }, (_, i): Choosable => {
    const kind = pick(0, 5)
    const inputs = Array.from({ length: i === 0 ? 0 : pick(0, 2) }, () => pick(0, i - 1))
    if (kind === 0 || i < 2) return { bytes: pick(1, 8), cost: undefined, inputs: [] }
    return { bytes: kind === 1 ? undefined : pick(1, 8), cost: pick(0, 7), inputs }
  })
  return { values, wanted: [8, pick(2, 7), pick(0, 7)] }
}

/** Bytes and cost of keeping exactly these, or undefined when what is wanted does not follow. */
function evaluate({ values, wanted }: Problem, kept: ReadonlySet<number>): [number, number] | undefined {
  const again = new Set<number>()
  let possible = true
  const visit = (i: number): void => {
    if (kept.has(i) || again.has(i)) return
    again.add(i)
    possible &&= values[i]!.cost !== undefined
    values[i]!.inputs.forEach(visit)
  }
  wanted.forEach(visit)
  possible &&= [...kept].every((i) => values[i]!.bytes !== undefined)
  const sum = (list: Iterable<number>, of: (value: Choosable) => number | undefined): number =>
    [...list].reduce((total, i) => total + of(values[i]!)!, 0)
  return possible ? [sum(kept, ({ bytes }) => bytes), sum(again, ({ cost }) => cost)] : undefined
}

test('the frontier is that of all subsets', () => {
  for (let seed = 0; seed < 200; seed++) {
    const problem = randomProblem(seed)
    const all = Array.from({ length: 2 ** problem.values.length }, (_, bits) => {
      const kept = new Set(problem.values.flatMap((_, i) => ((bits >> i) & 1 ? [i] : [])))
      const found = evaluate(problem, kept)
      return found ? [{ bytes: found[0], cost: found[1] }] : []
    }).flat()
    const { points, optimal } = keepFrontier(problem.values, problem.wanted)
    assert.ok(optimal)
    assert.deepEqual(
      points.map(({ bytes, cost }) => ({ bytes, cost })),
      unbeaten(all),
      `seed ${seed}`,
    )
    for (const { bytes, cost, kept } of points)
      assert.deepEqual(evaluate(problem, new Set(kept)), [bytes, cost], `seed ${seed}`)
  }
})

test('thinned out, every point is still a choice, and says that a better one may exist', () => {
  const exact = ({ values, wanted }: Problem): number => keepFrontier(values, wanted).points.length
  const problem = Array.from({ length: 200 }, (_, seed) => randomProblem(seed)).find((one) => exact(one) > 4)!
  const { points, optimal } = keepFrontier(problem.values, problem.wanted, 1)
  assert.equal(optimal, false)
  assert.ok(points.length > 0)
  for (const { bytes, cost, kept } of points)
    assert.deepEqual(evaluate(problem, new Set(kept)), [bytes, cost])
})
