/**
 * Runs over processes that something happens to, for the tests of faults: a small recipe, a way to hurt a rank while it
 * trains, and what must be true afterwards.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openCheckpoint, wholeBox } from '../src/data/checkpoints.ts'
import { readRun } from '../src/runs/index.ts'
import { listCheckpoints } from '../src/train/checkpoint.ts'
import { anneal, start, type Outcome } from './launch.ts'

export const scratch: string = mkdtempSync(join(tmpdir(), 'anneal-faults-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const every = 40
const text = join(scratch, 'text.txt')
writeFileSync(text, 'All that glisters is not gold.\n'.repeat(100))
const settings = (steps: number): string[] => [
  'batch=8',
  'threads=1',
  `steps=${steps}`,
  `save.every=${every}`,
  'save.keep=99',
  'model.context=16',
  'model.layers=2',
  'model.width=32',
  `data=${text}`,
  'eval.every=0',
  'sample.every=0',
  'sample.tokens=4',
  'mesh.data=2',
]

/** The only run in a folder of runs. */
export function folderIn(runs: string): string {
  try {
    return join(runs, readdirSync(runs).find((name) => name.includes('language')) ?? 'none yet')
  } catch {
    return join(runs, 'none yet')
  }
}

/** The tensors of the last checkpoint, whole. */
export type State = Readonly<Record<string, string>>

function finalState(runs: string): State {
  const dir = folderIn(runs)
  const last = listCheckpoints(dir).at(-1)!
  const checkpoint = openCheckpoint(join(dir, last.file))
  const wanted = Array.from(checkpoint.tensors, ([path, { dtype, shape }]) => {
    const data = new Uint8Array(shape.reduce((product, n) => product * n, 4))
    return { path, dtype, globalShape: shape, box: wholeBox(shape), data }
  })
  checkpoint.load(wanted)
  checkpoint.close()
  return Object.fromEntries(
    wanted.map(({ path, data }) => [path, createHash('sha256').update(data).digest('hex')]),
  )
}

/** The process of a rank of the runs in a folder. */
function processOf(rank: number, runs: string): number {
  for (const name of readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name))) {
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0')
      const variables = readFileSync(`/proc/${name}/environ`, 'utf8').split('\0')
      const ours = words.includes('rank') && words.includes(runs)
      if (ours && variables.includes(`OMPI_COMM_WORLD_RANK=${rank}`)) return Number(name)
    } catch {
      // It has ended meanwhile.
    }
  }
  throw new Error(`no process of rank ${rank}`)
}

/** Trains, and does something to a rank once there is a checkpoint. */
export async function trainThrough(
  runs: string,
  steps: number,
  more: string[],
  hurt?: (rank: number) => void,
): Promise<Outcome> {
  const { ended, process: supervisor } = start(
    'train',
    'language',
    ...settings(steps),
    ...more,
    '--processes',
    '--runs',
    runs,
  )
  const limit = setTimeout(() => supervisor.kill(), 120_000)
  if (hurt) {
    while (supervisor.exitCode === null && listCheckpoints(folderIn(runs)).length === 0) await sleep(5)
    hurt(processOf(1, runs))
  }
  const outcome = await ended
  clearTimeout(limit)
  return outcome
}

/** That the run went on from a checkpoint and ended as if nothing had happened. */
export function wentOn(
  runs: string,
  whole: State,
  { code, err }: Outcome,
  fault: RegExp,
  how = /\(restart 1 of 3\)/,
): void {
  assert.equal(code, 0, err)
  assert.match(err, fault)
  assert.match(err, how)
  const [, from] = /going on from step (\d+)/.exec(err) ?? assert.fail(err)
  assert.ok(Number(from) >= every && Number(from) % every === 0, err)
  const run = readRun(join(runs), folderIn(runs).slice(runs.length + 1))
  assert.equal(run.segments.length, 2)
  const lost = Number(/(?:after step|step) (\d+)/.exec(fault.exec(err)![0])![1]) - Number(from)
  assert.ok(lost <= every + 1, `${lost} steps were lost`)
  assert.deepEqual(finalState(runs), whole)
}

/** What a run to which nothing happens ends with; its ranks are threads. */
export function undisturbed(name: string, steps: number, more: string[] = []): State {
  const runs = join(scratch, name)
  const { code, err } = anneal('train', 'language', ...settings(steps), ...more, '--runs', runs)
  assert.equal(code, 0, err)
  return finalState(runs)
}

/** This host, as a part of a regular expression. */
export const host: string = hostname().replaceAll('.', '\\.')
