/** Links are measured: larger messages take longer, and every size is there. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { measureLink } from './links.ts'

test('messages between two ranks of this process have a latency and a bandwidth', async () => {
  const { latency, bandwidth, samples } = await measureLink(2)
  assert.deepEqual(
    samples.map(({ bytes }) => bytes),
    [64, 4096, 16384, 65536, 262144, 1048576, 4194304],
  )
  assert.ok(latency > 0 && Number.isFinite(latency))
  assert.ok(bandwidth > 0 && Number.isFinite(bandwidth))
  assert.ok(samples.every(({ seconds }) => seconds > 0))
})
