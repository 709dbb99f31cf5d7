/**
 * The C target from function to text: lays out the arena (parameters, results, temporaries), lowers, and emits. Pure: the
 * same function always gives the same text, which is what the compiled program is cached by. Inputs `lent` by another
 * program stay in the arena of that one.
 */
import type { Traced } from '../../trace/functions.ts'
import type { Func } from '../../graph/node.ts'
import { bytesOf, type ValueType } from '../../graph/types.ts'
import type { CollectiveSite } from './collectives.ts'
import { emitProgram } from './emit.ts'
import { KernelLibrary } from './kernels.ts'
import { lower, type Block } from './lower.ts'
import type { VectorTarget } from './prelude.ts'
import { sitesOf, stepsOf, type Site } from './profile.ts'
import { aligned, gap, Storage } from './storage.ts'

export interface Slot {
  readonly path: string
  readonly type: ValueType
  readonly offset: number
}

/** Where things lie in an arena. */
export interface ArenaLayout {
  readonly inputs: readonly Slot[]
  readonly outputs: readonly Slot[]
  /** Gaps between buffers, where there are any; nothing may be read or written there. */
  readonly guards: readonly Guard[]
}

export interface BuiltProgram {
  readonly source: string
  /** Where inputs and outputs lie in the arena of the ranks of each stage. */
  readonly parts: readonly {
    readonly inputs: readonly Slot[]
    readonly outputs: readonly Slot[]
    readonly ranks: readonly number[]
  }[]
  readonly arenaBytes: number
  readonly temporaryBytes: number
  /** The most bytes of temporaries alive at once. */
  readonly lowerBound: number
  /** Kernel calls in the order they appear in the program, as the profile counts them. */
  readonly sites: readonly Site[]
  /** Where ranks meet. */
  readonly collectives: readonly CollectiveSite[]
  /** Gaps between buffers, where there are any; nothing may be read or written there. */
  readonly guards: readonly Guard[]
}

export interface Guard {
  readonly offset: number
  readonly bytes: number
}

/** Results under `state.` live where the parameter of the same path lives: state is updated in place. */
export const isState = (path: string): boolean => path === 'state' || path.startsWith('state.')

/** What the ranks of one pipeline stage run; without a pipeline, or on one device, there is one part. */
export interface PartOfProgram extends Pick<Traced, 'inputPaths' | 'outputPaths'> {
  readonly func: Func
  readonly ranks: readonly number[]
}

export function buildC(
  parts: readonly PartOfProgram[],
  target: VectorTarget,
  title: readonly string[],
  { apart = false }: { readonly apart?: boolean } = {},
  lent: ReadonlyMap<string, Slot> = new Map(),
): BuiltProgram {
  const library = new KernelLibrary(target)
  const built = parts.map((part) => buildPart(part, library, apart, lent))
  const arenaBytes = Math.max(...built.map(({ bytes }) => bytes))
  const ranks = parts.reduce((total, part) => total + part.ranks.length, 0)
  const texts = built.map(({ block, temporaryOffset }, i) => ({
    block,
    temporaryOffset,
    ranks: parts[i]!.ranks,
  }))
  return {
    source: emitProgram({ title, target, library, parts: texts, arenaBytes, ranks }),
    parts: built.map(({ inputs, outputs }, i) => ({ inputs, outputs, ranks: parts[i]!.ranks })),
    arenaBytes,
    temporaryBytes: Math.max(...built.map(({ block }) => block.temporaryBytes)),
    lowerBound: Math.max(...built.map(({ block }) => block.lowerBound)),
    sites: sitesOf(
      built.map(({ block }) => block),
      target.threads,
    ),
    collectives: library.collectives,
    guards: built.flatMap(({ guards }) => guards),
  }
}

interface BuiltPart {
  readonly inputs: readonly Slot[]
  readonly outputs: readonly Slot[]
  readonly block: Block
  readonly temporaryOffset: number
  readonly bytes: number
  readonly guards: readonly Guard[]
}

function buildPart(
  { func, inputPaths, outputPaths }: PartOfProgram,
  library: KernelLibrary,
  apart: boolean,
  lent: ReadonlyMap<string, Slot>,
): BuiltPart {
  let offset = 0
  const guards: Guard[] = []
  const reserve = (path: string, type: ValueType): Slot => {
    const slot = { path, type, offset }
    offset += aligned(bytesOf(type))
    if (apart) {
      offset += gap
      guards.push(guardAfter(slot.offset, bytesOf(type)))
    }
    return slot
  }
  const place = (slot: Slot): Storage => {
    const from = lent.get(slot.path) === slot ? 'lender' : 'arena'
    return new Storage(slot.path, bytesOf(slot.type), `(${from} + ${slot.offset})`)
  }
  const inputs = func.params.map(
    (param, i) => lent.get(inputPaths[i]!) ?? reserve(inputPaths[i]!, param.type),
  )
  const outputs = func.results.map((result, i) => {
    const path = outputPaths[i]!
    const known = isState(path) ? inputs.find((slot) => slot.path === path) : undefined
    return known ?? reserve(path, result.type)
  })
  const params = inputs.map(place)
  const results = outputs.map((slot) => {
    const replaces = inputs.indexOf(slot)
    return replaces >= 0 ? { place: params[replaces]!, replaces } : { place: place(slot) }
  })
  const block = lower(func, library, { params, results, apart })
  return {
    inputs,
    outputs,
    block,
    temporaryOffset: offset,
    bytes: offset + block.temporaryBytes,
    guards: apart ? [...guards, ...guardsOf(block, offset)] : [],
  }
}

/** From the end of a buffer to the beginning of the next. */
const guardAfter = (offset: number, bytes: number): Guard => ({
  offset: offset + bytes,
  bytes: aligned(bytes) + gap - bytes,
})

/** Gaps between the temporaries of a block and of the loops in it, whose memory is a temporary of the outer block. */
function guardsOf(block: Block, base: number): Guard[] {
  const roots = new Set(block.temporaries.map(({ root }) => root))
  const own = [...roots]
    .filter(({ outside, offset }) => outside === undefined && offset >= 0)
    .map(({ offset, bytes }) => guardAfter(base + offset, bytes))
  const inner = stepsOf(block).flatMap((step) =>
    step.kind === 'loop' ? guardsOf(step.block, base + step.region.root.offset) : [],
  )
  return [...own, ...inner]
}
