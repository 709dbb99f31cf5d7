/** Replicas are compared: who has other bits is named, by majority where there is one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile } from './compile.ts'
import { whole, type Mesh } from './graph/mesh.ts'
import { valueType } from './graph/types.ts'
import { strangers } from './replicas.ts'

const mesh: Mesh = [
  { name: 'data', size: 3 },
  { name: 'tensor', size: 2 },
]
const byRank = (hashes: readonly bigint[]): Map<number, bigint> => new Map(hashes.entries())

const layout = (axes: string[]) => ({ dims: [axes], partial: {} })

test('the odd one out is named among those that hold the same part', () => {
  assert.deepEqual(strangers(mesh, layout([]), byRank([5n, 5n, 5n, 5n, 5n, 5n])), [])
  assert.deepEqual(strangers(mesh, layout([]), byRank([5n, 5n, 5n, 4n, 5n, 5n])), [3])
  // Cut over tensor, ranks 0, 2, 4 hold one part and 1, 3, 5 the other.
  assert.deepEqual(strangers(mesh, layout(['tensor']), byRank([1n, 2n, 1n, 2n, 1n, 2n])), [])
  assert.deepEqual(strangers(mesh, layout(['tensor']), byRank([1n, 2n, 9n, 2n, 1n, 2n])), [2])
  // Two against two: nobody knows.
  assert.deepEqual(strangers(mesh, layout(['data']), byRank([1n, 2n, 1n, 1n, 1n, 1n])), [0, 1])
  assert.deepEqual(strangers(mesh, layout(['data', 'tensor']), byRank([1n, 2n, 3n, 4n, 5n, 6n])), [])
})

test('a bit that flips on one rank is found', async () => {
  const type = valueType('f32', [1000])
  const program = await compile(
    ({ state, x }) => ({ state: { w: state.w.add(x) } }),
    { state: { w: type }, x: type },
    {
      threads: 1,
      parallel: {
        placement: {
          mesh: [{ name: 'data', size: 3 }],
          weightAxes: [],
          named: {},
          context: 'gather',
          settle: () => null,
          inLoop: () => false,
          boundary: ({ shape }) => whole(shape.length),
        },
        placeOf: () => ({ layout: { dims: [[]], partial: {} }, weight: false }),
      },
    },
  )
  try {
    program.write('x', new Float32Array(1000).fill(0.5))
    await program.run()
    program.checkReplicas()
    program.checkUnchanged()
    // What `view` shows is the first rank's own memory.
    program.view('state.w')[777]! += 2 ** -20
    assert.throws(() => program.checkUnchanged(), /'state\.w' on rank 0: got other bits than after the step/)
    assert.throws(() => program.checkReplicas(), /'state\.w' on rank 0: got other bits than on the ranks/)
  } finally {
    program.close()
  }
})
