/** The schedule at steps whose factors are easy to say. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile, valueType } from '../compiler/index.ts'
import { scheduleTensor, type Schedule } from './schedule.ts'

async function factors(schedule: Schedule, steps: readonly number[]): Promise<number[]> {
  const program = await compile(
    ({ step }) => ({ factor: scheduleTensor(schedule, step) }),
    { step: valueType('f64', []) },
    { target: 'reference' },
  )
  const out: number[] = []
  for (const step of steps) {
    await program.run({ step: [step] })
    out.push(Number(program.view('factor')[0]!.toFixed(12)))
  }
  return out
}

test('warms up, stays, and cools down to zero', async () => {
  const schedule = { steps: 10, warmup: 2, cooldown: 0.5 }
  assert.deepEqual(await factors(schedule, [0, 1, 2, 5, 6, 9, 10]), [0.5, 1, 1, 1, 0.8, 0.2, 0])
})

test('without warm-up and cool-down the rate is constant', async () => {
  assert.deepEqual(await factors({ steps: 10, warmup: 0, cooldown: 0 }, [0, 5, 9]), [1, 1, 1])
})
