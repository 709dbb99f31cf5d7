/**
 * Every plan on native ranks: twenty training steps in f32 on threads of this process, beside the same steps on one
 * device, and the same steps as processes under MPI, with Node in them and without. The loss agrees to rounding;
 * repeats, teams of any size, and ranks as threads or as processes agree to the bit.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { before, test } from 'node:test'
import { localShape, ranksOf } from '../src/compiler/graph/mesh.ts'
import { sizeOf, type Program } from '../src/compiler/index.ts'
import { scatter } from '../src/compiler/pieces.ts'
import { findMpi, runMpi, withoutMpi } from '../src/compiler/runtime/mpi.ts'
import { compileExecutable } from '../src/compiler/runtime/toolchain.ts'
import { rankInput, rankOutput, rankProgramText } from '../src/compiler/targets/c/rank-main.ts'
import { parallelOf } from '../src/parallel/plan.ts'
import { initialise } from '../src/train/programs.ts'
import { planOf } from './plans.ts'
import {
  compileSmall,
  config,
  course,
  pipelineLosses,
  rankedOptions,
  steps,
  tokensOf,
  train,
  vocab,
  type Course,
} from './small-course.ts'

let alone: Course

before(async () => {
  alone = await course({ threads: 1 })
  assert.ok(alone.losses.at(-1)! < alone.losses[0]! - 0.3)
})

const plans = [
  'data=2',
  'data=4',
  'data=2 zero=1',
  'data=2 zero=2',
  'data=2 zero=3',
  'tensor=2',
  'tensor=2 sequence',
  'data=2 tensor=2',
  'context=2 attention=ring',
]

for (const plan of plans) {
  test(`${plan}: the losses of one device, and the same bits again`, async () => {
    const program = await compileSmall({ threads: 1, parallel: parallelOf(planOf(plan)) })
    try {
      const first = train(program)
      first.losses.forEach((loss, step) => {
        const want = alone.losses[step]!
        assert.ok(Math.abs(loss - want) <= 1e-5 * want, `step ${step}: ${loss}, one device ${want}`)
      })
      assert.deepEqual(train(program), first)
    } finally {
      program.close()
    }
  })
}

test('any team of each rank gives the same bits', async () => {
  const one = await course(rankedOptions)
  for (const threads of [2, 3]) assert.deepEqual(await course({ ...rankedOptions, threads }), one)
})

const noMpi = await withoutMpi()
const { mesh } = rankedOptions.parallel.placement
const ranks = ranksOf(mesh)

test('ranks as processes in Node give the bits of ranks as threads', { skip: noMpi }, async () => {
  const want = await course(rankedOptions)
  const script = fileURLToPath(new URL('train-as-rank.ts', import.meta.url))
  const printed = await runMpi(ranks, [process.execPath, script])
  const { losses, state } = JSON.parse(printed) as { losses: number[]; state: [string, number[]][] }
  assert.deepEqual({ losses, state: new Map(state) }, want)
})

test('a pipeline as processes gives the losses of the same one as threads', { skip: noMpi }, async () => {
  const want = await pipelineLosses('threads')
  assert.ok(want.every((loss) => loss !== null && loss > 0))
  const script = fileURLToPath(new URL('train-as-rank.ts', import.meta.url))
  const printed = await runMpi(4, [process.execPath, script, 'pipeline'])
  const each = printed
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as (number | null)[])
  const having = each.filter((losses) => losses[0] !== null)
  assert.ok(having.length > 0)
  for (const losses of having) assert.deepEqual(losses, want)
})

/** Runs the program as processes without Node, in a folder with every rank's input. */
async function asExecutable<T>(use: (path: string, folder: string, text: Program) => Promise<T>): Promise<T> {
  const text = await compileSmall({ ...rankedOptions, target: 'text' })
  const { flags } = await findMpi()
  const { path } = await compileExecutable({ name: 'train-step-mpi', source: rankProgramText(text), flags })
  const folder = mkdtempSync(join(tmpdir(), 'ranks-'))
  try {
    for (let rank = 0; rank < ranks; rank++) {
      writeFileSync(join(folder, `rank-${rank}.in`), inputOf(text, rank))
    }
    return await use(path, folder, text)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('ranks as processes without Node give the bits of ranks as threads', { skip: noMpi }, async () => {
  const want = await course(rankedOptions)
  await asExecutable(async (path, folder, text) => {
    const printed = await runMpi(ranks, [path, folder, String(steps)])
    assert.match(printed, /^20 steps, /)
    for (let rank = 0; rank < ranks; rank++) {
      const bytes = readFileSync(join(folder, `rank-${rank}.out`))
      const out = rankOutput(text.layout, bytes, steps)
      const losses = out.steps.map((values) => floats(values.get('loss')!)[0])
      assert.deepEqual(losses, want.losses, `rank ${rank}`)
    }
  })
})

test('a rank that does not come is named by those who wait for it', { skip: noMpi }, async () => {
  await asExecutable(async (path, folder, text) => {
    // Rank 3 reads its input from a pipe, in which nothing follows for the fourth step.
    const input = join(folder, 'rank-3.in')
    const whole = readFileSync(input)
    const perStep = whole.length - inputOf(text, 3, steps - 1).length
    rmSync(input)
    writeFileSync(join(folder, 'some'), whole.subarray(0, whole.length - (steps - 3) * perStep))
    execFileSync('mkfifo', [input])
    const feed = '[ "$OMPI_COMM_WORLD_RANK" = 3 ] && { { cat "$1/some"; sleep 5; } > "$1/rank-3.in" & }'
    await assert.rejects(
      runMpi(ranks, ['sh', '-c', `${feed}; exec "$0" "$1" 5`, path, folder], ['-x', 'ANNEAL_PATIENCE=1']),
      /rank [012] on .+, step 4, \w+ over \w+.*: rank [0-3] did not come within 1 seconds/,
    )
  })
})

const floats = (bytes: Uint8Array): Float32Array => new Float32Array(Uint8Array.from(bytes).buffer)

/** What a rank starts with, and what it is given in every step. */
function inputOf(program: Program, rank: number, count = steps): Buffer {
  const [part] = program.cut!.parts
  const whole = new Map<string, ArrayLike<number>>()
  const write = (path: string, values: ArrayLike<number>): unknown => whole.set(path, values)
  initialise({ write } as unknown as Program, config, vocab)
  whole.set('seed', [7])
  const given = Array.from({ length: count }, (_, step) => {
    whole.set('tokens', tokensOf(step))
    return new Map(
      [...program.inputs].map(([path, { dtype, shape }], i) => {
        const layout = part!.inputs[i]!
        const size = sizeOf(localShape(mesh, layout, shape))
        const data = dtype === 'i32' ? new Int32Array(size) : new Float32Array(size)
        scatter(mesh, layout, shape, whole.get(path) ?? new Float32Array(sizeOf(shape)), [{ rank, data }])
        return [path, new Uint8Array(data.buffer)]
      }),
    )
  })
  return rankInput(program.layout, given)
}
