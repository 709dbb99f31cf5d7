/**
 * A checkpoint of any plan goes on under any other: saved by native ranks under each of six plans, loaded under each of
 * the others. The state has the same bits; what is trained after that has the bits of the same plan from a state that was
 * written into it directly; and a run that goes on under its own plan, or from a data-parallel plan to another, has those of
 * a run that never stopped. Twenty steps each time.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { sizeOf, type Program } from '../src/compiler/index.ts'
import { resolveConfig, type LanguageConfig, type LanguageOverrides } from '../src/models/language/config.ts'
import { loadCheckpoint, openSaver, type CheckpointFile } from '../src/train/checkpoint.ts'
import { batchPlaces } from '../src/train/parallel.ts'
import { initialise } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'

const vocab = 16
const early = 3
const late = early + 20

/** Plans, and whether their steps have the bits of one device. */
const plans = {
  'one device': { exact: true },
  'data=2 zero=1': { exact: true, mesh: { data: 2 }, parallel: { zero: 1 } },
  // The same sums, but not in the order of one device.
  'data=2 zero=3': { exact: false, mesh: { data: 2 }, parallel: { zero: 3 } },
  'tensor=2 sequence': { exact: false, mesh: { tensor: 2 }, parallel: { sequence: true } },
  'pipe=2 interleaved': {
    exact: false,
    accumulate: 2,
    mesh: { pipe: 2 },
    parallel: { schedule: 'interleaved', stages: 2 },
  },
  'data=2 pipe=2 zero=1': {
    exact: false,
    accumulate: 2,
    mesh: { data: 2, pipe: 2 },
    parallel: { zero: 1 },
  },
} as const satisfies Record<string, LanguageOverrides & { readonly exact: boolean }>

type Name = keyof typeof plans
const names = Object.keys(plans) as Name[]

function configOf(name: Name): LanguageConfig {
  const { exact: _, ...plan }: LanguageOverrides & { readonly exact: boolean } = plans[name]
  return resolveConfig({
    batch: 8,
    leaves: 8,
    threads: 1,
    steps: 40,
    optim: { name: 'adamw', lr: 0.01 },
    model: { layers: 4, width: 16, heads: 2, context: 8 },
    ...plan,
  })
}

interface Trained {
  readonly config: LanguageConfig
  readonly program: Program
  /** After `early` steps: the state, and the checkpoint of it. */
  readonly state: State
  readonly path: string
  /** After `late` steps without a stop. */
  readonly straight: State
}

type State = ReadonlyMap<string, ArrayLike<number>>

const scratch = mkdtempSync(join(tmpdir(), 'anneal-matrix-'))
const trained = new Map<Name, Trained>()

const stateOf = (program: Program): State =>
  new Map(
    [...program.outputs.keys()]
      .filter((path) => path.startsWith('state.'))
      .map((path) => [path, program.view(path).slice()]),
  )

/** Steps on a pattern; `batchPlaces` says which rank has which window. */
function train(program: Program, config: LanguageConfig, from: number, to: number): State {
  const row = config.model.context + 1
  for (let step = from; step < to; step++) {
    const tokens = new Int32Array(config.batch * row)
    batchPlaces(config).forEach((place, window) => {
      for (let i = 0; i < row; i++) tokens[place * row + i] = (3 * i + 5 * step + window * window) % vocab
    })
    program.write('tokens', tokens)
    program.write('seed', [7])
    program.runBlocking()
  }
  return stateOf(program)
}

/** Tensors that have other bits in two states. */
const differing = (a: State, b: State): string[] =>
  [...a.keys()].filter((path) => {
    const [one, other] = [a.get(path)!, b.get(path)!]
    return one.length !== other.length || Array.from(one).some((value, i) => !Object.is(value, other[i]))
  })

before(async () => {
  for (const name of names) {
    const config = configOf(name)
    const program = await compileStep(config, vocab)
    for (const [path, { shape }] of program.inputs) program.write(path, new Float32Array(sizeOf(shape)))
    initialise(program, config, vocab)
    const runDir = join(scratch, name.replaceAll(/\W/g, '-'))
    const finished: CheckpointFile[] = []
    const saver = openSaver(program, {
      runDir,
      segment: 1,
      keep: 2,
      saved: (file) => void finished.push(file),
    })
    const state = train(program, config, 0, early)
    await saver.save(early, {})
    // What happens meanwhile is not in it.
    const straight = train(program, config, early, late)
    await saver.settle()
    await saver.close()
    assert.deepEqual(
      finished.map(({ step }) => step),
      [early],
    )
    trained.set(name, { config, program, state, straight, path: join(runDir, finished[0]!.file) })
  }
})

after(() => {
  for (const { program } of trained.values()) program.close()
  rmSync(scratch, { recursive: true, force: true })
})

const load = (path: string, program: Program): Promise<void> =>
  loadCheckpoint(path, program, (name) => `state.${name}`)

for (const from of names) {
  test(`saved under ${from}, the state and what follows have the same bits under every plan`, async () => {
    const { path, state } = trained.get(from)!
    for (const to of names) {
      const { program, config } = trained.get(to)!
      await load(path, program)
      assert.deepEqual(differing(state, stateOf(program)), [], `loaded under ${to}`)
      const resumed = train(program, config, early, late)
      for (const [path, values] of state) program.write(path, values)
      const direct = train(program, config, early, late)
      assert.deepEqual(differing(resumed, direct), [], `continued under ${to}`)
      if (from === to || (plans[from].exact && plans[to].exact)) {
        const { straight } = trained.get('one device')!
        const want = plans[to].exact ? straight : trained.get(to)!.straight
        assert.deepEqual(differing(resumed, want), [], `${from}, then ${to}, beside a run without a stop`)
      }
    }
  })
}
