/**
 * Checkpoints of a run: the whole training state (parameters, optimizer, step) as one safetensors file, written beside
 * and renamed, so that at every moment the newest complete one can be read. What decides the next step besides the
 * state (seed, data order) is a pure function of the step number, so nothing else needs saving.
 */
import { readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Program, ValueType } from '../compiler/index.ts'
import { makeFolder } from '../data/files.ts'
import { openSafetensors, writeSafetensors } from '../data/safetensors.ts'
import { failure, InternalError, UserError } from '../errors.ts'

const folderName = 'checkpoints'
const prefix = 'state.'

export interface CheckpointFile {
  readonly step: number
  /** Path relative to the run's folder. */
  readonly file: string
  readonly bytes: number
}

const fileOf = (step: number): string => join(folderName, `step-${String(step).padStart(8, '0')}.safetensors`)

/** Complete checkpoints of a run, oldest first. Temporary files of a killed writer are not among them. */
export function listCheckpoints(runDir: string): CheckpointFile[] {
  let names: string[]
  try {
    names = readdirSync(join(runDir, folderName))
  } catch {
    return []
  }
  return names
    .flatMap((name) => {
      const step = /^step-(\d+)\.safetensors$/.exec(name)?.[1]
      const file = join(folderName, name)
      // The run may be going on and have deleted an old one just now.
      const info = step === undefined ? undefined : statSync(join(runDir, file), { throwIfNoEntry: false })
      return info === undefined ? [] : [{ step: Number(step), file, bytes: info.size }]
    })
    .toSorted((a, b) => a.step - b.step)
}

/** How the types that training state has are stored: parameters and moments, counters, bytes of quantised moments. */
const storage = {
  f32: { name: 'F32', array: Float32Array },
  i32: { name: 'I32', array: Int32Array },
  u8: { name: 'U8', array: Uint8Array },
} as const

function stored({ dtype }: ValueType): (typeof storage)[keyof typeof storage] {
  if (Object.hasOwn(storage, dtype)) return storage[dtype as keyof typeof storage]
  throw new InternalError(`state of type ${dtype} has no place in a checkpoint`)
}

/** Writes the state of a step program; older files beyond `keep` go only after the new one is in place. */
export async function saveCheckpoint(
  runDir: string,
  program: Program,
  step: number,
  { keep, metadata }: { readonly keep: number; readonly metadata: Readonly<Record<string, string>> },
): Promise<CheckpointFile> {
  makeFolder(join(runDir, folderName))
  removeUnfinished(runDir)
  const tensors = [...program.outputs].flatMap(([path, type]) =>
    path.startsWith(prefix)
      ? [
          {
            name: path.slice(prefix.length),
            dtype: stored(type).name,
            shape: [...type.shape],
            data: program.view(path),
          },
        ]
      : [],
  )
  const file = fileOf(step)
  await writeSafetensors(join(runDir, file), tensors, { format: 'anneal', step: String(step), ...metadata })
  for (const old of listCheckpoints(runDir).slice(0, -keep)) {
    if (old.step < step) rmSync(join(runDir, old.file), { force: true })
  }
  return { step, file, bytes: statSync(join(runDir, file)).size }
}

/** What killed writers left behind. Only the process that holds the run's lock may call this. */
function removeUnfinished(runDir: string): void {
  const folder = join(runDir, folderName)
  for (const name of readdirSync(folder)) {
    if (/\.safetensors\.tmp-\d+$/.test(name)) rmSync(join(folder, name), { force: true })
  }
}

/** Copies a checkpoint into a program: every tensor is checked for presence and size before the first one is written. */
export async function loadCheckpoint(
  path: string,
  program: Program,
  into: (name: string) => string | undefined,
  needed: (input: string) => boolean = (input) => input.startsWith(prefix),
): Promise<void> {
  const file = await openSafetensors(path)
  try {
    await file.verify()
    const writes: [string, Float32Array | Int32Array | Uint8Array][] = []
    const wanted = new Set([...program.inputs.keys()].filter(needed))
    for (const [name, tensor] of file.tensors) {
      const target = into(name)
      if (target === undefined) continue
      const type = program.inputs.get(target)
      if (!type || type.shape.join() !== tensor.shape.join()) {
        throw failure({
          where: `${path}: tensor '${name}'`,
          got: `shape [${tensor.shape.join(', ')}]`,
          expected: type ? `[${type.shape.join(', ')}]` : 'no such tensor in this model',
          fix: 'resume with the settings the run was started with',
        })
      }
      const bytes = file.read(name)
      writes.push([target, new (stored(type).array)(bytes.slice().buffer)])
      wanted.delete(target)
    }
    const [missing] = wanted
    if (missing !== undefined) {
      throw failure({
        where: path,
        got: `no tensor '${missing.replace(prefix, '')}'`,
        expected: `all ${program.inputs.size} tensors of the training state`,
        fix: 'use a checkpoint of this run',
      })
    }
    for (const [target, values] of writes) program.write(target, values)
  } finally {
    file.close()
  }
}

/**
 * Applies `use` to the newest checkpoint that is intact, passing over damaged ones with a note.
 *
 * @param use gets the file's path and throws a UserError when it is damaged.
 * @returns the checkpoint and what `use` made of it; undefined when the run has no checkpoint yet.
 * @throws UserError about the newest one when there are checkpoints but none can be read.
 */
export async function useNewest<T>(
  runDir: string,
  use: (path: string) => Promise<T>,
  note: (text: string) => void,
): Promise<{ readonly checkpoint: CheckpointFile; readonly value: T } | undefined> {
  const errors: UserError[] = []
  for (const checkpoint of listCheckpoints(runDir).toReversed()) {
    try {
      const value = await use(join(runDir, checkpoint.file))
      for (const { complaint } of errors)
        note(`passing over ${complaint.where}: got ${complaint.got}; expected ${complaint.expected}`)
      return { checkpoint, value }
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      errors.push(error)
    }
  }
  const [newest] = errors
  if (newest === undefined) return undefined
  const { where, got, expected } = newest.complaint
  throw failure({
    where,
    got: errors.length === 1 ? got : `${got} (and ${errors.length - 1} older damaged too)`,
    expected,
    fix: 'restore a checkpoint from a copy, or start a new run with anneal train',
  })
}
