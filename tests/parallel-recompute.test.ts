/**
 * What is computed again is chosen before a program is cut for its ranks: native steps over several ranks give the same
 * bits with and without, in less memory, and a budget is held by the arena of each rank.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resolveConfig, type LanguageOverrides } from '../src/models/language/config.ts'
import { initialise } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'

const vocab = 17

const settings = (overrides: LanguageOverrides): ReturnType<typeof resolveConfig> =>
  resolveConfig({
    batch: 8,
    accumulate: 4,
    threads: 1,
    ...overrides,
    model: { layers: 4, width: 32, heads: 4, context: 16 },
  })

interface Outcome {
  readonly bits: ReadonlyMap<string, readonly number[]>
  readonly arenaBytes: number
  readonly again: number
}

async function outcome(overrides: LanguageOverrides): Promise<Outcome> {
  const config = settings(overrides)
  const program = await compileStep(config, vocab, { checking: true })
  try {
    initialise(program, config, vocab)
    const { shape } = program.inputs.get('tokens')!
    const tokens = Int32Array.from(
      { length: shape.reduce((a, b) => a * b, 1) },
      (_, i) => (i * 7919 + (i >> 3)) % vocab,
    )
    for (let step = 0; step < 2; step++) await program.run({ tokens, seed: [1] })
    assert.equal(program.countedFlops(), 2 * program.flops)
    return {
      bits: new Map([...program.outputs.keys()].map((path) => [path, [...program.view(path)]])),
      arenaBytes: program.memory.arenaBytes,
      again: program.recomputed?.extraFlops ?? 0,
    }
  } finally {
    program.close()
  }
}

const meshes: Readonly<Record<string, LanguageOverrides>> = {
  'data and tensor': {
    mesh: { data: 2, tensor: 2 },
    parallel: { zero: 3, sequence: true },
    accumulate: 1,
  },
  context: { mesh: { context: 2 }, accumulate: 1 },
  pipeline: { mesh: { pipe: 2 } },
}

for (const [name, overrides] of Object.entries(meshes)) {
  test(`the same bits in less memory: ${name}`, async () => {
    const [none, full] = [await outcome(overrides), await outcome({ ...overrides, recompute: 'full' })]
    for (const [path, values] of none.bits) assert.deepEqual(full.bits.get(path), values, path)
    assert.ok(full.again > 0 && full.arenaBytes < none.arenaBytes)
  })
}

test('a budget is held by the arena of each rank', async () => {
  const arena = async (overrides: LanguageOverrides): Promise<number> => {
    const config = settings({ ...meshes['context'], ...overrides })
    return (await compileStep(config, vocab, { target: 'text' })).memory.arenaBytes
  }
  const [none, full] = [await arena({}), await arena({ recompute: 'full' })]
  const memory = Math.round((none + full) / 2)
  const held = await arena({ memory })
  assert.ok(held <= memory && full < none)
})

test('what ranks cannot do is refused', async () => {
  const text = (overrides: LanguageOverrides): Promise<unknown> =>
    compileStep(settings(overrides), vocab, { target: 'text' })
  await assert.rejects(text({ ...meshes['pipeline'], memory: '1GiB' }), /^UserError: memory of train-step: /)
})
