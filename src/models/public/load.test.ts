/** Loading: names and views, the layouts public files come in, and folders that are damaged or do not fit together. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openSafetensors, writeSafetensors, type TensorData } from '../../data/safetensors.ts'
import { UserError } from '../../errors.ts'
import { loadPublic } from './load.ts'
import { publicModel } from './model.ts'
import { fixture } from './testing.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-public-'))
after(() => rmSync(root, { recursive: true }))

const ones = (size: number): Float32Array => new Float32Array(size).fill(1)

/** A copy of a fixture that a test may change. */
function copyOf(name: string): string {
  const folder = mkdtempSync(join(root, `${name}-`))
  cpSync(fixture(name), folder, { recursive: true })
  return folder
}

function editConfig(folder: string, changes: Readonly<Record<string, unknown>>): void {
  const path = join(folder, 'config.json')
  const config = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  writeFileSync(path, JSON.stringify({ ...config, ...changes }))
}

/** Rewrites model.safetensors through `change`, which sees every tensor as f32. */
function editWeights(folder: string, change: (tensors: TensorData[]) => TensorData[]): void {
  const path = join(folder, 'model.safetensors')
  const file = openSafetensors(path)
  const tensors = Array.from(file.tensors, ([name, { shape }]): TensorData => {
    return { name, dtype: 'F32', shape, data: file.readF32(name) }
  })
  file.close()
  writeSafetensors(path, change(tensors), {})
}

const zeros = (name: string, ...shape: number[]): TensorData => ({
  name,
  dtype: 'F32',
  shape,
  data: new Float32Array(shape.reduce((product, extent) => product * extent, 1)),
})

const refused = (folder: string, message: RegExp): void =>
  assert.throws(
    () => loadPublic(folder),
    (error) => error instanceof UserError && error.message.startsWith(folder) && message.test(error.message),
  )

test('parameters have the names, the order and the values of the file; layers are views into one array', () => {
  const folder = fixture('llama3-tiny')
  const { parameters, stacked } = loadPublic(folder)
  const file = openSafetensors(join(folder, 'model.safetensors'))
  assert.deepEqual([...parameters.keys()], [...file.tensors.keys()])
  for (const [name, { shape, values }] of parameters) {
    assert.deepEqual(shape, file.tensors.get(name)!.shape)
    assert.deepEqual(values, file.readF32(name), name)
  }
  file.close()
  const second = parameters.get('model.layers.1.mlp.up_proj.weight')!.values
  assert.equal(second.buffer, stacked.get('layers.mlp.up_proj.weight')!.buffer)
})

test('GPT-2 as first published: no prefix, mask tensors beside the weights', async () => {
  const folder = copyOf('gpt2-tiny')
  editWeights(folder, (tensors) => [
    ...tensors.map((tensor) => ({ ...tensor, name: tensor.name.replace('transformer.', '') })),
    zeros('h.0.attn.bias', 1, 1, 32, 32),
    zeros('h.1.attn.masked_bias', 1),
  ])
  const bare = publicModel(folder, { target: 'reference' })
  const prefixed = publicModel(fixture('gpt2-tiny'), { target: 'reference' })
  assert.ok(bare.parameters.has('h.0.ln_1.weight') && !bare.parameters.has('h.0.attn.bias'))
  const tokens = [[3, 17, 5]]
  assert.deepEqual(await bare.logits(tokens), await prefixed.logits(tokens))
  const { gradients } = await bare.lossAndGradients(tokens)
  assert.deepEqual([...gradients.keys()], [...bare.parameters.keys()])
})

test('a tied head that was saved all the same is left out; an untied one is used', async () => {
  const tied = copyOf('smollm2-tiny')
  editWeights(tied, (tensors) => [...tensors, zeros('lm_head.weight', 96, 36)])
  assert.ok(!loadPublic(tied).parameters.has('lm_head.weight'))
  editConfig(tied, { tie_word_embeddings: false })
  const untied = publicModel(tied, { target: 'reference' })
  assert.deepEqual((await untied.logits([[1]])).values, new Float32Array(96))
})

const logits = async (folder: string): Promise<Float32Array> =>
  (await publicModel(folder, { target: 'reference' }).logits([[3, 17, 5]])).values

test('optional biases on every projection: zeros change nothing, others do', async () => {
  const folder = copyOf('smollm2-tiny')
  const rows = { q: 36, k: 12, v: 12, o: 36, gate: 64, up: 64, down: 36 }
  const biases = [0, 1].flatMap((layer) =>
    Object.entries(rows).map(([name, size]) => {
      const group = size === 64 || name === 'down' ? 'mlp' : 'self_attn'
      return zeros(`model.layers.${layer}.${group}.${name}_proj.bias`, size)
    }),
  )
  editConfig(folder, { attention_bias: true, mlp_bias: true })
  editWeights(folder, (tensors) => [...tensors, ...biases])
  let before = await logits(fixture('smollm2-tiny'))
  assert.deepEqual(await logits(folder), before)
  for (const bias of biases) {
    editWeights(folder, (tensors) =>
      tensors.map((tensor) =>
        tensor.name === bias.name ? { ...tensor, data: ones(tensor.shape[0]!) } : tensor,
      ),
    )
    const now = await logits(folder)
    assert.notDeepEqual(now, before, bias.name)
    before = now
  }
})

test('missing tensor', () => {
  const folder = copyOf('smollm2-tiny')
  editWeights(folder, (tensors) => tensors.filter(({ name }) => name !== 'model.layers.1.mlp.up_proj.weight'))
  refused(folder, /'model\.layers\.1\.mlp\.up_proj\.weight': got no such tensor.*expected \[64, 36\]/)
})

test('a head that the config says is untied but the file lacks', () => {
  const folder = copyOf('smollm2-tiny')
  editConfig(folder, { tie_word_embeddings: false })
  refused(folder, /'lm_head\.weight': got no such tensor.*expected \[96, 36\]/)
})

test('wrong shape', () => {
  const folder = copyOf('qwen2-tiny')
  editConfig(folder, { intermediate_size: 40 })
  refused(folder, /mlp\.gate_proj\.weight': got \[48, 32\]; expected \[40, 32\], as config\.json says/)
})

test('more layers in the config than in the file, and fewer', () => {
  const folder = copyOf('gpt2-tiny')
  editConfig(folder, { n_layer: 3 })
  refused(folder, /'transformer\.h\.2\.ln_1\.weight': got no such tensor/)
  editConfig(folder, { n_layer: 1 })
  refused(folder, /'transformer\.h\.1\.\S+': got a tensor this architecture has no place for/)
})

test('biases the architecture does not have are not dropped in silence', () => {
  const folder = copyOf('qwen2-tiny')
  editConfig(folder, { model_type: 'llama' })
  refused(folder, /self_attn\.k_proj\.bias': got a tensor this architecture has no place for.*llama/)
})

test('unknown model type, no config, a config that is not JSON', () => {
  const folder = copyOf('llama3-tiny')
  editConfig(folder, { model_type: 'gpt_neox' })
  refused(folder, /config\.json: model_type: got 'gpt_neox'; expected one of gpt2, llama, qwen2/)
  writeFileSync(join(folder, 'config.json'), '{"model_type": "llama"')
  refused(folder, /config\.json: got text that is not JSON/)
  rmSync(join(folder, 'config.json'))
  refused(folder, /config\.json: got no such file or folder/)
})

test('truncated shard, missing shard', () => {
  const folder = copyOf('smollm2-tiny-bf16-sharded')
  const shard = join(folder, 'model-00002-of-00003.safetensors')
  truncateSync(shard, 5000)
  refused(folder, /model-00002-of-00003\.safetensors/)
  rmSync(shard)
  refused(folder, /model-00002-of-00003\.safetensors/)
})

test('weights of a type that is not a float', () => {
  const folder = copyOf('smollm2-tiny')
  editWeights(folder, (tensors) =>
    tensors.map((tensor) =>
      tensor.name === 'model.norm.weight' ? { ...tensor, dtype: 'I8', data: new Int8Array(36) } : tensor,
    ),
  )
  refused(folder, /model\.norm\.weight.*I8/)
})
