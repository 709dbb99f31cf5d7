/**
 * A training step of a GPT-2 without biases in TensorFlow.js on its WebAssembly backend (SIMD; in Node that backend has
 * one thread). Usage: tfjs.mjs '<config, see ../torch_models.py>'
 *
 * Subtle: the backend has no kernel for the gradient of a lookup (UnsortedSegmentSum), so the embedding is a product with
 * one-hot rows, as its users do.
 */
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { normal, parameters, randomTokens, serve, shifted, versionOf } from './serve.mjs'

const require = createRequire(import.meta.url)
const tf = require('@tensorflow/tfjs')
const wasm = require('@tensorflow/tfjs-backend-wasm')

const config = JSON.parse(process.argv[2])
wasm.setWasmPaths(`${dirname(require.resolve('@tensorflow/tfjs-backend-wasm'))}/`)
await tf.setBackend('wasm')
await tf.ready()

const { layers, width, heads, context, batch, vocab, lr, betas, eps, weightDecay, clip } = config
const dim = width / heads
const rows = batch * context
const causal = tf.tidy(() =>
  tf.linalg
    .bandPart(tf.ones([context, context]), -1, 0)
    .sub(1)
    .mul(1e9),
)

const variables = Object.fromEntries(
  parameters(config).map(([name, shape, std]) => {
    const count = shape.reduce((a, b) => a * b)
    const values = std === null ? new Float32Array(count).fill(1) : normal(count, std)
    return [name, tf.variable(tf.tensor(values, shape), true, name)]
  }),
)
const given = shifted(randomTokens(config), config)
const oneHot = (ids) => tf.oneHot(tf.tensor1d(ids, 'int32'), vocab).toFloat()
const inputs = oneHot(given.inputs)
const targets = oneHot(given.targets)

function layerNorm(x, weight) {
  const centred = x.sub(x.mean(-1, true))
  return centred.mul(centred.square().mean(-1, true).add(1e-5).rsqrt()).mul(weight)
}

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
const gelu = (x) =>
  x
    .mul(
      x
        .square()
        .mul(0.044715)
        .add(1)
        .mul(x)
        .mul(Math.sqrt(2 / Math.PI))
        .tanh()
        .add(1),
    )
    .mul(0.5)

/**
 * The backend's fast product takes one pair of matrices, neither transposed; the library's own gradient asks for transposed
 * ones and gets a slow loop. Transposing first is several times faster.
 */
const product = tf.customGrad((a, b, save) => {
  save([a, b])
  const gradFunc = (dy, [a, b]) => [dy.matMul(b.transpose()), a.transpose().matMul(dy)]
  return { value: a.matMul(b), gradFunc }
})

function attend(normed, qkv) {
  const heading = (part) => part.reshape([batch, context, heads, dim]).transpose([0, 2, 1, 3])
  const [q, k, v] = tf.split(product(normed, qkv), 3, 1).map(heading)
  const weights = q
    .matMul(k, false, true)
    .mul(1 / Math.sqrt(dim))
    .add(causal)
    .softmax()
  return weights.matMul(v).transpose([0, 2, 1, 3]).reshape([rows, width])
}

function loss() {
  const { tokens, positions, norm } = variables
  let x = product(inputs, tokens).reshape([batch, context, width]).add(positions).reshape([rows, width])
  for (let i = 0; i < layers; i++) {
    const weight = (name) => variables[`${name}.${i}`]
    x = x.add(product(attend(layerNorm(x, weight('norm1')), weight('qkv')), weight('out')))
    x = x.add(product(gelu(product(layerNorm(x, weight('norm2')), weight('up'))), weight('down')))
  }
  const logits = product(layerNorm(x, norm), tokens.transpose())
  return tf.losses.softmaxCrossEntropy(targets, logits)
}

const adam = tf.train.adam(lr, betas[0], betas[1], eps)
const list = Object.values(variables)

async function step() {
  const value = tf.tidy(() => {
    const { value, grads } = tf.variableGrads(loss, list)
    const norm = tf.addN(Object.values(grads).map((g) => g.square().sum())).sqrt()
    const scale = tf.minimum(tf.scalar(clip).div(norm), 1)
    for (const name of Object.keys(grads)) grads[name] = grads[name].mul(scale)
    for (const variable of list) variable.assign(variable.mul(1 - lr * weightDecay))
    adam.applyGradients(grads)
    return value
  })
  const [number] = await value.data()
  value.dispose()
  return number
}

const numParameters = list.reduce((sum, { size }) => sum + size, 0)
await serve({ version: versionOf('@tensorflow/tfjs'), threads: 1, parameters: numParameters }, step)
