/**
 * The bytes that partitioned training steps of the language model send, read from their graphs, against the closed forms of
 * the literature. Where the graph sends more, the test says what and why.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MeshAxis } from '../compiler/graph/mesh.ts'
import {
  compile,
  grad,
  leaves,
  sizeOf,
  valueType,
  type Tensor,
  type Tensors,
  type ValueType,
} from '../compiler/index.ts'
import { resolveConfig, type LanguageOverrides } from '../models/language/config.ts'
import { parameterTypes, tokenLosses, type ModelWeights } from '../models/language/model.ts'
import { parallelOf, type Plan } from './plan.ts'
import { sentBytes, trafficOfCut, type TrafficEntry } from './traffic.ts'

const [layers, width, time, batch] = [3, 32, 16, 8] as const
const [even, odd] = [32, 33]
const { model } = resolveConfig({
  batch,
  model: { layers, width, heads: 4, kvHeads: 4, context: time, block: 'gpt2' },
} as LanguageOverrides)
/** Elements of weights, of some paths. */
const elementsOf = (vocab: number, prefix = ''): number =>
  leaves<ValueType>(parameterTypes({ ...model, vocab }))
    .filter(([path]) => path.startsWith(prefix))
    .reduce((sum, [, { shape }]) => sum + sizeOf(shape), 0)

/** A gradient step of plain descent, so that all that is sent is the model's and its gradients'. */
async function trafficOf(
  mesh: readonly MeshAxis[],
  { vocab = even, ...plan }: Partial<Plan> & { readonly vocab?: number } = {},
): Promise<readonly TrafficEntry[]> {
  const config = { ...model, vocab }
  const types = parameterTypes(config)
  const inputs = { state: { params: types }, tokens: valueType('i32', [batch, time + 1], ['batch', 'time']) }
  const body = (given: Tensors): Tensors => {
    const { state, tokens } = given as unknown as { state: { params: ModelWeights }; tokens: Tensor }
    const value = tokenLosses(state.params, tokens, config).mean()
    const grads = new Map(leaves<Tensor>(grad(value, state.params)))
    const params = Object.fromEntries(
      leaves<Tensor>(state.params).map(([path, p]) => [path, p.sub(grads.get(path)!)]),
    )
    return { state: { params: nested(params) }, loss: value }
  }
  const parallel = parallelOf({ mesh, zero: 0, sequence: false, attention: 'ring', ...plan })
  const program = await compile(body as never, inputs, { target: 'reference', parallel })
  return trafficOfCut(program.cut!)[0]!.traffic
}

/** From paths to a tree. */
function nested(flat: Readonly<Record<string, Tensor>>): Tensors {
  const tree: Record<string, unknown> = {}
  for (const [path, tensor] of Object.entries(flat)) {
    const names = path.split('.')
    let at = tree
    for (const name of names.slice(0, -1)) at = (at[name] ??= {}) as Record<string, unknown>
    at[names.at(-1)!] = tensor
  }
  return tree as Tensors
}

const ofKind = (traffic: readonly TrafficEntry[], ...kinds: string[]): readonly TrafficEntry[] =>
  traffic.filter(({ kind }) => kinds.includes(kind))
/** Of loops over layers. */
const inLayers = (traffic: readonly TrafficEntry[]): readonly TrafficEntry[] =>
  traffic.filter(({ calls }) => calls === layers)

test('data parallel: 2 (d - 1) / d of the gradients, and the loss', async () => {
  for (const size of [2, 4]) {
    const traffic = await trafficOf([{ name: 'data', size }])
    const share = (2 * (size - 1)) / size
    assert.equal(sentBytes(traffic), share * (4 * elementsOf(even) + 4))
    assert.deepEqual([...new Set(traffic.map(({ kind }) => kind))], ['allReduce'])
  }
})

test('ZeRO 1 and 2 send what data parallelism sends', async () => {
  for (const size of [2, 4]) {
    for (const zero of [1, 2] as const) {
      const traffic = await trafficOf([{ name: 'data', size }], { zero, vocab: even })
      assert.equal(sentBytes(traffic), ((2 * (size - 1)) / size) * (4 * elementsOf(even) + 4))
    }
  }
})

test('ZeRO 3 gathers the weights of layers twice and scatters their gradients once: 3 (d - 1) / d', async () => {
  for (const size of [2, 4]) {
    // A table whose rows divide is looked up in as if it were vocabulary-parallel, which gathers activations besides.
    const traffic = await trafficOf([{ name: 'data', size }], { zero: 3, vocab: odd })
    const share = (size - 1) / size
    const inside = elementsOf(odd, 'layers.')
    // Embedding, head and last norm are not in a loop: gathered once, their backward pass has them still.
    const outside = elementsOf(odd) - inside
    assert.equal(sentBytes(traffic), share * (4 * (3 * inside + 2 * outside) + 2 * 4))
  }
})

test('tensor parallel: two all-reduces a layer forward and two backward, each 2 (t - 1) / t of batch x time x width', async () => {
  for (const size of [2, 4]) {
    const traffic = inLayers(await trafficOf([{ name: 'tensor', size }]))
    const each = ((2 * (size - 1)) / size) * batch * time * width * 4
    assert.equal(sentBytes(traffic), layers * 4 * each)
    assert.deepEqual([...new Set(traffic.map(({ kind }) => kind))], ['allReduce'])
    assert.equal(traffic.length, 4)
  }
})

test('sequence parallel: gathers and scatters as many bytes, and gathers twice more for gradients of weights', async () => {
  const size = 2
  const traffic = inLayers(await trafficOf([{ name: 'tensor', size }], { sequence: true }))
  const each = ((size - 1) / size) * batch * time * width * 4
  // Forward and backward: what four all-reduces would send.
  assert.equal(ofKind(traffic, 'reduceScatter').length, 4)
  // The inputs of the layer's first products are kept cut, one piece a rank, and gathered again where the gradients of
  // those products' weights need them: memory for bytes, as in Korthikanti et al.
  assert.equal(ofKind(traffic, 'allGather').length, 4 + 2)
  assert.equal(sentBytes(traffic), layers * (8 + 2) * each)
})

test('context ring: c - 1 blocks of keys and values forward; backward they and their gradients, and one more way home', async () => {
  for (const size of [2, 4]) {
    const traffic = inLayers(await trafficOf([{ name: 'context', size, order: 'zigzag' }]))
    const block = (batch * time * width * 4) / size
    const shifts = sentBytes(ofKind(traffic, 'shift'))
    const forward = 2 * (size - 1) * block
    // Keys and values again, and with them their gradients, which at the end go home.
    const backward = 2 * (size - 1) * block + 2 * size * block
    assert.equal(shifts, layers * (forward + backward))
  }
})

test('context by heads: four all-to-alls forward; backward cotangents and gradients', async () => {
  const size = 2
  const traffic = inLayers(await trafficOf([{ name: 'context', size }], { attention: 'heads' }))
  const each = ((size - 1) / size) * ((batch * time * width * 4) / size)
  const exchanged = ofKind(traffic, 'allToAll')
  const wide = exchanged.filter(({ bytes }) => bytes === (batch * time * width * 4) / size)
  // Forward q, k, v and the result; backward those four again, the cotangent of the result, and three gradients.
  assert.equal(wide.length, 4 + 8)
  assert.equal(sentBytes(wide), layers * 12 * each)
  // And the log-sum-exp, both ways.
  assert.equal(exchanged.length, wide.length + 2)
})

test('every collective names the line of the model that caused it', async () => {
  const traffic = await trafficOf([{ name: 'tensor', size: 2 }])
  assert.ok(inLayers(traffic).every(({ source }) => /model\.ts:\d+:\d+$/.test(source)))
})
