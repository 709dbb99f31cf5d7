/** Bytes of the exchange of expert parallelism against a count by hand and against the closed form of even routing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exchangeBytes, routedRows, type ExpertChoices } from './expert-exchange.ts'

/** Tokens in blocks over ranks, `topK` choices each; experts in blocks over ranks. */
function spread(
  ranks: number,
  tokens: number,
  topK: number,
  experts: number,
  choose: (choice: number) => number,
): ExpertChoices {
  const choices = Array.from({ length: tokens * topK }, (_, i) => i)
  return {
    tokenRanks: choices.map((i) => Math.floor((Math.floor(i / topK) * ranks) / tokens)),
    experts: choices.map(choose),
    expertRanks: Array.from({ length: experts }, (_, e) => Math.floor((e * ranks) / experts)),
  }
}

test('only rows that leave their rank are sent', () => {
  const choices = {
    tokenRanks: [0, 0, 0, 0, 1, 1, 1, 1],
    experts: [0, 1, 2, 3, 0, 0, 3, 1],
    expertRanks: [0, 0, 1, 1],
  }
  assert.deepEqual(routedRows(choices, 2), [
    [2, 2],
    [3, 1],
  ])
  assert.equal(exchangeBytes(choices, 2, 64, 4), 5 * 64 * 4)
})

test('even routing sends (r - 1) / r of all rows, one rank nothing, and a row never counts twice', () => {
  for (const ranks of [1, 2, 4, 8]) {
    const choices = spread(ranks, 64, 2, 8, (i) => i % 8)
    assert.equal(exchangeBytes(choices, ranks, 32, 2), ((ranks - 1) / ranks) * 64 * 2 * 32 * 2)
    const all = routedRows(choices, ranks).flat()
    assert.equal(
      all.reduce((a, b) => a + b),
      64 * 2,
    )
  }
  const one = spread(4, 64, 2, 8, () => 0)
  assert.equal(exchangeBytes(one, 4, 32, 2), 3 * 16 * 2 * 32 * 2)
})
