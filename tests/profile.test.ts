/**
 * `anneal train --profile` as a person meets it: a table of kernels that names lines of the model, a trace that a viewer
 * opens, numbers that add up, and a run that goes on afterwards as if it had only been interrupted.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { anneal } from './launch.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-profile-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const text = join(scratch, 'text.txt')
writeFileSync(text, 'The lady doth protest too much, methinks.\n'.repeat(100))
const settings = [
  `data=${text}`,
  ...'batch=4 threads=2 model.context=16 model.layers=2 model.width=32 eval.every=0 sample.every=0'.split(
    ' ',
  ),
  'sample.tokens=2',
]
const runs = join(scratch, 'runs')

interface Kernel {
  readonly kernel: string
  readonly source: string
  readonly calls: number
  readonly seconds: number
  readonly totalFlops: number
  readonly limit: string
  readonly share: number
}

interface Printed {
  readonly result: { readonly runId: string; readonly status: string; readonly step: number }
  readonly profile: {
    readonly steps: number
    readonly threads: number
    readonly seconds: number
    readonly waitingSeconds: number
    readonly tracePath: string
    readonly kernels: readonly Kernel[]
  }
}

test('as JSON: three steps to warm up, ten that count, FLOPs and times that add up, and a run to go on with', () => {
  const first = anneal('train', 'language', ...settings, 'steps=20', '--profile', '--json', '--runs', runs)
  assert.equal(first.code, 0, first.err)
  const { result, profile } = JSON.parse(first.out) as Printed
  assert.deepEqual([result.status, result.step, profile.steps, profile.threads], ['interrupted', 13, 10, 2])
  const { plan } = JSON.parse(readFileSync(join(runs, result.runId, 'run.json'), 'utf8')) as {
    readonly plan: { readonly flopsPerStep: number }
  }
  const sum = (of: (kernel: Kernel) => number): number =>
    profile.kernels.reduce((total, kernel) => total + of(kernel), 0)
  assert.equal(
    sum(({ totalFlops }) => totalFlops),
    10 * plan.flopsPerStep,
  )
  assert.ok(Math.abs(sum(({ seconds }) => seconds) + profile.waitingSeconds - profile.seconds) < 1e-6)
  assert.ok(profile.waitingSeconds >= 0)
  const attention = profile.kernels.find(({ kernel }) => kernel.startsWith('attention_0'))!
  assert.match(attention.source, /^language\/model\.ts:\d+:\d+$/)
  // Twice in each step, because the layers are a loop.
  assert.equal(attention.calls, 20)
  for (const { limit, share } of profile.kernels) assert.ok(/^(f32|memory)$/.test(limit) && share > 0)

  const trace = JSON.parse(readFileSync(profile.tracePath, 'utf8')) as {
    readonly traceEvents: readonly { readonly ph: string; readonly tid?: number }[]
  }
  const lanes = new Set(trace.traceEvents.filter(({ ph }) => ph === 'X').map(({ tid }) => tid))
  assert.deepEqual([...lanes].toSorted(), [0, 1])

  const rest = anneal('resume', result.runId, '--json', '--runs', runs)
  assert.equal(rest.code, 0, rest.err)
  const resumed = JSON.parse(rest.out) as Printed
  assert.deepEqual([resumed.result.status, resumed.result.step], ['finished', 20])
})

test('as text: costliest first, then waiting, peaks and where the trace is', () => {
  const { code, out, err } = anneal('train', 'language', ...settings, 'steps=5', '--profile', '--runs', runs)
  assert.equal(code, 0, err)
  const lines = out.split('\n')
  assert.match(lines[0]!, /^ms +share +calls +kernel +rate +of peak +work +caused by$/)
  const waiting = lines.findIndex((line) => line.includes('waiting for other threads'))
  const times = lines.slice(1, waiting - 1).map((line) => Number.parseFloat(line))
  assert.deepEqual(
    times,
    times.toSorted((a, b) => b - a),
  )
  const shares = lines.slice(1, waiting + 1).map((line) => Number.parseFloat(line.split(/\s+/)[1]!))
  const all = shares.reduce((total, share) => total + share, 0)
  assert.ok(Math.abs(all - 100) < 0.05 * shares.length, `${all} % in all`)
  assert.match(out, /^a step .* ms on 2 threads, mean of 2: .*FLOP/m)
  assert.match(out, /^peaks .*held against memory/m)
  assert.match(out, /^trace .*trace\.json /m)
})
