/**
 * Collectives in C against what they mean (`across`, on simulated ranks): every kind, random shapes, every element type,
 * groups along one, two or three axes of meshes of 2 to 8 ranks, plain and zigzag order. Values are whole numbers, so
 * that sums are exact and equality is to the bit. Bytes are counted, and equal the formulas.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { groupOf, groupRanks, groupSize, memberOf, ranksOf, type Group, type Mesh } from '../../graph/mesh.ts'
import { Graph, inGraph, type Func, type Node } from '../../graph/node.ts'
import { bytesOf, dtypeBytes, sizeOf, valueType, type DType, type ValueType } from '../../graph/types.ts'
import { add } from '../../ops/add.ts'
import { allGather } from '../../ops/all-gather.ts'
import { allReduce } from '../../ops/all-reduce.ts'
import { allToAll } from '../../ops/all-to-all.ts'
import { input } from '../../ops/input.ts'
import { meshIndex } from '../../ops/mesh-index.ts'
import { reduceScatter } from '../../ops/reduce-scatter.ts'
import { scan } from '../../ops/scan.ts'
import { get } from '../../ops/get.ts'
import { shard } from '../../ops/shard.ts'
import { shift } from '../../ops/shift.ts'
import { uniformPick } from '../../random-samples.ts'
import { readTraffic, type Traffic } from '../../ranked-native.ts'
import { machine } from '../../runtime/machine.ts'
import { findMpi, runMpi, withoutMpi } from '../../runtime/mpi.ts'
import { openNative } from '../../runtime/native.ts'
import { compileExecutable, compileShared } from '../../runtime/toolchain.ts'
import type { Values } from '../../graph/op.ts'
import { interpretRanks } from '../reference/ranks.ts'
import { buildC, type BuiltProgram } from './build.ts'
import { rankInput, rankOutput, rankProgramText } from './rank-main.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

/** Builds local programs of many collectives, one result each. */
interface Local {
  readonly mesh: Mesh
  readonly func: Func
}

/** A whole number below a limit. */
type Draw = (below: number) => number

function pickFrom(seed: number): Draw {
  const pick = uniformPick(seed)
  return (below) => pick(0, below - 1)
}

const dtypes: readonly DType[] = ['f32', 'f64', 'bf16', 'f16', 'i32', 'u8', 'bool']

/** Some axes of a mesh, as a group. */
function groupIn(mesh: Mesh, pick: Draw): Group {
  const some = mesh.filter(() => pick(2) === 0)
  const chosen = some.length > 0 ? some : [mesh[pick(mesh.length)]!]
  const zigzag = chosen.find(({ order }) => order === 'zigzag')
  return groupOf(mesh, zigzag ? [zigzag.name] : chosen.map(({ name }) => name))
}

type Build = (x: Node) => Node

/** A collective with a shape that it can take. */
function randomCollective(
  mesh: Mesh,
  kind: string,
  pick: Draw,
): { readonly type: ValueType; readonly build: Build } {
  const group = groupIn(mesh, pick)
  const size = groupSize(group)
  const dtype = dtypes[pick(dtypes.length)]!
  const shape = Array.from({ length: 1 + pick(4) }, () => 1 + pick(5))
  // Some large enough that teams share them out.
  if (pick(3) === 0) shape[pick(shape.length)]! += 2000
  const dim = pick(shape.length)
  const pieces = group.order === 'zigzag' ? 2 * size : size
  const type = (): ValueType => valueType(dtype, shape)
  switch (kind) {
    case 'allReduce': {
      const combine = dtype === 'bool' || pick(2) === 0 ? 'max' : 'sum'
      return { type: type(), build: (x) => allReduce(x, group, combine) }
    }
    case 'reduceScatter':
      shape[dim]! *= pieces
      return {
        type: dtype === 'bool' ? valueType('f32', shape) : type(),
        build: (x) => reduceScatter(x, group, dim),
      }
    case 'shard':
      shape[dim]! *= pieces
      return { type: type(), build: (x) => shard(x, group, dim) }
    case 'allGather':
      if (group.order === 'zigzag') shape[dim]! *= 2
      return { type: type(), build: (x) => allGather(x, group, dim) }
    case 'allToAll': {
      if (shape.length === 1) shape.push(1 + pick(5))
      const split = (dim + 1 + pick(shape.length - 1)) % shape.length
      shape[split]! *= pieces
      if (group.order === 'zigzag') shape[dim]! *= 2
      return { type: type(), build: (x) => allToAll(x, group, split, dim) }
    }
    default: {
      const by = pick(2 * size + 1) - size
      return { type: type(), build: (x) => shift(x, group, by) }
    }
  }
}

const kinds = ['allReduce', 'reduceScatter', 'allGather', 'allToAll', 'shift', 'shard']

function randomLocal(mesh: Mesh, seed: number, count: number): Local {
  const pick = pickFrom(seed)
  return inGraph(new Graph(), () => {
    const graph = new Graph()
    return inGraph(graph, () => {
      const scope = graph.scope()
      const made = Array.from({ length: count }, (_, i) => {
        const { type, build } = randomCollective(mesh, kinds[i % kinds.length]!, pick)
        const param = input(scope, `x${i}`, type)
        return { param, result: build(param) }
      })
      const func = graph.func(
        'collectives',
        made.map(({ param }) => param),
        [...made.map(({ result }) => result), meshIndex(groupIn(mesh, pick))],
      )
      return { mesh, func }
    })
  })
}

/** Whole numbers that every type can hold, and sums of eight of them. */
function drawRanks(func: Func, ranks: number, seed: number): Float64Array[][] {
  const pick = pickFrom(seed)
  return func.params.map(({ type }) =>
    Array.from({ length: ranks }, () =>
      Float64Array.from({ length: sizeOf(type.shape) }, () => pick(type.dtype === 'bool' ? 2 : 16)),
    ),
  )
}

const arrays = {
  f32: Float32Array,
  f64: Float64Array,
  bf16: Uint16Array,
  f16: Float16Array,
  i32: Int32Array,
  u8: Uint8Array,
  bool: Uint8Array,
}

/** Numbers as memory of a type. bf16 is the upper half of an f32, which holds exactly what is drawn. */
function encode(dtype: DType, values: Float64Array): Uint8Array {
  const memory =
    dtype === 'bf16'
      ? Uint16Array.from(new Uint32Array(Float32Array.from(values).buffer), (bits) => bits >>> 16)
      : arrays[dtype].from(values)
  return new Uint8Array(memory.buffer)
}

function decode(dtype: DType, bytes: Uint8Array): Float64Array {
  const { buffer } = Uint8Array.from(bytes)
  if (dtype !== 'bf16') return Float64Array.from(new arrays[dtype](buffer))
  const wide = Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16)
  return Float64Array.from(new Float32Array(wide.buffer))
}

const paths = (func: Func) => ({
  inputPaths: func.params.map((_, i) => `x${i}`),
  outputPaths: func.results.map((_, i) => `y${i}`),
})

type Built = Pick<BuiltProgram, 'source' | 'collectives' | 'arenaBytes'> & BuiltProgram['parts'][number]

async function build({ func, mesh }: Local, threads: number): Promise<Built> {
  const { vectorBytes, registers } = await machine()
  const ranks = Array.from({ length: ranksOf(mesh) }, (_, rank) => rank)
  const part = { func, ranks, ...paths(func) }
  const built = buildC([part], { threads, vectorBytes, registers }, [func.name])
  return { ...built, ...built.parts[0]! }
}

interface Run {
  /** [result][rank] */
  readonly results: readonly (readonly Uint8Array[])[]
  readonly traffic: readonly Traffic[]
}

async function runThreads(
  local: Local,
  data: readonly (readonly Float64Array[])[],
  threads: number,
): Promise<Run> {
  const ranks = ranksOf(local.mesh)
  const built = await build(local, threads)
  const { path } = await compileShared({
    name: 'collectives',
    source: built.source,
    checking: true,
    flags: ['-O1'],
  })
  const native = openNative(path, built.arenaBytes, ranks)
  try {
    for (let rank = 0; rank < ranks; rank++) {
      built.inputs.forEach(({ type, offset }, i) =>
        new Uint8Array(native.arenas[rank]!, offset).set(encode(type.dtype, data[i]![rank]!)),
      )
    }
    // Twice: counters and posts must be right the second time, too. Inputs are not touched.
    await native.run()
    native.runBlocking()
    const results = built.outputs.map(({ type, offset }) =>
      native.arenas.map((arena) => Uint8Array.from(new Uint8Array(arena, offset, bytesOf(type)))),
    )
    return { results, traffic: readTraffic((bytes) => native.traffic(bytes), built.collectives, ranks) }
  } finally {
    native.close()
  }
}

/** The same as processes. */
async function runProcesses(
  local: Local,
  data: readonly (readonly Float64Array[])[],
  threads: number,
): Promise<Run> {
  const ranks = ranksOf(local.mesh)
  const built = await build(local, threads)
  const { flags } = await findMpi()
  const { path } = await compileExecutable({
    name: 'collectives-mpi',
    source: rankProgramText({ source: built.source, layout: built }),
    flags: ['-O1', ...flags],
  })
  const folder = mkdtempSync(join(tmpdir(), 'ranks-'))
  try {
    for (let rank = 0; rank < ranks; rank++) {
      const values = new Map(
        built.inputs.map(({ path, type }, i) => [path, encode(type.dtype, data[i]![rank]!)] as const),
      )
      writeFileSync(join(folder, `rank-${rank}.in`), rankInput(built, [values, values]))
    }
    await runMpi(ranks, [path, folder, '2'])
    const each = Array.from({ length: ranks }, (_, rank) =>
      rankOutput(built, readFileSync(join(folder, `rank-${rank}.out`)), 2),
    )
    const results = built.outputs.map(({ path }) =>
      each.map(({ steps }) => Uint8Array.from(steps[1]!.get(path)!)),
    )
    const counters = Array.from({ length: ranks }, (_, rank) => {
      const bytes = Uint8Array.from(readFileSync(join(folder, `rank-${rank}.traffic`)))
      return Array.from(new BigInt64Array(bytes.buffer), Number)
    })
    const traffic = built.collectives.map(({ op, axes, source }, i) => ({
      op,
      axes,
      source,
      calls: counters[0]![i * (1 + ranks)]!,
      bytesSent: counters.map((own) => own.slice(i * (1 + ranks) + 1, (i + 1) * (1 + ranks))),
    }))
    return { results, traffic }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** What the simulated ranks get: [result][rank]. */
function meaning(
  func: Func,
  data: readonly (readonly Float64Array[])[],
  ranks: number,
): readonly (readonly Values[])[] {
  const all = Array.from({ length: ranks }, (_, rank) => rank)
  return interpretRanks([{ func, ranks: all, args: data }])[0]!
}

function assertMeaning(
  { func, mesh }: Local,
  data: readonly (readonly Float64Array[])[],
  { results }: Run,
): void {
  const want = meaning(func, data, ranksOf(mesh))
  func.results.forEach((result, i) => {
    want[i]!.forEach((values, rank) =>
      assert.deepEqual(
        decode(result.dtype, results[i]![rank]!),
        values,
        `result ${i}, ${result.op.name}, rank ${rank}`,
      ),
    )
  })
}

/** Bytes that a rank has to send, by the formulas. */
function formula(node: Node, rank: number): number {
  const group = node.attrs as unknown as Group
  const n = groupSize(group)
  const bytes = bytesOf(node.inputs[0]!.type)
  if (node.op.name === 'allReduce') {
    // Chunks as even as whole elements can be: the others' chunks leave once, the own one goes to all others.
    const elements = sizeOf(node.shape)
    const member = memberOf(group, rank)
    const own = Math.floor((elements * (member + 1)) / n) - Math.floor((elements * member) / n)
    return (elements + own * (n - 2)) * dtypeBytes[node.dtype]
  }
  if (node.op.name === 'allGather') return (n - 1) * bytes
  if (node.op.name === 'shift') return (node.attrs['by'] as number) % n === 0 ? 0 : bytes
  return node.op.name === 'shard' ? 0 : ((n - 1) / n) * bytes
}

function assertTraffic({ func, mesh }: Local, { traffic }: Run): void {
  const ranks = ranksOf(mesh)
  const collectives = func.results.filter(({ op }) => op.name !== 'meshIndex')
  assert.equal(traffic.length, collectives.length)
  collectives.forEach((node, i) => {
    const { op, calls, bytesSent } = traffic[i]!
    assert.equal(op, node.op.name)
    assert.equal(calls, 2)
    const group = node.attrs as unknown as Group
    for (let rank = 0; rank < ranks; rank++) {
      const total = bytesSent[rank]!.reduce((a, b) => a + b, 0)
      assert.equal(total, 2 * formula(node, rank), `${op} ${node.shape.join()}, rank ${rank}`)
      const peers = groupRanks(group, rank)
      bytesSent[rank]!.forEach((bytes, peer) =>
        assert.ok(bytes === 0 || (peers.includes(peer) && peer !== rank)),
      )
      if (op !== 'allReduce') continue
      // Evenly cut, it is the familiar 2 (n - 1) / n.
      const n = groupSize(group)
      if (sizeOf(node.shape) % n === 0) assert.equal(total, (2 * 2 * (n - 1) * bytesOf(node.type)) / n)
    }
  })
}

const meshes: readonly Mesh[] = [
  [{ name: 'a', size: 2 }],
  [{ name: 'a', size: 3, order: 'zigzag' }],
  [
    { name: 'a', size: 2 },
    { name: 'b', size: 2, order: 'zigzag' },
  ],
  [
    { name: 'a', size: 2, order: 'zigzag' },
    { name: 'b', size: 3 },
  ],
  [
    { name: 'a', size: 2 },
    { name: 'b', size: 2 },
    { name: 'c', size: 2, order: 'zigzag' },
  ],
]

const nameOf = (mesh: Mesh): string =>
  mesh.map(({ name, size, order }) => `${name}=${size}${order ? ' zigzag' : ''}`).join(', ')

for (const [i, mesh] of meshes.entries()) {
  test(`ranks as threads, ${nameOf(mesh)}: collectives mean and send what they should`, async () => {
    const local = randomLocal(mesh, 100 + i, 36)
    const data = drawRanks(local.func, ranksOf(mesh), i)
    const one = await runThreads(local, data, 1)
    assertMeaning(local, data, one)
    assertTraffic(local, one)
    const three = await runThreads(local, data, 3)
    assert.deepEqual(three, one)
  })
}

const noMpi = await withoutMpi()

test('ranks as processes: the same bits and bytes', { skip: noMpi }, async () => {
  for (const [i, mesh] of meshes.slice(1, 3).entries()) {
    const local = randomLocal(mesh, 200 + i, 36)
    const data = drawRanks(local.func, ranksOf(mesh), i)
    const processes = await runProcesses(local, data, 2)
    assertMeaning(local, data, processes)
    assertTraffic(local, processes)
  }
})

/** Sums of fractions: any other order of adding would show. */
function fractions(func: Func, ranks: number): Float64Array[][] {
  const pick = pickFrom(5)
  return func.params.map(({ type }) =>
    Array.from({ length: ranks }, () =>
      Float64Array.from({ length: sizeOf(type.shape) }, () => Math.fround((pick(1 << 20) + 1) / 977)),
    ),
  )
}

/** A loop in which ranks meet in every step: sums, a ring, and gathered and scattered rows. */
function loopLocal(mesh: Mesh): Local {
  return inGraph(new Graph(), () => {
    const graph = new Graph()
    return inGraph(graph, () => {
      const group = groupOf(
        mesh,
        mesh.map(({ name }) => name),
      )
      const n = groupSize(group)
      const type = valueType('f32', [4 * n, 301])
      const rows = valueType('f32', [3, 4 * n, 301])
      const outer = graph.scope()
      const inner = graph.scope()
      const carry = input(inner, 'h', type)
      const row = input(inner, 'row', type)
      const summed = allReduce(add(carry, row), group)
      const piece = reduceScatter(shift(summed, group, 1), group, 0)
      const next = allGather(add(piece, shard(row, group, 0)), group, 0)
      const body = graph.func('ring', [carry, row], [next, piece])
      const [start, all] = [input(outer, 'x0', type), input(outer, 'x1', rows)]
      const loop = scan([start, all], {
        body,
        length: 3,
        reverse: false,
        numConstants: 0,
        numCarries: 1,
        axis: null,
      })
      return { mesh, func: graph.func('loop', [start, all], [get(loop, 0), get(loop, 1)]) }
    })
  })
}

test('loops over collectives: near the reference, one set of bits for any team', async () => {
  const local = loopLocal([{ name: 'a', size: 5 }])
  const data = fractions(local.func, 5)
  const one = await runThreads(local, data, 1)
  const want = meaning(local.func, data, 5)
  want.forEach((result, i) =>
    result.forEach((values, rank) => {
      const got = decode('f32', one.results[i]![rank]!)
      values.forEach((x, j) => assert.ok(Math.abs(got[j]! - x) <= 2e-5 * Math.abs(x)))
    }),
  )
  assert.deepEqual(
    one.traffic.map(({ calls }) => calls),
    one.traffic.map(() => 6),
  )
  for (const threads of [2, 3]) assert.deepEqual(await runThreads(local, data, threads), one)
  if (noMpi) return
  assert.deepEqual(await runProcesses(local, data, 1), one)
})
