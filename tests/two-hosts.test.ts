/**
 * Ranks on two hosts: the default recipe as four processes on two network namespaces joined by a cable of 1 Gbit/s
 * (bench/two-hosts.sh), and as two, one on each. The losses and the checkpoint have the bits of one process. Needs root
 * and iproute2 on Linux; where that is not allowed, the test says so and skips.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { after, before, test } from 'node:test'
import { withoutMpi } from '../src/compiler/runtime/mpi.ts'
import { openCheckpoint, wholeBox } from '../src/data/checkpoints.ts'
import { readRun } from '../src/runs/index.ts'
import { listCheckpoints } from '../src/train/checkpoint.ts'
import { anneal, launcher, run } from './launch.ts'

/** Why there can be no two hosts here, or false. */
function withoutNamespaces(): string | false {
  const name = `anneal-try-${process.pid}`
  const tried = spawnSync(
    'sh',
    [
      '-c',
      `ip netns add ${name} && tc -n ${name} qdisc add dev lo root tbf rate 1gbit burst 64kb latency 50ms`,
    ],
    { encoding: 'utf8' },
  )
  spawnSync('ip', ['netns', 'del', name])
  return tried.status === 0 ? false : `no network namespaces here: ${tried.stderr.trim().split('\n')[0]}`
}

const skip = (await withoutMpi()) || withoutNamespaces()
const scratch = mkdtempSync(join(tmpdir(), 'anneal-two-hosts-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const steps = 6
const settings = [`steps=${steps}`, 'threads=1', 'eval.every=0', 'sample.every=0', 'sample.tokens=4']

interface Trained {
  readonly losses: readonly number[]
  /** Bytes of every tensor of the checkpoint. */
  readonly state: Readonly<Record<string, Uint8Array>>
}

function trainedIn(runs: string): Trained {
  const dir = join(
    runs,
    readdirSync(runs).find((name) => name.includes('language'))!,
  )
  const last = listCheckpoints(dir).at(-1)!
  assert.equal(last.step, steps)
  const checkpoint = openCheckpoint(join(dir, last.file))
  const wanted = Array.from(checkpoint.tensors, ([path, { dtype, shape }]) => {
    const data = new Uint8Array(shape.reduce((product, n) => product * n, 4))
    return { path, dtype, globalShape: shape, box: wholeBox(shape), data }
  })
  checkpoint.load(wanted)
  checkpoint.close()
  return {
    losses: readRun(runs, dir.slice(runs.length + 1)).points.flatMap(({ metrics }) => metrics['loss'] ?? []),
    state: Object.fromEntries(wanted.map(({ path, data }) => [path, data])),
  }
}

let alone: Trained
before(() => {
  if (skip !== false) return
  const runs = join(scratch, 'alone')
  const ended = anneal('train', 'language', ...settings, '--runs', runs)
  assert.equal(ended.code, 0, ended.err)
  alone = trainedIn(runs)
  assert.equal(alone.losses.length, steps)
})

const script = fileURLToPath(new URL('../bench/two-hosts.sh', import.meta.url))

for (const ranks of [2, 4]) {
  test(`${ranks} processes on two hosts: the bits of one process`, { skip }, () => {
    const runs = join(scratch, `ranks-${ranks}`)
    const words = ['rank', 'language', `mesh.data=${ranks}`, ...settings, '--runs', runs]
    const ended = run('sh', [script, '1gbit', String(ranks), process.execPath, launcher, ...words])
    assert.equal(ended.code, 0, ended.err)
    const together = trainedIn(runs)
    assert.deepEqual(together.losses, alone.losses)
    assert.deepEqual(Object.keys(together.state).toSorted(), Object.keys(alone.state).toSorted())
    for (const [path, bytes] of Object.entries(alone.state)) {
      assert.deepEqual(together.state[path], bytes, path)
    }
  })
}
