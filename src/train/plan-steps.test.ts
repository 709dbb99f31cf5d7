/** Plans on a measured cluster: the bytes of closed forms, the order that a slow cable asks for, and reasons of refusal. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { resolveConfig } from '../models/language/config.ts'
import { parameterCount, plannedLanguage, type Candidate } from '../parallel/planner/index.ts'
import { readCluster } from '../parallel/planner/cluster-file.ts'
import { planSteps } from './plan-steps.ts'

const cluster = readCluster(
  fileURLToPath(new URL('../../tests/fixtures/two-hosts-cluster.json', import.meta.url)),
)
const vocab = 65
const config = resolveConfig({
  batch: 4,
  model: { layers: 2, width: 32, context: 64 },
  optim: { name: 'adamw' },
})
const data4: Candidate = {
  data: 4,
  pipe: 1,
  context: 1,
  tensor: 1,
  zero: 0,
  recompute: false,
  microbatch: 1,
  microbatches: 1,
  schedule: '1f1b',
  stagesPerRank: 1,
  sequence: false,
  attention: 'ring',
}
const context4: Candidate = { ...data4, data: 1, context: 4, microbatch: 4 }

test('over a slow cable data parallelism comes before a ring, and sends its gradients', async () => {
  const { steps, refused } = await planSteps(config, vocab, [context4, data4], cluster)
  assert.deepEqual(refused, [])
  assert.deepEqual(
    steps.map(({ plan }) => plan),
    [data4, context4],
  )
  const [first, second] = steps.map(({ step }) => step)
  // Each rank sends a quarter of the gradients to each other one, twice: one of three is on its host.
  const gradients = 4 * parameterCount(plannedLanguage(config, vocab))
  const scalars = 64
  for (const [level, times] of [2, 4].entries()) {
    const { totalBytes } = first!.levels[level]!
    assert.ok(totalBytes >= times * gradients && totalBytes <= times * (gradients + scalars), `${totalBytes}`)
  }
  // The cable is held 8 ns for each byte from host to host, half of which go either way: a step is no shorter than that.
  for (const { seconds, coreSeconds, levels } of [first!, second!]) {
    const cable = levels[1]!
    assert.ok(cable.busyShare * seconds <= 8e-9 * (cable.totalBytes / 2))
    assert.ok(seconds > coreSeconds && seconds >= cable.busyShare * seconds)
  }
  assert.ok(second!.levels[1]!.totalBytes > first!.levels[1]!.totalBytes)
})

test('what does not fit or cannot be compiled is refused with its reason', async () => {
  const three: Candidate = {
    ...data4,
    data: 2,
    pipe: 2,
    microbatch: 1,
    microbatches: 2,
    schedule: 'interleaved',
    stagesPerRank: 3,
  }
  const { steps, refused } = await planSteps(config, vocab, [data4, three], cluster, 1000)
  assert.deepEqual(steps, [])
  assert.match(refused[0]!.reason, /memory that its program was planned to need: [\d,]+ bytes of 1,000/)
  assert.match(refused[1]!.reason, /stages|layers/)
})
