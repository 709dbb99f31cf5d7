/** Philox against the known-answer vectors of Random123, and the layout of element indices. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { philox, philoxUniform, philoxWord } from './philox.ts'

test('philox4x32-10 gives the known answers of Random123', () => {
  assert.deepEqual(philox([0, 0, 0, 0], [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8])
  const ones = 0xffffffff
  assert.deepEqual(
    philox([ones, ones, ones, ones], [ones, ones]),
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  )
  assert.deepEqual(
    philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  )
})

test('an element is one word of its block', () => {
  const use = { seed: 7, step: -1, stream: 3, salt: 9 }
  const block = philox([5, 0, 3, 9], [7, 0xffffffff])
  assert.deepEqual(
    [20, 21, 22, 23].map((i) => philoxWord(use, i)),
    [...block],
  )
  assert.equal(philoxWord(use, 2 ** 34 + 1), philox([0, 1, 3, 9], [7, 0xffffffff])[1])
})

test('uniforms fill [0, 1) evenly', () => {
  const use = { seed: 1, step: 2, stream: 3, salt: 4 }
  const bins = Array.from({ length: 10 }, () => 0)
  for (let i = 0; i < 20_000; i++) bins[Math.floor(philoxUniform(use, i) * 10)]!++
  for (const count of bins) assert.ok(Math.abs(count - 2000) < 200, `${bins}`)
})
