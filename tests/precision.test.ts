/**
 * `precision=bf16` trains like f32: the same recipe, seed and data on the bundled text, with the loss curves in a stated
 * band (docs/precision.md). Runs are deterministic, so the band is checked, not estimated. Gradients are clipped: in a
 * run whose first steps are unstable, any rounding, of f32 too, sends the curve elsewhere.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { compile, grad, scan, valueType, type Tensor } from '../src/compiler/index.ts'
import { resolveConfig } from '../src/models/language/config.ts'
import { readRun } from '../src/runs/index.ts'
import { trainLanguage } from '../src/train/language.ts'

const runsDir = mkdtempSync(join(tmpdir(), 'anneal-precision-'))
after(() => rmSync(runsDir, { recursive: true, force: true }))

const steps = 200
const window = 20

/** Means of the training loss over windows of steps, and the validation loss at the end. */
async function trained(precision: 'f32' | 'bf16'): Promise<{ curve: number[]; validation: number }> {
  const config = resolveConfig({
    steps,
    batch: 8,
    precision,
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

test('the loss of bf16 stays within 0.5 % of that of f32, and is not the same', async () => {
  const f32 = await trained('f32')
  const bf16 = await trained('bf16')
  assert.ok(f32.validation < 2.6, `f32 has learnt: ${f32.validation}`)
  const apart = (a: number, b: number): number => Math.abs(a - b) / b
  const worst = Math.max(...bf16.curve.map((loss, i) => apart(loss, f32.curve[i]!)))
  assert.ok(worst < 0.005, `training losses differ by ${worst}`)
  const end = apart(bf16.validation, f32.validation)
  assert.ok(end < 0.005, `validation losses differ by ${end}: ${bf16.validation}, ${f32.validation}`)
  assert.notDeepEqual(bf16.curve, f32.curve)
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
async function gradients(options: { threads?: number; target?: 'reference' }): Promise<Float64Array[]> {
  const program = await compile(network, types, { precision: 'bf16', checking: true, ...options })
  const wave = (size: number, rate: number): Float32Array =>
    Float32Array.from({ length: size }, (_, i) => Math.sin(i * rate) * 0.4)
  await program.run({ x: wave(48 * 40, 1.7), w: wave(3 * 40 * 40, 2.3), v: wave(40 * 33, 0.9) })
  const values = ['loss', 'grads.w', 'grads.v'].map((path) => Float64Array.from(program.view(path)))
  if (options.target !== 'reference') assert.equal(program.countedFlops(), program.flops)
  program.close()
  return values
}

test('a bf16 program agrees with the float64 reference, counts its FLOPs, and gives the same bits on 1, 2 and 3 threads', async () => {
  const want = await gradients({ target: 'reference' })
  const got = await gradients({ threads: 1 })
  want.forEach((expected, i) => {
    const size = Math.sqrt(expected.reduce((sum, x) => sum + x * x, 0))
    const gap = Math.sqrt(expected.reduce((sum, x, j) => sum + (x - got[i]![j]!) ** 2, 0))
    assert.ok(gap < 2e-3 * size, `result ${i}: ${gap / size}`)
  })
  for (const threads of [2, 3]) assert.deepEqual(await gradients({ threads }), got)
})
