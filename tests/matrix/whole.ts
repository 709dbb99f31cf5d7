/**
 * `npm run matrix`: every technique in every plan that it goes with, for every model, in float64 on simulated ranks beside one
 * device: about 600 cells, ten minutes on a core. The tests take a share of them every time; this is for changes of the partitioner.
 * `npm run matrix -- mixture` runs one model's cells.
 */
import { badUsage } from '../../src/errors.ts'
import { agreement } from './agree.ts'
import { models, type ModelName } from './models.ts'
import { allCells } from './table.ts'

const within = 1e-11
const names = Object.keys(models) as ModelName[]
const asked = process.argv.slice(2)
for (const name of asked) {
  if (!(name in models))
    throw badUsage({
      where: 'matrix',
      got: name,
      expected: `one of ${names.join(', ')}`,
      fix: 'leave it out for all',
    })
}

const cells = names
  .filter((name) => asked.length === 0 || asked.includes(name))
  .flatMap((name) => Array.from(new Map(allCells(name).map((cell) => [cell.settings, cell])).values()))
const began = performance.now()
let [worst, apart] = [0, 0]
for (const [i, cell] of cells.entries()) {
  const { results, losses } = await agreement(cell, 'reference', 2)
  const difference = Math.max(results, losses)
  worst = Math.max(worst, difference)
  if (!(difference <= within)) {
    apart++
    console.log(`${cell.model}, ${cell.technique.name}: ${cell.settings}: ${difference}`)
  }
  if (i % 25 === 24 || i === cells.length - 1) {
    const minutes = (performance.now() - began) / 60_000
    const left = (minutes / (i + 1)) * (cells.length - i - 1)
    console.log(
      `${i + 1} of ${cells.length}, worst ${worst.toExponential(1)}, about ${left.toFixed(1)} min left`,
    )
  }
}
console.log(
  apart === 0
    ? `all ${cells.length} agree within ${within}`
    : `${apart} of ${cells.length} differ by more than ${within}`,
)
process.exitCode = apart === 0 ? 0 : 1
