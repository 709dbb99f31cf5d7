/**
 * What a program has counted as sent beside what its graph foretells: for every kind of collective, over every axis, rank
 * by rank and link by link. What each link carries follows from who holds what, so it is a formula, too.
 */
import assert from 'node:assert/strict'
import { groupRanks, ranksOf, type Mesh } from '../../src/compiler/graph/mesh.ts'
import { reachable, type Func, type Node } from '../../src/compiler/graph/node.ts'
import { sizeOf, dtypeBytes } from '../../src/compiler/graph/types.ts'
import { collectiveAttrs } from '../../src/compiler/ops/collective.ts'
import { messageAttrs, sendOp } from '../../src/compiler/ops/send.ts'
import { scanAttrs, scanOp } from '../../src/compiler/ops/scan.ts'
import { trafficOfNode } from '../../src/parallel/traffic.ts'
import type { Trained } from './agree.ts'

/** Bytes by `kind over axes`, from rank and to rank. */
type Links = Map<string, number[][]>

const keyOf = (op: string, axes: readonly string[]): string => `${op} over ${axes.join('+')}`

function add(links: Links, key: string, ranks: number, from: number, to: number, bytes: number): void {
  const table = links.get(key) ?? Array.from({ length: ranks }, () => Array<number>(ranks).fill(0))
  links.set(key, table)
  table[from]![to]! += bytes
}

/** What one call of a collective moves from a rank to the other members of its group. */
function movesOf(node: Node, rank: number): { readonly to: number; readonly bytes: number }[] {
  const attrs = collectiveAttrs(node)
  const peers = groupRanks(attrs, rank)
  const [n, me] = [peers.length, peers.indexOf(rank)]
  const elements = sizeOf(node.inputs[0]!.shape)
  const size = dtypeBytes[node.inputs[0]!.dtype]
  if (node.op === sendOp) return [{ to: peers[messageAttrs(node).peer]!, bytes: elements * size }]
  if (node.op.name === 'shift') {
    const to = peers[(((me + (node.attrs['by'] as number)) % n) + n) % n]!
    return to === rank ? [] : [{ to, bytes: elements * size }]
  }
  /** An all-reduce: to each its chunk to be combined, and from there the own chunk, combined. */
  const chunk = (member: number): number =>
    Math.floor((elements * (member + 1)) / n) - Math.floor((elements * member) / n)
  return peers.flatMap((to, member) => {
    if (to === rank) return []
    const share = { allReduce: chunk(member) + chunk(me), allGather: elements }[node.op.name] ?? elements / n
    return [{ to, bytes: share * size }]
  })
}

/** What a step should send, link by link, and what `trafficOf` says that each rank sends. */
function foretold(trained: Trained): { readonly links: Links; readonly sums: Map<string, number> } {
  const { mesh, parts } = trained.cut!
  const ranks = ranksOf(mesh)
  const [links, sums] = [new Map<string, number[][]>(), new Map<string, number>()]
  const walk = (func: Func, of: readonly number[], calls: number): void => {
    for (const node of reachable(func.results)) {
      if (node.op === scanOp) walk(scanAttrs(node).body, of, calls * scanAttrs(node).length)
      const entry = trafficOfNode(node, calls)
      if (!entry) continue
      const key = keyOf(entry.kind, entry.axes)
      sums.set(key, (sums.get(key) ?? 0) + of.length * entry.sent)
      for (const from of of)
        for (const { to, bytes } of movesOf(node, from)) add(links, key, ranks, from, to, calls * bytes)
    }
  }
  for (const { func, ranks } of parts) walk(func, ranks, 1)
  return { links, sums }
}

/** What the program counted. */
function counted({ cut, traffic }: Trained): Links {
  const ranks = ranksOf(cut!.mesh)
  const links: Links = new Map()
  for (const { op, axes, bytesSent } of traffic) {
    bytesSent.forEach((row, from) =>
      row.forEach((bytes, to) => bytes > 0 && add(links, keyOf(op, axes), ranks, from, to, bytes)),
    )
  }
  return links
}

/** Whether two ranks differ along some of the axes only. */
function linked(mesh: Mesh, axes: readonly string[], from: number, to: number): boolean {
  return mesh.every(({ name, size }, i) => {
    const stride = mesh.slice(i + 1).reduce((product, axis) => product * axis.size, 1)
    const same = Math.floor(from / stride) % size === Math.floor(to / stride) % size
    return same || axes.includes(name)
  })
}

/** Holds the counters of a program after some steps equal to the formulas. Returns what all ranks sent in a step. */
export function assertSent(what: string, trained: Trained, steps: number): number {
  const { links, sums } = foretold(trained)
  const real = counted(trained)
  let total = 0
  assert.deepEqual([...real.keys()].toSorted(), [...links.keys()].toSorted(), what)
  for (const [key, table] of real) {
    assert.deepEqual(
      table,
      links.get(key)!.map((row) => row.map((bytes) => steps * bytes)),
      `${what}: ${key}, link by link`,
    )
    const axes = key.split(' over ')[1]!.split('+')
    table.forEach((row, from) =>
      row.forEach((bytes, to) =>
        assert.ok(bytes === 0 || linked(trained.cut!.mesh, axes, from, to), `${what}: ${key} along its axes`),
      ),
    )
    const all = table.flat().reduce((a, b) => a + b, 0)
    assert.equal(all, steps * sums.get(key)!, `${what}: ${key}, all ranks`)
    total += all / steps
  }
  return total
}
