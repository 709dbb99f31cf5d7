/**
 * A run's folder of checkpoints. Two forms stand beside each other: `step-N.safetensors`, the state of one device in one
 * file, and `step-N/`, the state of several ranks, which is a checkpoint once its manifest is there. Names that are
 * neither, and folders without a manifest, are what a killed writer left, and are passed over.
 */
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { MANIFEST } from './manifest.ts'

export interface CheckpointEntry {
  readonly step: number
  /** File or folder within the folder of checkpoints. */
  readonly name: string
  readonly bytes: number
  /** Files with tensors in it: 1, or as many as ranks wrote. */
  readonly files: number
}

export const nameOf = (step: number): string => `step-${String(step).padStart(8, '0')}`

/** Complete checkpoints, oldest first. */
export function listCheckpoints(folder: string): CheckpointEntry[] {
  return namesIn(folder)
    .flatMap((name) => {
      const match = /^step-(\d+)(\.safetensors)?$/.exec(name)
      if (!match) return []
      const size = match[2] ? sizeOfFile(join(folder, name)) : sizeOfFolder(join(folder, name))
      // The run may be going on and have deleted an old one just now.
      return size ? [{ step: Number(match[1]), name, ...size }] : []
    })
    .toSorted((a, b) => a.step - b.step)
}

type Size = Pick<CheckpointEntry, 'bytes' | 'files'>

function sizeOfFile(path: string): Size | undefined {
  const info = statSync(path, { throwIfNoEntry: false })
  return info && { bytes: info.size, files: 1 }
}

function sizeOfFolder(path: string): Size | undefined {
  if (!existsSync(join(path, MANIFEST))) return undefined
  const sizes = namesIn(path).flatMap((name) => {
    const info = statSync(join(path, name), { throwIfNoEntry: false })
    return info ? [{ name, bytes: info.size }] : []
  })
  return {
    bytes: sizes.reduce((sum, { bytes }) => sum + bytes, 0),
    files: sizes.filter(({ name }) => name.endsWith('.safetensors')).length,
  }
}

/**
 * Deletes complete checkpoints before `step` but for the newest `keep` of all. Only who holds the run's lock may call this,
 * and only once the checkpoint of `step` is in place.
 */
export function prune(folder: string, step: number, keep: number): void {
  for (const old of listCheckpoints(folder).slice(0, -keep)) {
    if (old.step < step) remove(join(folder, old.name))
  }
}

/**
 * Deletes what killed writers left: unfinished files, and folders without manifest of steps before `step`; in those of
 * later steps other ranks may be writing already. Only who holds the run's lock may call this.
 */
export function sweep(folder: string, step: number): void {
  for (const name of namesIn(folder)) {
    const path = join(folder, name)
    const [, of, file] = /^step-(\d+)(\.safetensors\.tmp-\d+)?$/.exec(name) ?? []
    const left = file !== undefined || (Number(of) < step && !existsSync(join(path, MANIFEST)))
    if (left) rmSync(path, { recursive: true, force: true })
  }
}

/** The manifest goes first, where there is one: from then on what is left is no checkpoint, however far the deletion came. */
function remove(path: string): void {
  if (existsSync(join(path, MANIFEST))) rmSync(join(path, MANIFEST), { force: true })
  rmSync(path, { recursive: true, force: true })
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
