/**
 * Optimizer state and activations in a file: the bits of the same run in memory, bytes moved as counted beforehand, an arena
 * and a process that are smaller by what lies in the file, and one clear error where a disk has no room for it.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { sizeOf, type ProgramMemory, type Values } from '../src/compiler/index.ts'
import { resolveConfig } from '../src/models/language/config.ts'
import type { LanguageOverrides } from '../src/models/language/config.ts'
import { initialise } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'
import { errorLine, launcher, run } from './launch.ts'

const vocab = 65
const small: LanguageOverrides = {
  batch: 4,
  threads: 2,
  model: { context: 32, layers: 2, width: 64 },
  optim: { name: 'adamw' },
}

type Offload = NonNullable<LanguageOverrides['offload']>

interface Outcome {
  readonly bits: ReadonlyMap<string, readonly number[]>
  readonly memory: ProgramMemory
  /** Bytes of the optimizer's state on one rank. */
  readonly stateBytes: number
}

/** After three steps, with the bytes that moved held against the declared ones. */
async function outcome(overrides: LanguageOverrides): Promise<Outcome> {
  const config = resolveConfig({ ...small, ...overrides })
  const program = await compileStep(config, vocab, { checking: true })
  try {
    initialise(program, config, vocab)
    const { shape } = program.inputs.get('tokens')!
    const tokens = Int32Array.from({ length: sizeOf(shape) }, (_, i) => (i * 7919) % vocab)
    for (let step = 0; step < 3; step++) await program.run({ tokens, seed: [1] })
    assert.equal(program.countedFlops(), 3 * program.flops)
    assert.equal(program.movedBytes(), 3 * program.memory.movedBytes)
    const state = [...program.inputs.keys()].filter((path) => path.startsWith('state.optim.'))
    return {
      bits: new Map([...program.outputs.keys()].map((path) => [path, [...program.view(path)]])),
      memory: program.memory,
      stateBytes: state.reduce((sum, path) => sum + (program.pieces(path)[0]!.data as Values).byteLength, 0),
    }
  } finally {
    program.close()
  }
}

interface Case {
  readonly overrides: LanguageOverrides
  readonly offloads: readonly Offload[]
  readonly ranks?: number
  readonly microbatches?: number
  /** What is kept for the backward pass, where a formula says it. */
  readonly kept?: number
}

const cases: Readonly<Record<string, Case>> = {
  'one thread': { overrides: { threads: 1 }, offloads: ['activations'] },
  'two threads': { overrides: {}, offloads: ['optimizer', 'activations', 'all'] },
  Muon: { overrides: { optim: { name: 'muon' } }, offloads: ['optimizer'] },
  'two microbatches': { overrides: { accumulate: 2 }, offloads: ['activations'], microbatches: 2 },
  'only the inputs of layers are kept': {
    overrides: { recompute: 'full' },
    offloads: ['activations'],
    kept: 2 * 4 * 32 * 64 * 4, // layers, batch, context, width, bytes
  },
  'two ranks share the batch': {
    overrides: { threads: 1, mesh: { data: 2 } },
    offloads: ['all'],
    ranks: 2,
  },
}

// The rule: what lies in a file is not in memory. State comes and goes once a step, and what is kept once a microbatch.
for (const [name, { overrides, offloads, ranks = 1, microbatches = 1, kept }] of Object.entries(cases)) {
  test(`the same bits from a file, and the bytes that were declared: ${name}`, async () => {
    const none = await outcome(overrides)
    assert.deepEqual([none.memory.movedBytes, none.memory.offloadedBytes], [0, 0])
    for (const offload of offloads) {
      const { bits, memory } = await outcome({ ...overrides, offload })
      assert.deepEqual(bits, none.bits)
      const state = offload === 'activations' ? 0 : none.stateBytes
      const rest = none.memory.arenaBytes - memory.arenaBytes - state
      assert.equal(memory.movedBytes, 2 * ranks * (state + microbatches * rest))
      assert.ok(offload === 'optimizer' ? rest === 0 : rest > 0)
      assert.ok(memory.offloadedBytes >= state + rest)
      assert.equal(kept ?? rest, rest)
    }
  })
}

test('the stages of a pipeline each have their part in a file', async () => {
  const pipeline = { threads: 1, accumulate: 4, mesh: { pipe: 2 }, batch: 4 }
  const [none, all] = [await outcome(pipeline), await outcome({ ...pipeline, offload: 'all' })]
  assert.deepEqual(all.bits, none.bits)
  assert.ok(all.memory.movedBytes > 2 * 2 * none.stateBytes)
  assert.ok(all.memory.arenaBytes < none.memory.arenaBytes - none.stateBytes)
})

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

const scratch = mkdtempSync(join(tmpdir(), 'anneal-offload-'))
const cache = join(scratch, 'cache')
mkdirSync(cache)
const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', cache]).status === 0
after(() => {
  if (mounted) spawnSync('umount', [cache])
  rmSync(scratch, { recursive: true, force: true })
})

for (const offload of ['optimizer', 'activations']) {
  test(`a disk without room for the file is one error before the first step: ${offload}`, (t) => {
    t.diagnostic(mounted ? 'tried with a small tmpfs' : 'tried with a limit on the size of files')
    const data = join(scratch, 'text.txt')
    writeFileSync(data, 'All that glisters is not gold.\n'.repeat(100))
    const model = ['model.context=128', 'model.layers=4', 'model.width=256', 'batch=16', 'threads=1']
    const given = ['train', 'language', ...model, `data=${data}`, 'steps=1', `offload=${offload}`]
    const limit = mounted ? '' : 'ulimit -f 8192;'
    const script = `${limit} ANNEAL_CACHE="$0" exec "$@"`
    const command = [process.execPath, launcher, ...given, '--runs', join(scratch, 'runs')]
    const outcome = run('bash', ['-c', script, cache, ...command])
    assert.equal(outcome.code, 1, outcome.err)
    assert.match(
      errorLine(outcome),
      /^error: file .*offloaded-.* of what is offloaded: got (no space left on device|file too large); expected room for \d{8,} bytes; free some space, .*/,
    )
    assert.ok(!readdirSync(cache).some((name) => name.startsWith('offloaded-')))
  })
}
