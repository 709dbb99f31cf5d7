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

export interface BuiltProgram {
  readonly source: string
  readonly inputs: readonly Slot[]
  readonly outputs: readonly Slot[]
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

export function buildC(
  func: Func,
  { inputPaths, outputPaths }: Pick<Traced, 'inputPaths' | 'outputPaths'>,
  target: VectorTarget,
  title: readonly string[],
  { apart = false, ranks = 1 }: { readonly apart?: boolean; readonly ranks?: number } = {},
  lent: ReadonlyMap<string, Slot> = new Map(),
): BuiltProgram {
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
  const library = new KernelLibrary(target)
  const block = lower(func, library, { params, results, apart })
  const temporaryOffset = offset
  const arenaBytes = offset + block.temporaryBytes
  const source = emitProgram({ title, target, library, block, arenaBytes, temporaryOffset, ranks })
  return {
    source,
    inputs,
    outputs,
    arenaBytes,
    temporaryBytes: block.temporaryBytes,
    lowerBound: block.lowerBound,
    sites: sitesOf(block, target.threads),
    collectives: library.collectives,
    guards: apart ? [...guards, ...guardsOf(block, temporaryOffset)] : [],
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
