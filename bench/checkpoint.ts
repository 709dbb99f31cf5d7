/**
 * What a checkpoint costs the training: the time a step is kept for the copy, beside the time the thread then takes to
 * hash, write and force the copy to the disk, and the time to load it all again under another plan. Half a gigabyte of
 * state on two ranks, the weights cut by rows, loaded by columns. Prints, asserts nothing.
 *
 * Subtle: the first checkpoint is printed apart, since the thread starts and files are new.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CheckpointSaver, openCheckpoint } from '../src/data/checkpoints.ts'
import type { Holding } from '../src/data/checkpoints.ts'
import { writeSafetensors } from '../src/data/safetensors.ts'
import { machineLine } from './facts.ts'
import { readOptions } from './options.ts'
import { median } from './slices.ts'

const tensors = 12
const shape = [2560, 4096]
const megabytes = (tensors * shape[0]! * shape[1]! * 4) / 1e6

/** What two ranks hold of all tensors, cut along an axis. */
const holdings = (axis: number): Holding[][] =>
  [0, 1].map((rank) =>
    Array.from({ length: tensors }, (_, i) => {
      const size = shape.with(axis, shape[axis]! / 2)
      const box = { start: [0, 0].with(axis, rank * size[axis]!), size }
      const data = new Float32Array(size[0]! * size[1]!).map((_, at) => at + i)
      return { path: `params.${i}`, dtype: 'F32', globalShape: shape, box, data }
    }),
  )

const seconds = (since: number): number => (performance.now() - since) / 1000

/** Prints copy, write and load times. */
export async function main(args: readonly string[]): Promise<void> {
  const { rounds } = readOptions(args, { rounds: 5, seconds: 1 })
  console.log(await machineLine())
  const folder = mkdtempSync(join(tmpdir(), 'anneal-bench-checkpoint-'))
  try {
    const held = holdings(0)
    const saver = new CheckpointSaver({
      folder,
      attempt: '0001',
      keep: 1,
      held,
      data: (_, one) => (one as Holding).data,
    })
    const copies: number[] = []
    const writes: number[] = []
    let path = ''
    for (let step = 0; step <= rounds; step++) {
      const started = performance.now()
      const snapshot = (await saver.save(step, {}))!
      const entry = await snapshot.done
      path = join(folder, entry!.name)
      const written = seconds(started) - snapshot.copySeconds
      if (step === 0) print('first save', snapshot.copySeconds, written)
      else {
        copies.push(snapshot.copySeconds)
        writes.push(written)
      }
    }
    await saver.close()
    print(`median of ${rounds}`, median(copies), median(writes))
    const wanted = holdings(1)
    for (const verify of [true, false]) {
      const started = performance.now()
      for (const rank of wanted) {
        const checkpoint = openCheckpoint(path)
        checkpoint.load(rank, { verify })
        checkpoint.close()
      }
      console.log(
        `both ranks load by columns, ${verify ? 'each' : 'none'} verifying: ${seconds(started).toFixed(2)} s`,
      )
    }
    const started = performance.now()
    const whole = held.flatMap((rank, i) =>
      rank.map(({ path: name, box, data }) => ({
        name: `${name}.${i}`,
        dtype: 'F32' as const,
        shape: box.size,
        data,
      })),
    )
    writeSafetensors(join(folder, 'one.safetensors'), whole)
    console.log(`the same in one file, training waiting: ${seconds(started).toFixed(2)} s`)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function print(what: string, copy: number, write: number): void {
  const rate = (megabytes / 1000 / copy).toFixed(1)
  console.log(
    `${what}: ${megabytes.toFixed(0)} MB, step kept ${(copy * 1000).toFixed(0)} ms (${rate} GB/s), written ${write.toFixed(2)} s after`,
  )
}
