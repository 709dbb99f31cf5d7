/**
 * Collectives in C: one small function a call, which says what is to be moved or combined (collectives.h) and leaves the
 * travelling to the transport that the program is compiled with: ranks as threads of one process (ranks-threads.h), or as
 * processes with MPI (ranks-mpi.h, with -DANNEAL_MPI). The text is the same for both, and the same on every rank.
 */
import { readFileSync } from 'node:fs'
import { InternalError } from '../../../errors.ts'
import { groupSize } from '../../graph/mesh.ts'
import type { Node } from '../../graph/node.ts'
import { bytesOf, dtypeBytes, sizeOf } from '../../graph/types.ts'
import { collectiveAttrs, type CollectiveAttrs } from '../../ops/collective.ts'
import { messageAttrs, receiveOp, sendOp } from '../../ops/send.ts'
import type { KernelText } from './rows.ts'
import { placeOf } from './work.ts'

/** A collective of a program, by its number. */
export interface CollectiveSite {
  readonly op: string
  readonly axes: readonly string[]
  /** `folder/file.ts:line:column`, or empty. */
  readonly source: string
}

const text = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8')
const shared = text('collectives.h')
const threads = text('ranks-threads.h')
const mpi = text('ranks-mpi.h')

/** The first lines of a program: how many ranks there are, and how many of them are in one process. */
export const hosting = (ranks: number): string =>
  [
    `#define RANKS ${ranks}`,
    '#ifdef ANNEAL_MPI',
    '#include <mpi.h>',
    '#define HOSTED 1',
    '#else',
    '#define HOSTED RANKS',
    '#endif',
  ].join('\n')

/** What programs with several ranks need, whatever their collectives are. */
export const collectivesText = (ranks: number, sites: number, channels: number): string =>
  ranks === 1
    ? ''
    : [
        `#define COLLECTIVES ${Math.max(sites, 1)}`,
        `#define CHANNELS ${Math.max(channels, 1)}`,
        shared,
        '#ifdef ANNEAL_MPI',
        mpi,
        '#else',
        threads,
        '#endif',
      ].join('\n')

const kinds: Readonly<Record<string, string>> = {
  allReduce: 'ALL_REDUCE',
  reduceScatter: 'REDUCE_SCATTER',
  allGather: 'ALL_GATHER',
  allToAll: 'ALL_TO_ALL',
  shift: 'SHIFT',
  shard: 'SHARD',
}

/** Below this, waking the whole team costs more than it saves. */
const aloneBytes = 16 * 1024

export const siteOf = (node: Node): CollectiveSite => ({
  op: node.op.name,
  axes: collectiveAttrs(node).axes,
  source: placeOf(node),
})

/** C name of what is to be done at a collective, and of its function's argument. */
export const constantOf = (site: number): string => `collective_${site}`

/**
 * The function of one collective, given its number in the program and how channels are numbered, and the constant that
 * says what it does, where a whole group meets.
 */
export function emitCollective(
  node: Node,
  site: number,
  channelNumber: (name: string) => number,
): Pick<KernelText, 'body' | 'nature'> & { readonly constant?: string } {
  const attrs = collectiveAttrs(node)
  if (node.op === sendOp || node.op === receiveOp) {
    const { peer, channel } = messageAttrs(node)
    const sends = node.op === sendOp
    const fields = {
      site,
      name: JSON.stringify(`${describeSite(siteOf(node))}, ${channel}`),
      members: groupSize(attrs),
      axes: attrs.steps.length,
      step: stepsText(attrs),
      element: 1,
    }
    const values = Object.entries(fields).map(([name, value]) => `.${name} = ${value}`)
    const bytes = bytesOf(sends ? node.inputs[0]!.type : node.type)
    const call = `${sends ? 'send' : 'receive'}_value(&c, ${channelNumber(channel)}, ${peer}, ${bytes}LL, ${sends ? 'p0' : `p${node.inputs.length}`});`
    const token = sends ? ['*(int32_t *)p1 = 0;'] : []
    return {
      nature: { kind: 'serial' },
      body: [`static const collective c = {${values.join(', ')}};`, call, ...token],
    }
  }
  if (node.op.name === 'meshIndex') {
    return {
      nature: { kind: 'serial' },
      body: [
        `static const int step[][2] = ${stepsText(attrs)};`,
        `*(int32_t *)p0 = member_of(${attrs.steps.length}, step, rank_here());`,
      ],
    }
  }
  const kind = kinds[node.op.name]
  if (kind === undefined) throw new InternalError(`no collective ${node.op.name} in C`)
  const x = node.inputs[0]!
  const alone = Math.max(bytesOf(x.type), bytesOf(node.type)) <= aloneBytes
  const combines = kind === 'ALL_REDUCE' || kind === 'REDUCE_SCATTER'
  const fields = {
    site,
    kind,
    name: JSON.stringify(describeSite(siteOf(node))),
    members: groupSize(attrs),
    axes: attrs.steps.length,
    step: stepsText(attrs),
    rounds: attrs.order === 'zigzag' ? 'ZIGZAG' : attrs.order === 'plain' ? 1 : attrs.order,
    by: (node.attrs['by'] as number | undefined) ?? 0,
    alone: alone ? 1 : 0,
    element: dtypeBytes[node.dtype],
    combine: combines ? `${attrs.combine ?? 'sum'}_${node.dtype === 'bool' ? 'u8' : node.dtype}` : '0',
    elements: sizeOf(x.shape),
    ...aroundCuts(node, attrs),
  }
  const values = Object.entries(fields).map(([name, value]) => `.${name} = ${value}`)
  return {
    nature: { kind: alone ? 'serial' : 'team' },
    body: [`collect(tid, &${constantOf(site)}, p0, p1);`],
    constant: `static const collective ${constantOf(site)} = {${values.join(', ')}};`,
  }
}

export const describeSite = ({ op, axes, source }: CollectiveSite): string =>
  `${op} over ${axes.join('+')}${source === '' ? '' : ` (${source})`}`

const stepsText = ({ steps }: CollectiveAttrs): string =>
  `{${steps.map(([size, distance]) => `{${size}, ${distance}}`).join(', ')}}`

/** Extents of the value with nothing cut, around the dimension that is cut or joined, or around both. */
function aroundCuts(node: Node, attrs: CollectiveAttrs): Readonly<Record<string, number>> {
  const x = node.inputs[0]!
  const size = groupSize(attrs)
  const { dim, split } = attrs
  if (dim === undefined) return {}
  const joins = node.op.name === 'allGather' || node.op.name === 'allToAll'
  const whole = x.shape.map((extent, i) => (i === dim && joins ? extent * size : extent))
  const extent = (from: number, to: number): number => sizeOf(whole.slice(from, to))
  if (split === undefined) {
    return {
      outer: extent(0, dim),
      first: whole[dim]!,
      between: 1,
      second: 1,
      inner: extent(dim + 1, whole.length),
    }
  }
  const [low, high] = dim < split ? [dim, split] : [split, dim]
  return {
    outer: extent(0, low),
    first: whole[low]!,
    between: extent(low + 1, high),
    second: whole[high]!,
    inner: extent(high + 1, whole.length),
    joinedFirst: dim < split ? 1 : 0,
  }
}
