/** The meter against layers counted by hand, phase by phase, from the convention of docs/flops.md. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  adamw,
  attention,
  checkpoint,
  compile,
  conv,
  grad,
  inPhase,
  muon,
  rmsNorm,
  scan,
  valueType,
} from './index.ts'
import type { CompileOptions, Operations, Tensor, Tensors, ValueType } from './index.ts'

type Counts = Omit<Operations, 'total'>

const f32 = (...shape: number[]): ValueType => valueType('f32', shape)

/** Compiles for every target and for one and two threads, and demands these counts of all. */
async function assertCounts(
  types: Readonly<Record<string, ValueType>>,
  body: (x: Record<string, Tensor>) => Tensors,
  want: Partial<Counts>,
  { recompute = false }: Pick<CompileOptions, 'recompute'> = {},
): Promise<void> {
  const zero = { forward: 0, backward: 0, recompute: 0, optimizer: 0, data: 0, model: 0, paper2020: 0 }
  const expected: Counts = { ...zero, ...want }
  const total = expected.forward + expected.backward + expected.recompute + expected.optimizer + expected.data
  for (const options of [
    { target: 'reference' },
    ...[1, 2].map((threads) => ({ target: 'text', threads })),
  ]) {
    const program = await compile((x) => body(x as unknown as Record<string, Tensor>), types, {
      ...(options as CompileOptions),
      recompute,
    })
    assert.deepEqual(program.operations, { ...expected, total }, JSON.stringify(options))
    assert.equal(program.flops, total)
  }
}

/** A loss whose gradient for `y` is the data `t`: one multiplication and one sum, and nothing on the way back. */
const against = (y: Tensor, t: Tensor): Tensor => y.mul(t).sum()

test('linear layer: one product forward, two backward', () => {
  const [n, k, m] = [5, 7, 3]
  return assertCounts(
    { x: f32(n, k), w: f32(k, m), b: f32(m), t: f32(n, m) },
    ({ x, w, b, t }) => {
      const loss = against(x!.matmul(w!).add(b!.broadcastTo({ shape: [n, m], axes: [null, null] })), t!)
      return { loss, grads: grad(loss, { x: x!, w: w!, b: b! }) }
    },
    {
      forward: 2 * n * k * m + n * m + 2 * n * m,
      // The gradient of the bias is a sum over the rows.
      backward: 2 * (2 * n * k * m) + n * m,
      model: 3 * (2 * n * k * m),
      paper2020: 3 * n * k * m,
    },
  )
})

test('causal attention: two products forward, five backward, of which the model needs four', () => {
  const [batch, time, heads, dim] = [2, 5, 3, 4]
  const shape = f32(batch, time, heads, dim)
  const pairs = batch * heads * ((time * (time + 1)) / 2)
  const rows = batch * heads * time
  return assertCounts(
    { q: shape, k: shape, v: shape, t: shape },
    ({ q, k, v, t }) => {
      const loss = against(attention(q!, k!, v!), t!)
      return { loss, grads: grad(loss, { q: q!, k: k!, v: v! }) }
    },
    {
      forward: pairs * (4 * dim + 4) + rows * (2 * dim + 3) + 2 * rows * dim,
      backward: pairs * (10 * dim + 4) + rows * 4 * dim,
      model: pairs * (4 + 8) * dim,
      paper2020: pairs * 2 * dim * 3,
    },
  )
})

test('RMS norm: the backward pass takes the normalised values from the forward pass', () => {
  const [n, c] = [4, 6]
  return assertCounts(
    { x: f32(n, c), w: f32(c), t: f32(n, c) },
    ({ x, w, t }) => {
      const loss = against(rmsNorm(x!, w!), t!)
      return { loss, grads: grad(loss, { x: x!, w: w! }) }
    },
    {
      // Square, sum, scale, weight an element; mean, epsilon, root, reciprocal a row; the loss.
      forward: 4 * n * c + 4 * n + 2 * n * c,
      // d = t w; d n, its sum, n mean, subtract, times the factor; t n and its sum for w; one mean a row.
      backward: 8 * n * c + n,
    },
  )
})

test('convolution: both gradients count as much as the forward pass', () => {
  const [batch, length, from, to] = [2, 8, 3, 5]
  const pairs = 3 * length - 2
  const product = 2 * batch * pairs * from * to
  return assertCounts(
    { x: f32(batch, length, from), w: f32(3, from, to), t: f32(batch, length, to) },
    ({ x, w, t }) => {
      const loss = against(conv(x!, w!, { padding: 1 }), t!)
      return { loss, grads: grad(loss, { x: x!, w: w! }) }
    },
    {
      forward: product + 2 * batch * length * to,
      backward: 2 * product,
      model: 3 * product,
      paper2020: (product / 2) * 3,
    },
  )
})

test('AdamW: sixteen operations a parameter', () => {
  const [n, scalar] = [12, f32()]
  const p = f32(n)
  const options = { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1 }
  return assertCounts(
    { p, g: p, m: p, v: p, lr: scalar, c1: scalar, c2: scalar },
    ({ p, g, m, v, lr, c1, c2 }) => ({
      next: inPhase('optimizer', () => adamw([p!, g!, m!, v!, lr!, c1!, c2!], options))[0],
    }),
    // 3 for m, 4 for v, 5 for the step, 2 for the decay, 2 to move; and the rate of the decay, once.
    { optimizer: 16 * n + 1 },
  )
})

test('Muon: five Newton-Schulz steps are the optimizer, however many products they take', () => {
  const [r, c] = [4, 6]
  return assertCounts(
    { p: f32(r, c), g: f32(r, c), buffer: f32(r, c), lr: f32() },
    ({ p, g, buffer, lr }) => ({
      next: inPhase('optimizer', () => muon([p!, g!, buffer!, lr!], { momentum: 0.95, weightDecay: 0.1 }))[0],
    }),
    {
      optimizer:
        // Buffer 3 and Nesterov 2; square, sum and divide for the norm, which has a root and an epsilon.
        8 * r * c +
        2 +
        // A = X Xᵀ, A², (bA + cA²) X, aX + that.
        5 * (2 * r * r * c + 2 * r * r * r + 3 * r * r + 2 * r * r * c + 2 * r * c) +
        // Rate, decay and move: the two rates are scalars.
        4 * r * c +
        2,
    },
  )
})

test('a loop and its update: all steps, and sums over them', () => {
  const [steps, n] = [3, 4]
  return assertCounts(
    { start: f32(n), xs: f32(steps, n), w: f32(n, n) },
    ({ start, xs, w }) => {
      const step = (h: Tensor, x: Tensor): Tensor => h.reshape([1, n]).matmul(w!).reshape([n]).add(x)
      const [last] = scan({ h: start! }, { x: xs! }, ({ h }, { x }) => [{ h: step(h, x) }, {}])
      const g = grad(last.h.sum(), { w: w! }).w
      return { w: inPhase('optimizer', () => w!.sub(g.mul(0.1))) }
    },
    {
      // Nobody asks for the loss, so it is not summed.
      forward: steps * (2 * n * n + n),
      // Two products a step, and one more row of the sum of gradients.
      backward: steps * (2 * (2 * n * n) + n * n),
      optimizer: 2 * n * n,
      model: steps * 3 * (2 * n * n),
      paper2020: steps * 3 * n * n,
    },
  )
})

test('a checkpoint is computed again, which the model does not need', async () => {
  const [n, k, m] = [5, 7, 3]
  const product = 2 * n * k * m
  const types = { x: f32(n, k), w: f32(k, m), t: f32(n, m) }
  const body = ({ x, w, t }: Record<string, Tensor>): Tensors => {
    const y = checkpoint(({ w }) => x!.matmul(w).exp(), { w: w! })
    const loss = against(y, t!)
    return { loss, grads: grad(loss, { w: w! }) }
  }
  const counts = {
    forward: product + 3 * n * m,
    backward: n * m + product,
    model: 2 * product,
    paper2020: (product / 2) * 3,
  }
  await assertCounts(types, body, counts)
  await assertCounts(types, body, { ...counts, recompute: product + n * m }, { recompute: true })
})
