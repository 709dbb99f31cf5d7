/** A measured cluster: times of small programs on it by hand, what it says as hardware, and files that are damaged. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { groupOf, whole, type Mesh } from '../../compiler/graph/mesh.ts'
import { compile, Tensor, valueType, type Program } from '../../compiler/index.ts'
import { shift } from '../../compiler/ops/shift.ts'
import { UserError } from '../../errors.ts'
import { placementOf } from '../plan.ts'
import { clusterText, readCluster } from './cluster-file.ts'
import { clusterHardware, stepOnCluster } from './on-cluster.ts'

const path = fileURLToPath(new URL('../../../tests/fixtures/two-hosts-cluster.json', import.meta.url))
const cluster = readCluster(path)
const mesh: Mesh = [
  { name: 'outer', size: 2 },
  { name: 'inner', size: 2 },
]

/** As text: every rank does the same to a matrix of its own. */
const program = (shape: readonly number[], body: (x: Tensor) => Tensor): Promise<Program> =>
  compile(
    ({ x }) => ({ y: body(x) }),
    { x: valueType('f32', shape) },
    {
      threads: 1,
      target: 'text',
      parallel: {
        transport: 'mpi',
        placement: placementOf({ mesh, zero: 0, sequence: false, attention: 'gather' }),
        placeOf: (_, type) => ({ layout: whole(type.shape.length), weight: false }),
      },
    },
  )

const near = (got: number, expected: number): void =>
  assert.ok(Math.abs(got / expected - 1) < 1e-6, `${got}, expected ${expected}`)

test('a message takes what the link took; two ranks of a host share the cable', async () => {
  const free = [{ ops: 'copy', flops: 0, bytes: 8, seconds: 1e-15 }]
  const around = async (axis: string): Promise<number> => {
    const { outline } = await program([16, 64], (x) => new Tensor(shift(x.node, groupOf(mesh, [axis]), 1)))
    return stepOnCluster('shift', outline, cluster, free).seconds
  }
  // 4096 bytes. Within a host 0.5 ns a byte over the first 64; over the cable 16 ns, measured with both ranks sending.
  near(await around('inner'), 10e-6 + 4032 * 0.5e-9)
  near(await around('outer'), 100e-6 + 2 * 4032 * 8e-9)
})

test('a call takes what it took on that cluster, and its core takes it for both ranks', async () => {
  const { outline } = await program([1000, 1000], (x) => x.named(['m', 'k']).dot(x.named(['k', 'n']), 'k'))
  const { coreSeconds, seconds, levels } = stepOnCluster('product', outline, cluster)
  near(coreSeconds, 2 * 0.02)
  near(seconds, 2 * 0.02)
  assert.deepEqual(
    levels.map(({ name, totalBytes }) => [name, totalBytes]),
    [
      ['host', 0],
      ['network', 0],
    ],
  )
})

test('as hardware, a rank has its part of a core and of the cable', () => {
  const { peak, memoryBandwidth, links } = clusterHardware(cluster)
  near(peak.f32!, 2e9 / 0.02 / 2)
  // All that is no product: 16 MB in 41 ms.
  near(memoryBandwidth, 16e6 / 0.041 / 2)
  assert.deepEqual(
    links.map(({ name, reach, latency }) => [name, reach, latency]),
    [
      ['host', 2, 1e-5],
      ['network', Infinity, 1e-4],
    ],
  )
  near(links[0]!.bandwidth, 2e9)
  near(links[1]!.bandwidth, 62.5e6)
  // Ranks dealt out in turns have no neighbours to prefer.
  const turns = { ...cluster, hosts: [0, 1, 0, 1], cores: [0, 1, 0, 1] }
  assert.deepEqual(
    clusterHardware(turns).links.map(({ name }) => name),
    ['network'],
  )
})

const scratch = mkdtempSync(join(tmpdir(), 'anneal-cluster-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

test('what is written is what is read', () => {
  const copy = join(scratch, 'copy.json')
  writeFileSync(copy, clusterText(cluster))
  assert.deepEqual(readCluster(copy), cluster)
})

const text = readFileSync(path, 'utf8')
const { far: _, ...withoutFar } = cluster
const { near: __, ...withoutNear } = cluster
for (const [what, content, message] of [
  ['is cut off', text.slice(0, 400), /got .*JSON/],
  ['has a negative time', text.replace('0.0161', '-0.0161'), /far\.samples\.1\.seconds/],
  ['has sizes that go down', text.replaceAll('1000064', '10'), /near\.samples: sizes must ascend/],
  ['lacks a core', text.replace('"cores": [0, ', '"cores": ['), /cores: one for each rank/],
  [
    'lacks the links between its hosts',
    JSON.stringify(withoutFar),
    /far: missing, with ranks on several hosts/,
  ],
  [
    'lacks the links within its hosts',
    JSON.stringify(withoutNear),
    /near: missing, with several ranks on a host/,
  ],
  ['has no product', text.replace('dot [', 'add ['), /calls: at least a product/],
  ['is of another format', text.replace('cluster 1', 'cluster 9'), /format/],
] as const) {
  test(`a file that ${what} is refused in one line`, () => {
    const damaged = join(scratch, 'damaged.json')
    writeFileSync(damaged, content)
    assert.throws(
      () => readCluster(damaged),
      (error) =>
        error instanceof UserError &&
        error.exitCode === 1 &&
        error.message.startsWith(damaged) &&
        message.test(error.message) &&
        !error.message.includes('\n'),
    )
  })
}
