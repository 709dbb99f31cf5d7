/**
 * Optimizer state in a file: the bits of the same run in memory, bytes moved as counted beforehand, and a process that is
 * smaller by what lies in the file.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resolveConfig } from '../src/models/language/config.ts'
import type { LanguageOverrides } from '../src/models/language/config.ts'
import { initialise } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'
import { run } from './launch.ts'

const vocab = 65
const small: LanguageOverrides = {
  batch: 4,
  threads: 2,
  model: { context: 32, layers: 2, width: 64 },
  optim: { name: 'adamw' },
}

for (const name of ['adamw', 'muon'] as const) {
  test(`the same bits from a file, and the bytes that were declared: ${name}`, async () => {
    const outcome = async (offload: 'none' | 'optimizer'): Promise<Map<string, number[]>> => {
      const config = resolveConfig({ ...small, optim: { name }, offload })
      const program = await compileStep(config, vocab, { checking: true })
      try {
        initialise(program, config, vocab)
        const tokens = Int32Array.from(program.view('tokens'), (_, i) => (i * 7919) % vocab)
        for (let step = 0; step < 3; step++) await program.run({ tokens, seed: [1] })
        assert.equal(program.countedFlops(), 3 * program.flops)
        const state = [...program.inputs.keys()].filter((path) => path.startsWith('state.optim.'))
        const bytes = state.reduce((sum, path) => sum + program.view(path).byteLength, 0)
        assert.equal(program.movedBytes(), offload === 'none' ? 0 : 3 * 2 * bytes)
        assert.ok(program.memory.offloadedBytes >= (offload === 'none' ? 0 : bytes))
        return new Map([...program.outputs.keys()].map((path) => [path, [...program.view(path)]]))
      } finally {
        program.close()
      }
    }
    assert.deepEqual(await outcome('optimizer'), await outcome('none'))
  })
}

test('between steps the process is smaller by what lies in the file', (t) => {
  const from = (path: string): string => JSON.stringify(new URL(`../src/${path}`, import.meta.url).href)
  const held = (offload: string): { readonly held: number; readonly offloaded: number } => {
    const source = `
      const { resolveConfig } = await import(${from('models/language/config.ts')})
      const { compileStep } = await import(${from('train/step.ts')})
      const config = resolveConfig(${JSON.stringify({
        ...small,
        batch: 1,
        model: { context: 16, layers: 8, width: 320, heads: 5 },
        offload,
      })})
      const program = await compileStep(config, ${vocab})
      const tokens = program.view('tokens').slice()
      gc()
      const before = process.memoryUsage.rss()
      for (let i = 0; i < 3; i++) await program.run({ tokens, seed: [1] })
      gc()
      const held = process.memoryUsage.rss() - before
      console.log(JSON.stringify({ held, offloaded: program.memory.offloadedBytes }))`
    const { code, out, err } = run(process.execPath, ['--expose-gc', '--input-type=module', '-e', source])
    assert.equal(code, 0, err)
    return JSON.parse(out) as ReturnType<typeof held>
  }
  const [inMemory, inFile] = [held('none'), held('optimizer')]
  const less = inMemory.held - inFile.held
  t.diagnostic(`${less} bytes less held, ${inFile.offloaded} in the file`)
  assert.ok(inFile.offloaded > 70 * 2 ** 20)
  assert.ok(less > 0.9 * inFile.offloaded && less < 1.1 * inFile.offloaded)
})
