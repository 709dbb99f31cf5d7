/** Learning the Acrobot: advantages by hand, gradients, counts, bits, and that it learns. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { leaves, valueType, type Tree } from '../../compiler/index.ts'
import { draw, gradientError, withFloat } from '../../compiler/testing.ts'
import type { ParameterSpec } from '../../models/language/model.ts'
import { advantagesOf } from './advantages.ts'
import { swingObjective, swingRecipeSchema } from './models/policy.ts'
import { trainSwing } from './swing-trainer.ts'
import { withSettings, type Measurement, type Recipe, type Setting } from './task.ts'
import { acrobot } from './tasks/acrobot.ts'

/** Two worlds, three steps: the first world arrives at the second step, the other goes on. */
const rewards = {
  reward: Float32Array.of(-1, -1, 0, -1, -1, -1),
  value: Float32Array.of(-3, -5, -2, -4, -6, -3),
  next: Float32Array.of(-2, -4, 0, -3, -5, -2),
  ended: Uint8Array.of(0, 0, 1, 0, 0, 0),
}
const generalised = { kind: 'value', discount: 0.5, lambda: 0.5, standardised: false } as const

test('generalised advantages are sums of one-step errors, cut where an episode ends', () => {
  const { advantage, target, counted } = advantagesOf(rewards, 2, generalised)
  // One-step errors: reward + next / 2 - value.
  const errors = [1, 2, 2, 1.5, 2.5, 1]
  const want = [1 + 2 / 4, 2 + (1.5 + 1 / 4) / 4, 2, 1.5 + 1 / 4, 2.5, 1]
  assert.deepEqual([...advantage], want)
  assert.deepEqual(
    [...target],
    want.map((x, i) => x + rewards.value[i]!),
  )
  assert.deepEqual([...counted], [1, 1, 1, 1, 1, 1])
  assert.deepEqual([...advantagesOf(rewards, 2, { ...generalised, lambda: 0 }).advantage], errors)
})

test('returns count where the round saw the end of the episode, less their mean', () => {
  const { advantage, counted } = advantagesOf(rewards, 2, { ...generalised, kind: 'return', discount: 1 })
  assert.deepEqual([...counted], [1, 0, 1, 0, 0, 0])
  assert.deepEqual([advantage[0], advantage[2]], [-0.5, 0.5])
})

const recipeOf = (id: string, changes: Readonly<Record<string, Setting>>): Recipe =>
  withSettings(acrobot.baselines.find((one) => one.id === id)!.recipe, changes)

for (const id of ['reinforce', 'a2c', 'ppo'])
  test(`the gradient of ${id} is that of finite differences`, () => {
    const recipe = swingRecipeSchema.parse(recipeOf(id, { width: 4 }))
    const { specs, inputs, loss } = swingObjective(recipe, 5)
    const parameters = leaves<ParameterSpec>(specs as Tree<ParameterSpec>)
    const named = Object.entries(inputs)
    const types = [...parameters.map(([, spec]) => spec), ...named.map(([, type]) => type)].map(
      ({ dtype, shape, axes }) => withFloat(valueType(dtype, shape, axes), 'f64'),
    )
    const data = types.map((type, i) => draw(type, 20 + i, type.dtype === 'i32' ? [0, 3] : [-1, 1]))
    data[types.length - 1]!.fill(1).fill(0, 0, 1)
    const error = gradientError(
      {
        name: id,
        types,
        data,
        build(given) {
          const params: Record<string, Record<string, (typeof given)[number]>> = {}
          parameters.forEach(([path], i) => {
            const [net = '', name = ''] = path.split('.')
            params[net] = { ...params[net], [name]: given[i]! }
          })
          const rest = named.map(([name], i) => [name, given[parameters.length + i]!] as const)
          return [loss(params, Object.fromEntries(rest))]
        },
      },
      { wrt: parameters.map((_, i) => i) },
    )
    assert.ok(error < 1e-6, String(error))
  })

async function trained(recipe: Recipe, seed: number, threads = 1): Promise<Measurement[]> {
  const measured: Measurement[] = []
  for await (const one of trainSwing({ recipe, seed, evalEvery: 2048 }, threads)) measured.push(one)
  return measured
}

test('PPO learns in some ten thousand steps, with the same bits on one thread and on two', async () => {
  const one = await trained(recipeOf('ppo', { steps: 12_288, width: 32 }), 5)
  assert.deepEqual(await trained(recipeOf('ppo', { steps: 12_288, width: 32 }), 5, 2), one)
  assert.ok(one.at(-1)!.metric > -200 && one[0]!.metric < -250, one.map(({ metric }) => metric).join(' '))
  assert.deepEqual(
    one.map(({ step }) => step),
    [2048, 4096, 6144, 8192, 10_240, 12_288],
  )
  // Two rounds between measurements, each of 16 updates of 64 rows; forward and backward in proportion.
  const [first, second] = one.map(({ phases }) => phases)
  for (const phase of ['forward', 'backward', 'optimizer'] as const) {
    assert.ok(Number.isSafeInteger(first![phase]) && first![phase] > 0)
    assert.equal(second![phase], 2 * first![phase])
  }
  assert.equal(first!.forward % 32, 0)
})

test('acting is charged as data by its passes: one a step, and one for what comes after a round', async () => {
  const changes = { steps: 64, worlds: 2, horizon: 32, width: 8 }
  const [learned] = await trained(recipeOf('gae', changes), 1)
  const [plain] = await trained(recipeOf('reinforce', changes), 1)
  assert.equal(learned!.phases.data % 33, 0)
  assert.equal(plain!.phases.data % 32, 0)
  // Products and biases of the policy alone, of two worlds; with tanh and softmax some more.
  const products = 2 * (2 * 6 * 8 + 8 + 2 * 8 * 3 + 3)
  const pass = plain!.phases.data / 32
  assert.ok(pass > products && pass < 1.5 * products, `${pass} ${products}`)
})

test('parts that do not divide a round are refused', async () => {
  const recipe = recipeOf('ppo', { 'update.parts': 3 })
  await assert.rejects(
    trainSwing({ recipe, seed: 0, evalEvery: 100 }).next(),
    /update\.parts: got 3; expected a divisor of 1024/,
  )
})
