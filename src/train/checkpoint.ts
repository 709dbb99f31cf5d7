/**
 * Checkpoints of a run: the whole training state (parameters, optimizer, step). A run on one device writes it as one
 * safetensors file, beside and renamed, so that at every moment the newest complete one can be read; ranks write a folder,
 * each what it holds, while the training goes on (data/checkpoints). What decides the next step besides the state (seed,
 * data order) is a pure function of the step number, so nothing else needs saving.
 * The subtle thing: both forms are read by the same code, straight into what each rank holds, so a run goes on under any
 * plan, whatever plan wrote it.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { boxesOf } from '../compiler/graph/mesh.ts'
import type { DType, Program } from '../compiler/index.ts'
import { layoutsOf } from '../compiler/ranked-native.ts'
import * as stored from '../data/checkpoints.ts'
import { CheckpointSaver, nameOf, openCheckpoint, prune, sweep, useNewestIn } from '../data/checkpoints.ts'
import type { HeldBox, Holding } from '../data/checkpoints.ts'
import { makeFolder } from '../data/files.ts'
import { writeSafetensors } from '../data/safetensors.ts'
import type { Dtype } from '../data/safetensors.ts'
import { failure, InternalError } from '../errors.ts'

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

/** Writes the checkpoints of a step program, one after the other. */
export interface Saver {
  /** Comes back once the state may change. Throws what went wrong with the checkpoint before, if that is known only now. */
  save(step: number, metadata: Readonly<Record<string, string>>): Promise<void>
  /** Comes back when nothing is being written; throws what went wrong. */
  settle(): Promise<void>
  /** Waits for what is being written and ends; an error is left to `settle`. */
  close(): Promise<void>
}

export interface SaverSettings {
  readonly runDir: string
  /** Number of the run's segment: no two starts have the same. */
  readonly segment: number
  /** Complete checkpoints that are left. */
  readonly keep: number
  /** Hears of every checkpoint that is complete, in the process of rank 0. */
  readonly saved: (file: CheckpointFile) => void
}

/** What saves a program's state: at once for one device, in the background for ranks. */
export function openSaver(program: Program, settings: SaverSettings): Saver {
  const folder = checkpointFolder(settings.runDir)
  makeFolder(folder)
  return program.cut ? shardedSaver(program, folder, settings) : fileSaver(program, folder, settings)
}

const statePaths = (program: Program): string[] =>
  [...program.outputs.keys()].filter((path) => path.startsWith(prefix))

function fileSaver(program: Program, folder: string, { keep, saved }: SaverSettings): Saver {
  return {
    async save(step, metadata) {
      sweep(folder, step)
      const tensors = statePaths(program)
        .flatMap((path) => holdingsOf(program, path, path.slice(prefix.length)))
        .map(({ path: name, dtype, globalShape: shape, data }) => ({ name, dtype, shape, data }))
      const name = `${nameOf(step)}.safetensors`
      writeSafetensors(join(folder, name), tensors, { format: 'anneal', step: String(step), ...metadata })
      prune(folder, step, keep)
      saved(describe({ step, name, bytes: statSync(join(folder, name)).size, files: 1 }))
    },
    async settle() {},
    async close() {},
  }
}

function shardedSaver(program: Program, folder: string, settings: SaverSettings): Saver {
  const { mesh, parts } = program.cut!
  // Every rank says what all of them hold, so that each can work out who writes what.
  const held: HeldBox[][] = []
  for (const part of parts) {
    const layouts = layoutsOf(part)
    for (const rank of part.ranks) {
      held[rank] = statePaths(program).flatMap((path) => {
        const layout = layouts.get(path)
        if (!layout) return []
        const { shape } = program.inputs.get(path)!
        const name = path.slice(prefix.length)
        return boxesOf(mesh, layout, shape, rank).map(({ start, size }) => ({
          path: name,
          dtype: formOf(program, path),
          globalShape: shape,
          box: { start, size },
        }))
      })
    }
  }
  const saver = new CheckpointSaver({
    folder,
    attempt: String(settings.segment).padStart(4, '0'),
    keep: settings.keep,
    held,
    ...(program.process ? { local: [program.process.rank] } : {}),
    // Asked for anew each time: the reference puts results in other memory.
    data: (rank, { path, box }) =>
      holdingsOf(program, prefix + path, path, rank).find(
        (holding) => holding.box.start.join() === box.start.join(),
      )!.data,
  })
  let pending: Promise<void> = Promise.resolve()
  return {
    async save(step, metadata) {
      await pending
      const { done } = (await saver.save(step, metadata))!
      pending = done.then((entry) => {
        if (entry) settings.saved(describe(entry))
      })
      // Thrown by the call that waits for it.
      pending.catch(() => undefined)
    },
    settle: () => pending,
    async close() {
      await pending.catch(() => undefined)
      await saver.close().catch(() => undefined)
    },
  }
}

/** How a state tensor is stored; the reference calculates in float64 whatever the type says. */
function formOf(program: Program, at: string): Dtype {
  const [piece] = program.pieces(at)
  const { dtype } = (program.inputs.get(at) ?? program.outputs.get(at))!
  return piece?.data instanceof Float64Array ? 'F64' : storedAs[dtype]
}

/**
 * What the ranks of this process, or one of them, hold of the tensor at `at`, called `path` in a checkpoint: windows of
 * their memory. Where a rank has several parts of a tensor, they follow one another in its memory.
 */
function holdingsOf(program: Program, at: string, path: string, only?: number): Holding[] {
  const { shape } = (program.inputs.get(at) ?? program.outputs.get(at))!
  const dtype = formOf(program, at)
  return program.pieces(at).flatMap(({ rank, layout, data }) => {
    if (only !== undefined && rank !== only) return []
    const boxes = boxesOf(program.cut?.mesh ?? [], layout, shape, rank)
    const each = data.length / boxes.length
    return boxes.map(({ start, size, at: within }, i) => {
      if (within.slice(1).some((index) => index !== 0))
        throw new InternalError(`rank ${rank} holds parts of '${path}' that are not one after the other`)
      const window = data.subarray(i * each, (i + 1) * each) as unknown as NodeJS.ArrayBufferView
      return { path, dtype, globalShape: shape, box: { start, size }, data: window }
    })
  })
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

/**
 * Reads a checkpoint into a program: every tensor is checked before the first one is written. Processes check all of it,
 * each for itself, so that none takes for good what another passes over.
 */
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
      wanted.push(...holdingsOf(program, target, name))
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
    if (program.process) checkpoint.verify()
    checkpoint.load(wanted, { verify: !program.process })
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
