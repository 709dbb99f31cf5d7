/**
 * The C target from function to text: lays out the arena (parameters, results, temporaries), lowers, and emits. Pure: the
 * same function always gives the same text, which is what the compiled program is cached by. Inputs `lent` by another
 * program stay in the arena of that one. State that is `offloaded` lies at the beginning of the arena, and activations that
 * are lie at its end, where a file is mapped instead of memory (offload.ts, kept.ts).
 */
import type { Traced } from '../../trace/functions.ts'
import type { Func } from '../../graph/node.ts'
import { bytesOf, type ValueType } from '../../graph/types.ts'
import type { CollectiveSite } from './collectives.ts'
import { emitProgram } from './emit.ts'
import { KeptStacks, movedByLoops } from './kept.ts'
import { KernelLibrary } from './kernels.ts'
import { lower, type Block } from './lower.ts'
import { outlineOf, type OutlinedPhase } from './outline.ts'
import type { VectorTarget } from './prelude.ts'
import { fileAlignment, releasesOf, type ReleasePlan } from './offload.ts'
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
    readonly outline: readonly OutlinedPhase[]
  }[]
  /** All of it: memory and, before and behind it, what lies in a file. */
  readonly arenaBytes: number
  /** Only what is memory. */
  readonly residentBytes: number
  /** What lies in a file, rounded up to where the next part may begin. */
  readonly offloadedBytes: number
  /** What a step moves to the file and from it, all ranks together. */
  readonly movedBytes: number
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

export interface BuildOptions {
  readonly apart?: boolean
  /** Whether an input, which must be state, lies in a file. */
  readonly offload?: (path: string) => boolean
  /** What loops keep for their backward loops lies in a file. */
  readonly offloadActivations?: boolean
}

export function buildC(
  parts: readonly PartOfProgram[],
  target: VectorTarget,
  title: readonly string[],
  { apart = false, offload = () => false, offloadActivations = false }: BuildOptions = {},
  lent: ReadonlyMap<string, Slot> = new Map(),
): BuiltProgram {
  const library = new KernelLibrary(target)
  const files = parts.map((part) => stateInFile(part, offload, lent))
  // What follows begins where a huge page may, in all parts at the same place.
  const stateBytes = roundUp(Math.max(...files.map(({ bytes }) => bytes)), 2 ** 21)
  const built = parts.map((part, i) => {
    const options = { apart, offloadActivations, inFile: files[i]!.slots, stateBytes }
    return buildPart(part, library, options, lent)
  })
  const most = (bytes: (part: BuiltPart) => number): number => Math.max(...built.map(bytes))
  const memoryEnd = most(({ bytes }) => bytes)
  const ranks = parts.reduce((total, part) => total + part.ranks.length, 0)
  const keptBytes = most((part) => part.keptBytes)
  const file = {
    stateBytes,
    keptBytes,
    keptAt: keptBytes > 0 ? roundUp(memoryEnd, fileAlignment) : memoryEnd,
  }
  const arenaBytes = file.keptAt + keptBytes
  const texts = built.map(({ block, plan, temporaryOffset }, i) => ({
    block,
    releases: plan.releases,
    temporaryOffset,
    ranks: parts[i]!.ranks,
  }))
  return {
    source: emitProgram({ title, target, library, parts: texts, arenaBytes, file, ranks }),
    parts: built.map(({ inputs, outputs, block }, i) => {
      return { inputs, outputs, ranks: parts[i]!.ranks, outline: outlineOf(block) }
    }),
    arenaBytes,
    residentBytes: memoryEnd - stateBytes,
    offloadedBytes: stateBytes + arenaBytes - memoryEnd,
    movedBytes: built.reduce((sum, { block, plan }, i) => {
      return sum + parts[i]!.ranks.length * (plan.movedBytes + movedByLoops(block))
    }, 0),
    temporaryBytes: most(({ block }) => block.temporaryBytes),
    lowerBound: most(({ block }) => block.lowerBound),
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
  readonly plan: ReleasePlan
  readonly temporaryOffset: number
  /** State in a file and memory behind it. */
  readonly bytes: number
  readonly keptBytes: number
  readonly guards: readonly Guard[]
}

interface FileState {
  readonly slots: ReadonlyMap<string, Slot>
  readonly bytes: number
}

/** State in the file, from the beginning of the arena on. */
function stateInFile(
  { func, inputPaths }: PartOfProgram,
  offload: (path: string) => boolean,
  lent: ReadonlyMap<string, Slot>,
): FileState {
  const slots = new Map<string, Slot>()
  let bytes = 0
  func.params.forEach(({ type }, i) => {
    const path = inputPaths[i]!
    if (!isState(path) || lent.has(path) || !offload(path)) return
    slots.set(path, { path, type, offset: bytes })
    bytes = roundUp(bytes + bytesOf(type), fileAlignment)
  })
  return { slots, bytes }
}

interface PartOptions {
  readonly apart: boolean
  readonly offloadActivations: boolean
  readonly inFile: FileState['slots']
  /** Where memory begins. */
  readonly stateBytes: number
}

function buildPart(
  { func, inputPaths, outputPaths }: PartOfProgram,
  library: KernelLibrary,
  { apart, offloadActivations, inFile, stateBytes }: PartOptions,
  lent: ReadonlyMap<string, Slot>,
): BuiltPart {
  let offset = stateBytes
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
    return new Storage(slot.path, bytesOf(slot.type), `(${from} + ${slot.offset})`, {
      inFile: inFile.get(slot.path) === slot,
    })
  }
  const inputs = func.params.map(({ type }, i) => {
    const path = inputPaths[i]!
    return lent.get(path) ?? inFile.get(path) ?? reserve(path, type)
  })
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
  const kept = offloadActivations ? new KeptStacks() : undefined
  const block = lower(func, library, { params, results, apart, kept })
  const offloaded = inputs.flatMap((slot, i) =>
    inFile.has(slot.path) ? [{ slot, storage: params[i]! }] : [],
  )
  return {
    inputs,
    outputs,
    block,
    plan: releasesOf(block, offloaded),
    temporaryOffset: offset,
    bytes: offset + block.temporaryBytes,
    keptBytes: kept?.bytes ?? 0,
    guards: apart ? [...guards, ...guardsOf(block, offset)] : [],
  }
}

const roundUp = (bytes: number, unit: number): number => Math.ceil(bytes / unit) * unit

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
