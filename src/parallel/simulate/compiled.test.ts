/** A compiled program's messages, simulated: the bytes that the program counts when it runs, and times by hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { whole, type Mesh } from '../../compiler/graph/mesh.ts'
import { compile, Tensor, valueType, type Program } from '../../compiler/index.ts'
import { groupOf } from '../../compiler/graph/mesh.ts'
import { allReduce } from '../../compiler/ops/all-reduce.ts'
import { shift } from '../../compiler/ops/shift.ts'
import { placementOf } from '../plan.ts'
import { compiledPlan, simulate, summarize, type Cluster } from './index.ts'

const mesh: Mesh = [
  { name: 'outer', size: 2 },
  { name: 'inner', size: 2 },
]
const count = 1000
const bytes = 4 * count

/** Every rank does the same to a value of its own. */
const program = (body: (x: Tensor) => Tensor): Promise<Program> =>
  compile(
    ({ x }) => ({ y: body(x) }),
    { x: valueType('f32', [count]) },
    {
      threads: 1,
      parallel: {
        placement: placementOf({ mesh, zero: 0, sequence: false, attention: 'gather' }),
        placeOf: (_, { shape }) => ({ layout: whole(shape.length), weight: false }),
      },
    },
  )

/** Two hosts of two ranks; arithmetic is free, a byte takes a second within a host and 10 from host to host. */
const cluster: Cluster = {
  hosts: [0, 0, 1, 1],
  near: { name: 'near', latency: 100, busy: (size) => size },
  far: { name: 'far', latency: 1000, busy: (size) => 10 * size },
  eagerBytes: 1e9,
  call: () => 0,
  memory: () => 0,
}
const step = (outline: Program['outline'], changed: Partial<Cluster> = {}): ReturnType<typeof summarize> =>
  summarize(simulate(compiledPlan('test', outline, { ...cluster, ...changed })))

test('a shift within hosts takes a message; between hosts two share the port', async () => {
  for (const [axis, seconds] of [
    ['inner', 100 + bytes],
    ['outer', 1000 + 2 * 10 * bytes],
  ] as const) {
    const made = await program((x) => new Tensor(shift(x.node, groupOf(mesh, [axis]), 1)))
    assert.equal(step(made.outline).seconds, seconds)
    made.close()
  }
})

const sum = (axes: string[]) => (x: Tensor) => new Tensor(allReduce(x.node, groupOf(mesh, axes), 'sum'))

test('an all-reduce exchanges halves, adds them up, and exchanges the sums', async () => {
  const made = await program(sum(['inner']))
  const [half, copies] = [bytes / 2, 2]
  assert.equal(step(made.outline).seconds, 2 * (100 + half))
  const seconds = step(made.outline, { memory: (size) => size }).seconds
  assert.equal(seconds, 2 * (100 + half) + (copies + 1) * half)
  made.close()
})

test('over four ranks the ports of the hosts are never idle, and bytes are those that the program counts', async () => {
  const made = await program(sum(['outer', 'inner']))
  try {
    // Both ranks of a host send a quarter to both of the other, twice; while the last one travels the next has begun.
    assert.equal(step(made.outline).seconds, 1000 + 2 * 4 * 10 * (bytes / 4))
    made.runBlocking()
    const sent = made
      .traffic()
      .flatMap(({ bytesSent }) =>
        bytesSent.flatMap((row, from) => row.map((n, to) => [from, to, n] as const)),
      )
    const counted = (far: boolean): number =>
      sent.reduce((total, [from, to, n]) => total + ((from >= 2 !== to >= 2) === far ? n : 0), 0)
    assert.deepEqual(
      step(made.outline).levels.map(({ totalBytes }) => totalBytes),
      [counted(false), counted(true)],
    )
  } finally {
    made.close()
  }
})
