/**
 * A model folder as one set of tensors: `model.safetensors`, or shards named by `model.safetensors.index.json`.
 * The subtle thing: the index is a second statement of what the shards hold, and the two must agree in both directions,
 * or a tensor would be missing, or hidden, without a word.
 */
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { failure } from '../../errors.ts'
import { explainRead, jsonProblem } from '../files.ts'
import { BUFFER_DIGEST, HEADER_DIGEST, damaged, duplicateKey, quote } from './format.ts'
import type { TensorInfo } from './format.ts'
import { openSafetensors, unknownTensor } from './reader.ts'
import type { Safetensors } from './reader.ts'

const SINGLE = 'model.safetensors'
const INDEX = 'model.safetensors.index.json'

/**
 * Opens the checkpoint at `path`: a folder as Hugging Face publishes them, or a single safetensors file.
 *
 * @throws UserError when there is none, a shard is missing or damaged, or index and shards disagree.
 */
export function openCheckpointFolder(path: string): Safetensors {
  try {
    if (!statSync(path).isDirectory()) return openSafetensors(path)
    if (existsSync(join(path, INDEX))) return openShards(path)
    if (existsSync(join(path, SINGLE))) return openSafetensors(join(path, SINGLE))
    throw noCheckpoint(path, readdirSync(path))
  } catch (error) {
    throw explainRead(error, path)
  }
}

function noCheckpoint(path: string, names: readonly string[]): Error {
  const other = names.find((name) => name.endsWith('.safetensors'))
  const pickled = names.find((name) => /\.(bin|pt|pth|ckpt)$/.test(name))
  return failure({
    where: path,
    got: other || pickled ? `a folder with ${other ?? pickled}` : 'a folder without weights',
    expected: `${SINGLE} or ${INDEX}`,
    fix: other
      ? `name the file itself: ${join(path, other)}`
      : pickled
        ? 'save the model as safetensors first: pickled files can run code and are not read'
        : 'name the folder of a checkpoint',
  })
}

function openShards(folder: string): Safetensors {
  const indexPath = join(folder, INDEX)
  const shardOf = readIndex(indexPath)
  const shards = new Map<string, Safetensors>()
  const closeAll = (): void => shards.forEach((shard) => shard.close())
  try {
    for (const file of new Set(shardOf.values())) shards.set(file, openSafetensors(join(folder, file)))
    const tensors = matchIndex(shardOf, shards, indexPath)
    const shardWith = (name: string): Safetensors => {
      const shard = shards.get(shardOf.get(name) ?? '')
      if (shard) return shard
      throw unknownTensor(name, [...shardOf.keys()], folder)
    }
    return {
      metadata: mergeMetadata([...shards.values()]),
      tensors,
      read: (name) => shardWith(name).read(name),
      readInto: (name, target, from) => shardWith(name).readInto(name, target, from),
      readF32: (name) => shardWith(name).readF32(name),
      verify: () => Array.from(shards.values(), (shard) => shard.verify()).every(Boolean),
      close: closeAll,
    }
  } catch (error) {
    closeAll()
    throw error
  }
}

/** tensor -> shard file, each a plain name within the folder. */
function readIndex(path: string): ReadonlyMap<string, string> {
  let json: unknown
  const text = readFileSync(path, 'utf8')
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw damaged(path, `no valid JSON (${jsonProblem(error)})`, 'a JSON object')
  }
  const repeated = duplicateKey(text)
  if (repeated !== undefined) throw damaged(path, `the key ${quote(repeated)} twice`, 'every name once')
  const map = typeof json === 'object' && json !== null && 'weight_map' in json ? json.weight_map : undefined
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw damaged(`${path}: weight_map`, quote(map), 'an object from tensor to file')
  }
  const entries = Object.entries(map)
  for (const [name, file] of entries) {
    if (typeof file === 'string' && /^[^/\\]+\.safetensors$/.test(file)) continue
    throw damaged(
      `${path}: tensor ${quote(name)}`,
      quote(file),
      'the name of a .safetensors file in the same folder',
    )
  }
  if (entries.length === 0) throw damaged(`${path}: weight_map`, 'no tensors', 'at least one')
  return new Map(entries as [string, string][])
}

/** All tensors in the order of the index, once index and shards are known to agree. */
function matchIndex(
  shardOf: ReadonlyMap<string, string>,
  shards: ReadonlyMap<string, Safetensors>,
  path: string,
): ReadonlyMap<string, TensorInfo> {
  for (const [file, shard] of shards) {
    for (const name of shard.tensors.keys()) {
      if (shardOf.get(name) === file) continue
      const claim = shardOf.has(name)
        ? `which the index places in ${shardOf.get(name)}`
        : 'which the index does not list'
      throw damaged(
        path,
        `tensor ${quote(name)} in ${file}, ${claim}`,
        'an index that agrees with the shards',
      )
    }
  }
  return new Map(
    Array.from(shardOf, ([name, file]) => {
      const tensor = shards.get(file)?.tensors.get(name)
      if (tensor) return [name, tensor] as const
      throw damaged(
        path,
        `tensor ${quote(name)} placed in ${file}, which does not hold it`,
        'an index that agrees with the shards',
      )
    }),
  )
}

/** The shards' metadata together, without the checksums, which speak of one file each. */
function mergeMetadata(shards: readonly Safetensors[]): Readonly<Record<string, string>> {
  const {
    [BUFFER_DIGEST]: _buffer,
    [HEADER_DIGEST]: _header,
    ...rest
  } = Object.assign({}, ...shards.map((s) => s.metadata))
  return rest
}
