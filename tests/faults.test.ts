/**
 * What a run over processes survives: a rank that is killed, one that is stopped, one whose memory flips a bit. Each time
 * the rank is named, and the run goes on from the last checkpoint to the bits of a run to which nothing happened.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { withoutMpi } from '../src/compiler/runtime/mpi.ts'
import { openCheckpoint, wholeBox } from '../src/data/checkpoints.ts'
import { readRun } from '../src/runs/index.ts'
import { listCheckpoints } from '../src/train/checkpoint.ts'
import { anneal, start, type Outcome } from './launch.ts'

const skip = await withoutMpi()
const scratch = mkdtempSync(join(tmpdir(), 'anneal-faults-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const every = 40
const steps = 400
const text = join(scratch, 'text.txt')
writeFileSync(text, 'All that glisters is not gold.\n'.repeat(100))
const settings = [
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
function folderIn(runs: string): string {
  try {
    return join(runs, readdirSync(runs).find((name) => name.includes('language')) ?? 'none yet')
  } catch {
    return join(runs, 'none yet')
  }
}

/** The tensors of the last checkpoint, whole. */
function finalState(runs: string): Record<string, string> {
  const dir = folderIn(runs)
  const last = listCheckpoints(dir).at(-1)!
  assert.equal(last.step, steps)
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
async function trainThrough(runs: string, more: string[], hurt?: (rank: number) => void): Promise<Outcome> {
  const { ended, process: supervisor } = start(
    'train',
    'language',
    ...settings,
    ...more,
    '--processes',
    '--runs',
    runs,
  )
  const limit = setTimeout(() => supervisor.kill(), 60_000)
  if (hurt) {
    while (supervisor.exitCode === null && listCheckpoints(folderIn(runs)).length === 0) await sleep(5)
    hurt(processOf(1, runs))
  }
  const outcome = await ended
  clearTimeout(limit)
  return outcome
}

/** That the run went on from a checkpoint and ended as if nothing had happened. */
function wentOn(runs: string, { code, err }: Outcome, fault: RegExp): void {
  assert.equal(code, 0, err)
  assert.match(err, fault)
  const [, from] = /going on from step (\d+) \(restart 1 of 3\)/.exec(err) ?? assert.fail(err)
  assert.ok(Number(from) >= every && Number(from) % every === 0, err)
  const run = readRun(join(runs), folderIn(runs).slice(runs.length + 1))
  assert.equal(run.segments.length, 2)
  const lost = Number(/(?:after step|step) (\d+)/.exec(fault.exec(err)![0])![1]) - Number(from)
  assert.ok(lost <= every + 1, `${lost} steps were lost`)
  assert.deepEqual(finalState(runs), whole)
}

let whole: Record<string, string>
const host = hostname().replaceAll('.', '\\.')

before(() => {
  if (skip) return
  const runs = join(scratch, 'whole')
  const { code, err } = anneal('train', 'language', ...settings, '--runs', runs)
  assert.equal(code, 0, err)
  whole = finalState(runs)
})

test('a rank that is killed is named, and the run goes on', { skip }, async () => {
  const runs = join(scratch, 'killed')
  const outcome = await trainThrough(runs, [], (pid) => process.kill(pid, 'SIGKILL'))
  wentOn(runs, outcome, new RegExp(`rank 1 on ${host}, after step \\d+: was ended by signal 9`))
})

test('a rank that hangs is named after a patience, and the run goes on', { skip }, async () => {
  const runs = join(scratch, 'stopped')
  const outcome = await trainThrough(runs, ['parallel.patience=2'], (pid) => process.kill(pid, 'SIGSTOP'))
  wentOn(runs, outcome, new RegExp(`rank 1 on ${host}, step \\d+: did not come to .* within 2 s`))
})

test(
  'a rank with other bits is found within the checkpoint interval, and the run goes on',
  { skip },
  async () => {
    const runs = join(scratch, 'flipped')
    process.env['ANNEAL_TEST_FLIP'] = '1,55'
    const outcome = await trainThrough(runs, ['parallel.check=20'])
    delete process.env['ANNEAL_TEST_FLIP']
    wentOn(
      runs,
      outcome,
      new RegExp(`rank 0 on ${host} or rank 1 on ${host}, step 60, 'state\\.params.*other bits`),
    )
  },
)
