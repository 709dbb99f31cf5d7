/**
 * Reduced precision trains like f32: the same recipe, seed and data on the bundled text, with the loss curves in a stated
 * band (docs/precision.md). Runs are deterministic, so the band is checked, not estimated. Gradients are clipped: in a
 * run whose first steps are unstable, any rounding, of f32 too, sends the curve elsewhere.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { compile, grad, scan, valueType, type Program, type Tensor } from '../src/compiler/index.ts'
import { resolveConfig, type LanguageConfig } from '../src/models/language/config.ts'
import { readRun } from '../src/runs/index.ts'
import { trainLanguage } from '../src/train/language.ts'
import { initialise } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'

const runsDir = mkdtempSync(join(tmpdir(), 'anneal-precision-'))
after(() => rmSync(runsDir, { recursive: true, force: true }))

const steps = 200
const window = 20

/** Means of the training loss over windows of steps, and the validation loss at the end. */
interface Trained {
  readonly curve: readonly number[]
  readonly validation: number
}

async function trained(
  precision: LanguageConfig['precision'],
  fp8Scaling: LanguageConfig['fp8Scaling'] = 'row',
): Promise<Trained> {
  const config = resolveConfig({
    steps,
    batch: 8,
    precision,
    fp8Scaling,
    model: { block: 'gpt2', context: 64, layers: 2, width: 128, heads: 4 },
    optim: { name: 'adamw', lr: 1e-3, warmup: 20, clip: 1 },
    eval: { every: 0 },
    sample: { every: 0, tokens: 1 },
  })
  const { runId, status } = await trainLanguage(config, { runsDir })
  assert.equal(status, 'finished')
  const { points } = readRun(runsDir, runId)
  const losses = points.flatMap(({ metrics }) => metrics['loss'] ?? [])
  const validation = points.flatMap(({ metrics }) => metrics['validationLoss'] ?? []).at(-1)!
  const curve = Array.from(
    { length: steps / window },
    (_, i) => losses.slice(i * window, (i + 1) * window).reduce((a, b) => a + b) / window,
  )
  return { curve, validation }
}

const apart = (a: number, b: number): number => Math.abs(a - b) / b
let plain: Promise<Trained> | undefined
let half: Promise<Trained> | undefined

/** Largest relative distance of any window, and of the validation loss, between two precisions. */
function compare(one: Trained, other: Trained): { worst: number; end: number } {
  return {
    worst: Math.max(...one.curve.map((loss, i) => apart(loss, other.curve[i]!))),
    end: apart(one.validation, other.validation),
  }
}

for (const precision of ['bf16', 'fp16'] as const) {
  test(`the loss of ${precision} stays within 0.5 % of that of f32, and is not the same`, async () => {
    const f32 = await (plain ??= trained('f32'))
    const narrow = await (precision === 'bf16' ? (half ??= trained(precision)) : trained(precision))
    assert.ok(f32.validation < 2.6, `f32 has learnt: ${f32.validation}`)
    const { worst, end } = compare(narrow, f32)
    assert.ok(worst < 0.005, `training losses differ by ${worst}`)
    assert.ok(end < 0.005, `validation losses differ by ${end}: ${narrow.validation}, ${f32.validation}`)
    assert.notDeepEqual(narrow.curve, f32.curve)
  })
}

const snapshot = (program: Program, paths: readonly string[]): number[][] =>
  paths.map((path) => Array.from(program.view(`state.${path}`)))

/** 8 bits are coarse: the curve is near that of bf16, and never said to be the same. */
for (const scaling of ['row', 'mx'] as const) {
  test(`the loss of emulated fp8 with scales by ${scaling} stays within 1 % of that of bf16`, async () => {
    const { worst, end } = compare(await trained('fp8', scaling), await (half ??= trained('bf16')))
    assert.ok(worst < 0.01 && worst > 1e-4, `training losses differ by ${worst}`)
    assert.ok(end < 0.01, `validation losses differ by ${end}`)
  })
}

test('the recipe with fp16: a step whose gradients overflow is skipped, the next ones train', async () => {
  const config = resolveConfig({
    precision: 'fp16',
    batch: 2,
    threads: 1,
    model: { block: 'gpt2', context: 16, layers: 2, width: 32 },
    optim: { name: 'adamw', lr: 3e-3, warmup: 0, lossScale: 2 ** 24, lossScaleSteps: 5 },
  })
  const program = await compileStep(config, 29)
  initialise(program, config, 29)
  const paths = [...program.inputs.keys()].flatMap((path) =>
    path.startsWith('state.') && !path.includes('lossScale') ? [path.replace('state.', '')] : [],
  )
  assert.ok(paths.length > 20)
  const tokens = Int32Array.from({ length: 2 * 17 }, (_, i) => (i * 7) % 29)
  const scales: number[] = []
  let skips = 0
  let updates = 0
  for (let i = 0; i < 40; i++) {
    const before = snapshot(program, paths)
    await program.run({ tokens, seed: [1] })
    scales.push(program.view('lossScale')[0]!)
    assert.ok(Number.isFinite(program.view('loss')[0]))
    if (program.view('skipped')[0] === 1) {
      skips++
      assert.deepEqual(snapshot(program, paths), before)
      assert.equal(program.view('state.lossScale.scale')[0], scales.at(-1)! / 2)
    } else updates++
    assert.equal(program.view('state.step')[0], updates)
  }
  assert.equal(scales[0], 2 ** 24)
  // Too large at first, then it grows until it is too large again.
  assert.ok(skips >= 3 && updates >= 20, `${skips} skipped, ${updates} updates: ${scales}`)
  assert.ok(program.view('loss')[0]! < 0.7 * Math.log(29), `${program.view('loss')[0]}`)
  program.close()
})

/** Three layers with weights, a nonlinearity and a loss; gradients of everything. */
const network = ({ x, w, v }: { x: Tensor; w: Tensor; v: Tensor }) => {
  const [last] = scan(x, { w }, (x, slice) => [x.matmul(slice.w).tanh().add(x), {}], { name: 'layers' })
  const loss = last.matmul(v).square().mean()
  return { loss, grads: grad(loss, { w, v }) }
}
const f32 = (...shape: number[]) => valueType('f32', shape)
const types = { x: f32(48, 40), w: f32(3, 40, 40), v: f32(40, 33) }

/** Loss and gradients, after a check of the operations that were counted. */
async function gradients(options: {
  precision: LanguageConfig['precision']
  threads?: number
  target?: 'reference'
}): Promise<Float64Array[]> {
  const program = await compile(network, types, { checking: true, ...options })
  const wave = (size: number, rate: number): Float32Array =>
    Float32Array.from({ length: size }, (_, i) => Math.sin(i * rate) * 0.4)
  await program.run({ x: wave(48 * 40, 1.7), w: wave(3 * 40 * 40, 2.3), v: wave(40 * 33, 0.9) })
  const values = ['loss', 'grads.w', 'grads.v'].map((path) => Float64Array.from(program.view(path)))
  if (options.target !== 'reference') assert.equal(program.countedFlops(), program.flops)
  program.close()
  return values
}

for (const precision of ['bf16', 'fp16', 'fp8'] as const) {
  test(`a ${precision} program agrees with the float64 reference, counts its FLOPs, and gives the same bits on 1, 2 and 3 threads`, async () => {
    const want = await gradients({ precision, target: 'reference' })
    const got = await gradients({ precision, threads: 1 })
    want.forEach((expected, i) => {
      const size = Math.sqrt(expected.reduce((sum, x) => sum + x * x, 0))
      const gap = Math.sqrt(expected.reduce((sum, x, j) => sum + (x - got[i]![j]!) ** 2, 0))
      assert.ok(gap < 2e-3 * size, `result ${i}: ${gap / size}`)
    })
    for (const threads of [2, 3]) assert.deepEqual(await gradients({ precision, threads }), got)
  })
}
