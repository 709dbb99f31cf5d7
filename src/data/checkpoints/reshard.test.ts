/**
 * Save under any plan, load under any other: random tensors, cut at random among random ranks, with copies and with
 * overlaps; every byte must arrive, and no byte may be read that was not asked for.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { InternalError } from '../../errors.ts'
import { openSafetensors, writeSafetensors } from '../safetensors.ts'
import type { Dtype } from '../safetensors.ts'
import { contains, partitionProblem, wholeBox } from './boxes.ts'
import type { Box } from './boxes.ts'
import { openCheckpoint } from './open.ts'
import { pieceBytes, planPieces } from './pieces.ts'
import type { Holding } from './pieces.ts'
import { anyBox, hold, ownedData, partition, testTensor } from './testing.ts'
import type { TestTensor } from './testing.ts'
import { writeCheckpoint } from './write.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-reshard-'))
after(() => rmSync(scratch, { recursive: true }))

/** For each tensor the boxes that ranks hold. */
type Layout = readonly (readonly { readonly box: Box; readonly rank: number }[])[]

interface Case {
  readonly tensors: readonly TestTensor[]
  readonly ranks: number
  readonly before: Layout
  readonly after: Layout
}

const layout = (tensors: readonly TestTensor[], ranks: number): fc.Arbitrary<Layout> =>
  fc.tuple(
    ...tensors.map(({ shape }) =>
      fc
        .tuple(
          partition(shape).chain((boxes) =>
            fc.tuple(
              ...boxes.map((box) =>
                fc
                  .array(fc.nat({ max: ranks - 1 }), { minLength: 1, maxLength: 3 })
                  .map((owners) => owners.map((rank) => ({ box, rank }))),
              ),
            ),
          ),
          // Boxes that are held besides, across the cuts.
          fc.array(fc.record({ box: anyBox(shape), rank: fc.nat({ max: ranks - 1 }) }), { maxLength: 2 }),
        )
        .map(([parts, more]) => parts.flat().concat(more)),
    ),
  )

const cases: fc.Arbitrary<Case> = fc
  .record({
    shapes: fc.array(
      fc.record({
        shape: fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 4 }),
        dtype: fc.constantFrom<Dtype>('F32', 'I32', 'BF16', 'U8', 'F64'),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    ranks: fc.integer({ min: 1, max: 5 }),
  })
  .chain(({ shapes, ranks }) => {
    const tensors = shapes.map(({ shape, dtype }, i) => testTensor(`params.${i}`, dtype, shape, i))
    return fc.record({
      tensors: fc.constant(tensors),
      ranks: fc.constant(ranks),
      before: layout(tensors, ranks),
      after: layout(tensors, ranks),
    })
  })

/** What each rank holds under a layout; every byte `fill` where given. */
const holdings = ({ tensors, ranks }: Case, boxes: Layout, fill?: number): Holding[][] =>
  Array.from({ length: ranks }, (_, rank) =>
    tensors.flatMap((tensor, i) =>
      boxes[i]!.flatMap((one) => (one.rank === rank ? [hold(tensor, one.box, fill)] : [])),
    ),
  )

let folders = 0
async function save(one: Case): Promise<string> {
  const folder = join(scratch, String(folders++))
  const held = holdings(one, one.before)
  const pieces = planPieces(held)
  for (const { path, shape } of one.tensors) {
    const boxes = pieces.flatMap((piece) => (piece.path === path ? [piece.box] : []))
    assert.equal(partitionProblem(boxes, shape), undefined)
  }
  for (const { path, box, rank } of pieces) {
    assert.ok(
      held[rank]!.some((holding) => holding.path === path && contains(holding.box, box)),
      'an owner holds it',
    )
  }
  const entry = await writeCheckpoint(
    { folder, step: 7, attempt: '0001', metadata: { note: 'ä' }, pieces, keep: 2, patienceSeconds: 0 },
    held.map((_, rank) => ({ rank, data: ownedData(one.tensors, pieces, rank) })),
  )
  const bytes = one.tensors.reduce((sum, tensor) => sum + tensor.bytes.length, 0)
  assert.ok(entry!.bytes >= bytes)
  return join(folder, entry!.name)
}

test('what was saved under one layout is loaded under another, every bit, and not a byte more is read', async () => {
  await fc.assert(
    fc.asyncProperty(cases, fc.boolean(), async (one, verify) => {
      const path = await save(one)
      const expected = holdings(one, one.after)
      for (const [rank, wanted] of holdings(one, one.after, 0xa5).entries()) {
        const checkpoint = openCheckpoint(path)
        assert.deepEqual(checkpoint.metadata, { note: 'ä' })
        const asked = wanted.reduce((sum, holding) => sum + pieceBytes(holding), 0)
        const { bytesRead, bytesVerified } = checkpoint.load(wanted, { verify })
        assert.deepEqual(wanted, expected[rank])
        assert.equal(bytesRead, asked)
        assert.equal(bytesVerified > 0, verify && wanted.length > 0)
        // Files are open by now, pieces verified. Other threads of the process can only add to what is counted.
        let counted = Infinity
        for (let times = 0; times < 5 && counted > asked; times++) {
          const read = countReads()
          checkpoint.load(wanted, { verify })
          counted = Math.min(counted, read())
        }
        if (!Number.isNaN(counted)) assert.equal(counted, asked)
        checkpoint.close()
      }
      rmSync(path, { recursive: true })
    }),
    { numRuns: 150 },
  )
})

/** What is read between two calls, as the system counted it; NaN where it does not say. */
function countReads(): () => number {
  const count = (): { readonly text: string; readonly bytes: number } => {
    const text = existsSync('/proc/self/io') ? readFileSync('/proc/self/io', 'utf8') : ''
    return { text, bytes: Number(/^rchar: (\d+)$/m.exec(text)?.[1]) }
  }
  const before = count()
  // Reading the count counts, too.
  return () => count().bytes - before.bytes - before.text.length
}

test('owners share the writing of what they hold alike', () => {
  const tensors = Array.from({ length: 12 }, (_, i) => testTensor(`params.${i}`, 'F32', [8, 8], i))
  const held = Array.from({ length: 4 }, () => tensors.map((tensor) => hold(tensor, wholeBox(tensor.shape))))
  const pieces = planPieces(held)
  const load = held.map((_, rank) => pieces.filter((piece) => piece.rank === rank).length)
  assert.deepEqual(load, [3, 3, 3, 3])
  assert.ok(pieces.every(({ key, path }) => key === path))
})

test('ranks that disagree, or leave something out, are a defect', () => {
  const tensor = testTensor('params.w', 'F32', [4, 6])
  const half = { start: [0, 0], size: [2, 6] }
  assert.throws(() => planPieces([[hold(tensor, half)], []]), InternalError)
  assert.throws(
    () =>
      planPieces([[hold(tensor, wholeBox([4, 6]))], [hold({ ...tensor, shape: [6, 4] }, wholeBox([6, 4]))]]),
    InternalError,
  )
  assert.throws(
    () => planPieces([[{ ...hold(tensor, half), box: { start: [3, 0], size: [2, 6] } }]]),
    InternalError,
  )
})

test('a piece file is a safetensors file, its pieces named by place', async () => {
  const tensor = testTensor('params.w', 'F32', [4, 6])
  const one: Case = {
    tensors: [tensor],
    ranks: 2,
    before: [
      [
        { box: { start: [0, 0], size: [4, 2] }, rank: 0 },
        { box: { start: [0, 2], size: [4, 4] }, rank: 1 },
      ],
    ],
    after: [[]],
  }
  const path = await save(one)
  const file = openSafetensors(join(path, '0001-rank-00001.safetensors'))
  assert.deepEqual([...file.tensors.keys()], ['params.w[0:4,2:6]'])
  assert.deepEqual(file.read('params.w[0:4,2:6]'), hold(tensor, { start: [0, 2], size: [4, 4] }).data)
  file.close()
  assert.deepEqual(readdirSync(path).toSorted(), [
    '0001-rank-00000.safetensors',
    '0001-rank-00001.safetensors',
    'manifest.json',
  ])
})

test('a state in one file is loaded into any boxes, too', () => {
  fc.assert(
    fc.property(cases, (one) => {
      const path = join(scratch, 'single.safetensors')
      writeSafetensors(
        path,
        one.tensors.map(({ path: name, dtype, shape, bytes }) => ({ name, dtype, shape, data: bytes })),
        { step: '7' },
      )
      const expected = holdings(one, one.after)
      const checkpoint = openCheckpoint(path)
      assert.equal(checkpoint.metadata['step'], '7')
      let verified = 0
      for (const [rank, wanted] of holdings(one, one.after, 0xa5).entries()) {
        verified += checkpoint.load(wanted).bytesVerified
        assert.deepEqual(wanted, expected[rank])
      }
      assert.equal(
        verified,
        one.tensors.reduce((sum, tensor) => sum + tensor.bytes.length, 0),
        'all of the file, once',
      )
      checkpoint.close()
    }),
    { numRuns: 30 },
  )
})

test('a published file without checksums is loaded into a box', () => {
  const path = fileURLToPath(
    new URL('../../../tests/fixtures/checkpoints/gpt2-tiny/model.safetensors', import.meta.url),
  )
  const file = openSafetensors(path)
  const [name, { dtype, shape }] = [...file.tensors].find(([, tensor]) => tensor.shape.length === 2)!
  const whole = { path: name, dtype, shape, bytes: file.read(name) }
  file.close()
  const box = { start: [1, 2], size: [shape[0]! - 2, shape[1]! - 3] }
  const wanted = hold(whole, box, 0)
  const checkpoint = openCheckpoint(path)
  assert.deepEqual(checkpoint.load([wanted]), { bytesRead: wanted.data.length, bytesVerified: 0 })
  checkpoint.close()
  assert.deepEqual(wanted, hold(whole, box))
})

test('a tensor without elements, a scalar, and a large tensor in short and long runs', async () => {
  const tensors = [
    testTensor('empty', 'F32', [0, 3]),
    testTensor('step', 'I32', []),
    testTensor('large', 'F32', [3000, 1000]),
  ]
  const columns = [0, 1, 2].map((rank) => ({
    box: { start: [0, rank * 300], size: [3000, rank < 2 ? 300 : 400] },
    rank,
  }))
  const rows = [0, 1].map((rank) => ({ box: { start: [rank * 1500, 0], size: [1500, 1000] }, rank }))
  const whole = (i: number): Layout[number] => [{ box: wholeBox(tensors[i]!.shape), rank: 0 }]
  for (const [before, after] of [
    [columns, rows],
    [rows, columns],
  ] as const) {
    const one: Case = {
      tensors,
      ranks: 3,
      before: [whole(0), whole(1), before],
      after: [whole(0), whole(1), after],
    }
    const checkpoint = openCheckpoint(await save(one))
    const wanted = holdings(one, one.after, 1)
    for (const rank of wanted) checkpoint.load(rank)
    assert.deepEqual(wanted, holdings(one, one.after))
    checkpoint.close()
  }
})
