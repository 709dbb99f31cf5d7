/**
 * A training step of a GPT-2 without biases in jax-js on its WebAssembly backend: the whole step (loss, gradient,
 * clipping, AdamW) is one jitted function. Usage: jax.mjs '<config, see ../torch_models.py>' [threads]
 *
 * Subtle: jax-js arrays are owned; `.ref` keeps one that is passed on and used again.
 */
import { normal, parameters, randomTokens, serve, shifted, versionOf } from './serve.mjs'
import { installWorkers } from './web-worker.mjs'

const config = JSON.parse(process.argv[2])
const threads = Number(process.argv[3] ?? 1)
// One worker more than none costs messages and gains nothing.
if (threads > 1) installWorkers(threads)
const {
  blockUntilReady,
  defaultDevice,
  init,
  jit,
  nn,
  numpy: np,
  tree,
  valueAndGrad,
} = await import('@jax-js/jax')
await init('wasm')
defaultDevice('wasm')

const { layers, width, heads, context, batch, vocab, lr, betas, eps, weightDecay, clip } = config
const [beta1, beta2] = betas
const dim = width / heads

const layerNorm = (x, weight) => nn.standardize(x, -1, { epsilon: 1e-5 }).mul(weight)

function forward(params, inputs) {
  let x = np.take(params.tokens.ref, inputs, 0).add(params.positions)
  for (let i = 0; i < layers; i++) {
    const qkv = np.dot(layerNorm(x.ref, params[`norm1.${i}`]), params[`qkv.${i}`])
    const [q, k, v] = np.split(qkv, 3, -1).map((part) => part.reshape([batch, context, heads, dim]))
    const mixed = nn.dotProductAttention(q, k, v, { isCausal: true }).reshape([batch, context, width])
    x = x.add(np.dot(mixed, params[`out.${i}`]))
    const hidden = np.dot(layerNorm(x.ref, params[`norm2.${i}`]), params[`up.${i}`])
    x = x.add(np.dot(nn.gelu(hidden, { approximate: true }), params[`down.${i}`]))
  }
  return np.dot(layerNorm(x, params.norm), np.transpose(params.tokens))
}

const loss = (params, inputs, targets) =>
  nn
    .logSoftmax(forward(params, inputs), -1)
    .mul(nn.oneHot(targets, vocab))
    .sum()
    .mul(-1 / (batch * context))

const train = jit((params, m, v, corrections, inputs, targets) => {
  const [value, raw] = valueAndGrad(loss)(tree.ref(params), inputs, targets)
  const squares = tree.leaves(tree.ref(raw)).map((g) => g.ref.mul(g).sum())
  const norm = np.sqrt(squares.reduce((a, b) => a.add(b)))
  const scale = np.minimum(np.array(clip).div(norm), 1)
  const grads = tree.map((g) => g.mul(scale.ref), raw)
  scale.dispose()
  const nextM = tree.map((m, g) => m.mul(beta1).add(g.mul(1 - beta1)), m, tree.ref(grads))
  const nextV = tree.map((v, g) => v.mul(beta2).add(g.ref.mul(g).mul(1 - beta2)), v, grads)
  const [one, two] = np.split(corrections, 2)
  const next = tree.map(
    (p, m, v) => {
      const step = m.mul(one.ref).div(np.sqrt(v.mul(two.ref)).add(eps))
      return p.mul(1 - lr * weightDecay).sub(step.mul(lr))
    },
    params,
    tree.ref(nextM),
    tree.ref(nextV),
  )
  one.dispose()
  two.dispose()
  return [next, nextM, nextV, value]
})

const list = parameters(config)
const sizeOf = (shape) => shape.reduce((a, b) => a * b)
const make = (fill) =>
  Object.fromEntries(
    list.map(([name, shape, std]) => [name, np.array(fill(sizeOf(shape), std)).reshape(shape)]),
  )
let params = make((count, std) => (std === null ? new Float32Array(count).fill(1) : normal(count, std)))
let m = make((count) => new Float32Array(count))
let v = make((count) => new Float32Array(count))
const given = shifted(randomTokens(config), config)
const ids = (values) => np.array(values, { dtype: np.int32 }).reshape([batch, context])
const inputs = ids(given.inputs)
const targets = ids(given.targets)
let count = 0

async function step() {
  count++
  const corrections = np.array(new Float32Array([1 / (1 - beta1 ** count), 1 / (1 - beta2 ** count)]))
  let value
  ;[params, m, v, value] = train(params, m, v, corrections, inputs.ref, targets.ref)
  await blockUntilReady(params)
  return (await value.data())[0]
}

const numParameters = list.reduce((sum, [, shape]) => sum + sizeOf(shape), 0)
await serve({ version: versionOf('@jax-js/jax'), threads, parameters: numParameters }, step)
