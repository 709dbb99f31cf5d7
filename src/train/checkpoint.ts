/**
 * Checkpoints of a run: the whole training state (parameters, optimizer, step). A run on one device writes it as one
 * safetensors file, beside and renamed, so that at every moment the newest complete one can be read; ranks write a folder
 * (data/checkpoints). What decides the next step besides the state (seed, data order) is a pure function of the step
 * number, so nothing else needs saving.
 * The subtle thing: both forms are read by the same code, so a run goes on under any plan, whatever plan wrote it.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import type { DType, Program } from '../compiler/index.ts'
import * as stored from '../data/checkpoints.ts'
import { nameOf, openCheckpoint, prune, sweep, useNewestIn, wholeBox } from '../data/checkpoints.ts'
import type { Holding } from '../data/checkpoints.ts'
import { makeFolder } from '../data/files.ts'
import { writeSafetensors } from '../data/safetensors.ts'
import type { Dtype } from '../data/safetensors.ts'
import { failure } from '../errors.ts'

const folderName = 'checkpoints'
const prefix = 'state.'

export interface CheckpointFile {
  readonly step: number
  /** Path relative to the run's folder: a file, or the folder of a checkpoint of several ranks. */
  readonly file: string
  readonly bytes: number
  /** Of a folder: its files with tensors. */
  readonly files?: number
}

/** The run's folder of checkpoints. */
export const checkpointFolder = (runDir: string): string => join(runDir, folderName)

/** Complete checkpoints of a run, oldest first. What a killed writer left is not among them. */
export const listCheckpoints = (runDir: string): CheckpointFile[] =>
  stored.listCheckpoints(checkpointFolder(runDir)).map(describe)

const describe = ({ step, name, bytes, files }: stored.CheckpointEntry): CheckpointFile => ({
  step,
  file: join(folderName, name),
  bytes,
  ...(name.endsWith('.safetensors') ? {} : { files }),
})

/** Writes the state of a step program; older ones beyond `keep` go only after the new one is in place. */
export async function saveCheckpoint(
  runDir: string,
  program: Program,
  step: number,
  { keep, metadata }: { readonly keep: number; readonly metadata: Readonly<Record<string, string>> },
): Promise<CheckpointFile> {
  const folder = checkpointFolder(runDir)
  makeFolder(folder)
  sweep(folder, step)
  const tensors = [...program.outputs.keys()].flatMap((path) => {
    if (!path.startsWith(prefix)) return []
    const {
      path: name,
      dtype,
      globalShape: shape,
      data,
    } = holdingOf(program, path, path.slice(prefix.length))
    return [{ name, dtype, shape, data }]
  })
  const name = `${nameOf(step)}.safetensors`
  writeSafetensors(join(folder, name), tensors, { format: 'anneal', step: String(step), ...metadata })
  prune(folder, step, keep)
  return describe({ step, name, bytes: statSync(join(folder, name)).size, files: 1 })
}

/** What a program on one device holds of a tensor: all of it, at `at` in its memory. */
function holdingOf(program: Program, at: string, path: string): Holding {
  const { dtype, shape } = (program.inputs.get(at) ?? program.outputs.get(at))!
  const data = program.view(at)
  // The reference calculates in float64 whatever the type says.
  const form = data instanceof Float64Array ? 'F64' : storedAs[dtype]
  return { path, dtype: form, globalShape: shape, box: wholeBox(shape), data }
}

const storedAs = {
  f32: 'F32',
  f64: 'F64',
  bf16: 'BF16',
  f16: 'F16',
  i32: 'I32',
  u8: 'U8',
  bool: 'BOOL',
} as const satisfies Record<DType, Dtype>

/** Reads a checkpoint into a program: every tensor is checked before the first one is written. */
export async function loadCheckpoint(
  path: string,
  program: Program,
  into: (name: string) => string | undefined,
  needed: (input: string) => boolean = (input) => input.startsWith(prefix),
): Promise<void> {
  const checkpoint = openCheckpoint(path)
  try {
    const wanted: Holding[] = []
    const missing = new Set([...program.inputs.keys()].filter(needed))
    for (const [name, { shape }] of checkpoint.tensors) {
      const target = into(name)
      if (target === undefined) continue
      if (!program.inputs.has(target)) {
        throw failure({
          where: `${path}: tensor '${name}'`,
          got: `shape [${shape.join(', ')}]`,
          expected: 'no such tensor in this model',
          fix: 'resume with the settings the run was started with',
        })
      }
      wanted.push(holdingOf(program, target, name))
      missing.delete(target)
    }
    const [first] = missing
    if (first !== undefined) {
      throw failure({
        where: path,
        got: `no tensor '${first.replace(prefix, '')}'`,
        expected: `all ${program.inputs.size} tensors of the training state`,
        fix: 'use a checkpoint of this run',
      })
    }
    checkpoint.load(wanted)
    // Over several ranks a view may be a copy, and every rank wants its part.
    if (program.cut) for (const { path, data } of wanted) program.write(into(path)!, data as Float32Array)
  } finally {
    checkpoint.close()
  }
}

/** Applies `use` to the newest checkpoint that is intact, passing over damaged ones with a note. */
export async function useNewest<T>(
  runDir: string,
  use: (path: string) => Promise<T>,
  note: (text: string) => void,
): Promise<{ readonly checkpoint: CheckpointFile; readonly value: T } | undefined> {
  const found = await useNewestIn(checkpointFolder(runDir), use, note)
  return found && { checkpoint: describe(found.entry), value: found.value }
}
