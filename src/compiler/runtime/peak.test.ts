/** The measured peak is plausible, repeatable as far as a shared machine allows, and does not hold up Node. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UserError } from '../../errors.ts'
import { machine } from './machine.ts'
import { measurePeak } from './peak.ts'

test('one thread: a plausible processor, while timers go on', async () => {
  let ticks = 0
  const timer = setInterval(() => ticks++, 5)
  const peak = await measurePeak({ threads: 1 }).finally(() => clearInterval(timer))
  // From a slow small core (2 lanes at 1 GHz) to one far beyond today's (64 lanes at 10 GHz).
  assert.ok(peak.flopsF32 > 4e9 && peak.flopsF32 < 1.3e12, `${peak.flopsF32} FLOP/s`)
  assert.ok(peak.copyBytesPerSecond > 1e8 && peak.copyBytesPerSecond < 1e12, `${peak.copyBytesPerSecond} B/s`)
  assert.equal(peak.threads, 1)
  // Measured exactly where the compiler names the instruction; it may be slower than multiply-adds, by a factor.
  assert.equal(peak.flopsBf16 !== undefined, (await machine()).features.includes('avx512_bf16'))
  if (peak.flopsBf16 !== undefined)
    assert.ok(peak.flopsBf16 > 4e9 && peak.flopsBf16 < 1.3e12, `${peak.flopsBf16} FLOP/s in bf16`)
  assert.ok(ticks > 10, `${ticks} ticks while measuring`)
})

test('more threads than most machines have cores still finish', async () => {
  assert.ok((await measurePeak({ threads: 5 })).flopsF32 > 4e9)
})

test('a number of threads that cannot be meant', async () => {
  for (const threads of [0, -1, 1.5, Number.NaN]) {
    await assert.rejects(
      measurePeak({ threads }),
      (error) => error instanceof UserError && error.exitCode === 2,
    )
  }
})
