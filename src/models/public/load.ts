/**
 * From a Hugging Face folder (`config.json` beside `model.safetensors`, or beside shards and their index) to weights in
 * memory, every tensor checked against what the config implies before one is read. Each layer's values are views into
 * the stacked array the program takes, so weights are held once. A tensor we have no place for is an error: leaving it
 * out would compute another model than the file's.
 */
import { openCheckpointFolder, type Safetensors } from '../../data/safetensors.ts'
import { didYouMean, failure } from '../../errors.ts'
import { leaves, sizeOf, type ValueType } from '../../compiler/index.ts'
import { partsOf, type Architecture, type Part } from './architecture.ts'
import { readPublicConfig, type PublicConfig } from './config.ts'
import { gpt2 } from './gpt2.ts'
import { llama } from './llama.ts'

/** A weight as the file has it: row-major, in the file's own layout. */
export interface Parameter {
  readonly shape: readonly number[]
  readonly values: Float32Array
}

/** One tensor of the file, and where its values lie in the stacked weight `path`. */
interface Place extends Part {
  readonly path: string
}

export interface LoadedModel {
  readonly folder: string
  readonly config: PublicConfig
  readonly architecture: Architecture
  /** By the name and in the order of the file. */
  readonly parameters: ReadonlyMap<string, Parameter>
  /** By path in `architecture.weights`. */
  readonly stacked: ReadonlyMap<string, Float32Array>
  /** Cuts arrays like `stacked` (gradients, say) into the file's tensors. */
  readonly unstack: (stacked: ReadonlyMap<string, Float32Array>) => Map<string, Parameter>
}

export const architectureOf = (config: PublicConfig): Architecture =>
  config.family === 'gpt2' ? gpt2(config) : llama(config)

/**
 * Reads a checkpoint folder of model_type gpt2, llama or qwen2. `memory` says where weights are to lie, by path; default
 * memory of their own.
 * @throws UserError naming file, tensor, what was got, what was expected and what to do.
 */
export function loadPublic(
  folder: string,
  memory: (path: string, size: number) => Float32Array = (_, size) => new Float32Array(size),
): LoadedModel {
  const config = readPublicConfig(folder)
  const architecture = architectureOf(config)
  const types = new Map(leaves<ValueType>(architecture.weights))
  const file = openCheckpointFolder(folder)
  try {
    const places = placesOf(file, folder, config, architecture, types)
    const stacked = new Map([...types].map(([path, type]) => [path, memory(path, sizeOf(type.shape))]))
    const unstack: LoadedModel['unstack'] = (arrays) =>
      new Map(
        [...places].map(([name, place]) => [name, { shape: place.shape, values: slice(arrays, place) }]),
      )
    const parameters = unstack(stacked)
    for (const [name, { values }] of parameters) values.set(file.readF32(name))
    return { folder, config, architecture, parameters, stacked, unstack }
  } finally {
    file.close()
  }
}

function slice(arrays: ReadonlyMap<string, Float32Array>, { path, shape, index }: Place): Float32Array {
  const size = sizeOf(shape)
  return arrays.get(path)!.subarray(index * size, (index + 1) * size)
}

/** The place of every weight in the file, in the file's order; errors for missing, misshapen and unknown tensors. */
function placesOf(
  file: Safetensors,
  folder: string,
  config: PublicConfig,
  { prefix, notWeights }: Architecture,
  types: ReadonlyMap<string, ValueType>,
): Map<string, Place> {
  const present = [...file.tensors.keys()]
  const bare = (name: string): string => (name.startsWith(prefix) ? name.slice(prefix.length) : name)
  const prefixed = present.some((name) => name.startsWith(prefix))
  const wanted = new Map<string, Place>()
  for (const [path, type] of types) {
    for (const part of partsOf(path, type)) {
      const name = prefixed && part.name !== headName ? prefix + part.name : part.name
      wanted.set(name, { ...part, path })
    }
  }
  for (const [name, { shape }] of wanted) checkTensor(file, folder, name, shape)
  const unknown = present.find(
    (name) => !wanted.has(name) && !notWeights.test(bare(name)) && !(config.tied && name === headName),
  )
  if (unknown !== undefined) {
    throw failure({
      where: `${folder}: tensor '${unknown}'`,
      got: 'a tensor this architecture has no place for',
      expected: `only the weights of a ${config.modelType} model with ${config.layers} layers`,
      fix: 'check model_type and the number of layers in config.json, or remove the tensor',
    })
  }
  return new Map(present.filter((name) => wanted.has(name)).map((name) => [name, wanted.get(name)!]))
}

const headName = 'lm_head.weight'

function checkTensor(file: Safetensors, folder: string, name: string, shape: readonly number[]): void {
  const found = file.tensors.get(name)
  const expected = `[${shape.join(', ')}], as config.json says`
  if (!found) {
    const near = didYouMean(name, [...file.tensors.keys()])
    throw failure({
      where: `${folder}: tensor '${name}'`,
      got: near ? `no such tensor, only '${near}' is near` : 'no such tensor',
      expected,
      fix: 'download the checkpoint again, or check that config.json belongs to it',
    })
  }
  if (found.shape.join() !== shape.join()) {
    throw failure({
      where: `${folder}: tensor '${name}'`,
      got: `[${found.shape.join(', ')}]`,
      expected,
      fix: 'check that config.json and the weights belong to the same model',
    })
  }
}
