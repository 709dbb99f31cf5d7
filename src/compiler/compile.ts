/**
 * The compiler's front door: a TypeScript function of tensors in, a program out. The function is traced once; FLOPs and
 * memory are known before anything runs. Inputs and results are trees; what is returned under `state` replaces the
 * input of the same name, in place, and stays in the program between runs.
 */
import { failure, InternalError, type UserError } from '../errors.ts'
import { isWhole, localShape, ranksOf, sameLayout, whole as wholeLayout, type Layout } from './graph/mesh.ts'
import type { Fp8Scaling } from './composites/dot-fp8.ts'
import { Graph, inGraph, type Func } from './graph/node.ts'
import { bytesOf, formatType, sizeOf, typeError, type DType, type ValueType } from './graph/types.ts'
import { flopsOf } from './ops/cost.ts'
import { runPipeline, type Policies } from './passes/pipeline.ts'
import type { Precision } from './passes/precision.ts'
import { readProfile, type Profile } from './profile.ts'
import { layoutsOf, readTraffic, type Memory, type LivePiece, type Traffic } from './ranked-native.ts'
import {
  partitionProgram,
  RankedValues,
  referenceRanks,
  type HeldPiece,
  type NamedFunc,
  type Parallel,
  type Partitioned,
  type StageSource,
} from './ranked.ts'
import { Replicas } from './replicas.ts'
import { recomputed, type Recompute, type RecomputeReport } from './recompute.ts'
import { machine } from './runtime/machine.ts'
import { findMpi, loadMpi } from './runtime/mpi.ts'
import { openNative, type NativeProgram } from './runtime/native.ts'
import { compileShared } from './runtime/toolchain.ts'
import {
  buildC,
  isState,
  type ArenaLayout,
  type BuiltProgram,
  type PartOfProgram,
  type Slot,
} from './targets/c/build.ts'
import { claimed } from './targets/c/kernels.ts'
import type { OutlinedPhase } from './targets/c/outline.ts'
import { profileFlags, profileLayout } from './targets/c/profile.ts'
import { interpret } from './targets/reference/interpret.ts'
import { traceFunction, type Tensors } from './trace/functions.ts'
import type { Tensor } from './trace/tensor.ts'
import type { Tree } from './trace/tree.ts'

export interface CompileOptions {
  /** `c`: native code (default). `reference`: the float64 interpreter. `text`: the C program only, which cannot run. */
  readonly target?: 'c' | 'reference' | 'text'
  /** Size of the native team; default: all cores. Results do not depend on it. */
  readonly threads?: number
  readonly precision?: Precision
  /** With fp8: which elements of an operand share a scale; default a row. */
  readonly fp8Scaling?: Fp8Scaling
  /**
   * Less memory, more FLOPs: `true` honours `checkpoint` marks, `'full'` lets loops keep as little as they can for their
   * backward pass, `{ memoryBytes }` as much as fits into an arena of that size (of each rank). Default false: everything
   * is kept.
   */
  readonly recompute?: Recompute
  /**
   * Into how many leaves sums over axes named `batch` are cut, so that a spread batch gives the same bits
   * (passes/leaves.ts): a power of two, or 0 (default) for whatever is fastest.
   */
  readonly leaves?: number
  /** The emitted program counts its own FLOPs (slow; for tests). */
  readonly checking?: boolean
  /**
   * The program records what each kernel costs, for `profile()`: wall clock, or with `'cpu'` the time that its thread had a
   * core, which tells what a kernel costs where ranks share cores. The arithmetic is the same.
   */
  readonly profile?: boolean | 'cpu'
  /** No two buffers share memory, and gaps lie between them (`layout.guards`): for sanitizers. */
  readonly apart?: boolean
  /**
   * State with these paths lies in a file instead of in memory; a step reads it from there and writes it back. Results
   * are the same.
   */
  readonly offload?: (path: string) => boolean
  readonly name?: string
  /**
   * Another open program: inputs and state of this one that it has too, with the same path and type, are that program's
   * memory instead of a copy. What one writes the other reads, so both must never run at the same time. Close it last.
   */
  readonly shares?: Program
  /** Ranks of a mesh run this program together, each its part. Values are written and read whole. */
  readonly parallel?: Parallel
  /** Sees the program before the first pass and after each. */
  readonly observe?: (stage: string, func: Func) => void
}

export type Values = Memory

export interface ProgramMemory {
  /** Everything: what the program allocates, once, when it is opened. */
  readonly arenaBytes: number
  /** What lies in a file instead. */
  readonly offloadedBytes: number
  readonly stateBytes: number
  readonly inputBytes: number
  readonly outputBytes: number
  readonly temporaryBytes: number
  /** The most bytes of temporaries alive at once; no plan can need less. */
  readonly lowerBound: number
}

/** One process of those that run a program together. */
export interface RankProcess {
  readonly rank: number
  /** What every process has in the place of `mine`, in the order of ranks. All must call it. */
  exchange(mine: Uint8Array): Uint8Array[]
  /** Messages about a rank that does not come name the step: this many are done. */
  countFrom(step: number): void
}

export interface Program {
  /** Floating-point operations of one run, of all ranks together. */
  readonly flops: number
  readonly memory: ProgramMemory
  /** The emitted C program; empty for the reference target. */
  readonly source: string
  /** Where inputs and outputs lie in the arena of the C program; state is both. None for the reference target. */
  readonly layout: ArenaLayout
  /** The function after all common passes. */
  readonly func: Func
  /** What was chosen, where something was: `recompute` is 'full' or a budget. */
  readonly recomputed?: RecomputeReport
  readonly compileSeconds: number
  /** The native code came from the cache. */
  readonly cached: boolean
  /** Of a program over several ranks: their mesh, the local programs, and how their inputs and results lie. */
  readonly cut?: Partitioned
  /** What ranks do in a step, call by call; those of a pipeline stage alike. Empty for the reference target. */
  readonly outline: readonly {
    readonly ranks: readonly number[]
    readonly phases: readonly OutlinedPhase[]
  }[]
  /** Only where ranks are processes: this one among them. */
  readonly process?: RankProcess
  /** Paths and types of inputs and outputs, whole. */
  readonly inputs: ReadonlyMap<string, ValueType>
  readonly outputs: ReadonlyMap<string, ValueType>
  /** Memory of an input or output: a live view for native programs. bf16 and f16 show as their 16 bits. */
  view(path: string): Values
  /** What each rank in this process holds of an input or output: live windows of its memory. One device is one rank. */
  pieces(path: string): readonly HeldPiece[]
  /** Copies values into an input (or state). */
  write(path: string, values: ArrayLike<number>): void
  /** Writes the given inputs and runs once. Outputs are then read with `view`. */
  run(inputs?: Readonly<Record<string, ArrayLike<number>>>): Promise<void>
  /** Runs once on the calling thread, which it blocks; worth it for programs of microseconds. */
  runBlocking(): void
  /** FLOPs counted so far by a checking build. */
  countedFlops(): number
  /** What each collective of a program over several ranks has sent so far; empty for others and for the reference. */
  traffic(): Traffic[]
  /** Bytes that offloaded state has moved so far, from its file and back. */
  movedBytes(): number
  /**
   * Compares the state that ranks hold alike, by hashes.
   * @throws UserError naming the ranks that have other bits than most.
   */
  checkReplicas(): void
  /**
   * Compares the state of each rank in this process with what the last `checkReplicas` saw; nothing may have run since.
   * @throws UserError naming the rank, also where no other holds the same part.
   */
  checkUnchanged(): void
  /**
   * What the runs since the last call of `profile` cost, kernel by kernel.
   * @throws UserError for a program compiled without `profile: true`.
   */
  profile(): Profile
  close(): void
}

/**
 * Traces and compiles a function.
 *
 * @param body takes a tree of tensors shaped like `inputs`, returns a tree of tensors.
 * @throws UserError for shape or axis mistakes in `body`, a missing C compiler, or too little memory.
 * @example
 * const program = await compile(({ x, w }) => ({ y: x.matmul(w) }), { x: f32([4, 8]), w: f32([8, 2]) })
 * await program.run({ x, w })
 * program.view('y')
 */
export async function compile<I extends Tree<ValueType>>(
  body: (inputs: Tensorised<I>) => Tensors,
  inputs: I,
  options: CompileOptions = {},
): Promise<Program> {
  const started = performance.now()
  if (options.offload && options.parallel) throw noOffload(options.name ?? 'program')
  const policies: Policies = {
    precision: options.precision ?? 'f32',
    fp8Scaling: options.fp8Scaling ?? 'row',
    recompute: options.recompute === true ? 'marked' : 'none',
    leaves: options.leaves ?? 0,
    claimed,
  }
  const name = options.name ?? 'program'
  const traced = inGraph(new Graph(), () =>
    traceFunction(name, inputs, (tensors) => body(tensors as Tensorised<I>)),
  )
  checkState(traced)
  const whole = runPipeline(traced.func, policies, options.observe)
  const stage = ({ body, inputs }: StageSource): NamedFunc => {
    const traced = inGraph(new Graph(), () => traceFunction(name, inputs, body))
    return { ...traced, func: runPipeline(traced.func, policies, options.observe) }
  }
  const sources = options.parallel?.pipeline?.stages.map(stage) ?? [{ ...traced, func: whole }]
  const types = (
    paths: readonly string[],
    nodes: readonly { readonly type: ValueType }[],
  ): Map<string, ValueType> => new Map(paths.map((path, i) => [path, nodes[i]!.type]))
  const signature = {
    inputs: types(traced.inputPaths, whole.params),
    outputs: types(traced.outputPaths, whole.results),
  }
  /** What ranks run, from what all of them, or those of each stage, compute together. */
  const localOf = (funcs: readonly Func[]): Local => {
    const named = sources.map(({ inputPaths, outputPaths }, i): PartOfProgram => {
      return { func: funcs[i]!, inputPaths, outputPaths, ranks: [0] }
    })
    const cut =
      options.parallel &&
      partitionProgram(named, signature.inputs, {
        ...options.parallel,
        placement: { ...options.parallel.placement, exact: policies.leaves > 0 },
      })
    return { cut, parts: cut?.parts ?? named }
  }
  const known = options.shares && internals.get(options.shares)
  const ranks = options.parallel ? ranksOf(options.parallel.placement.mesh) : 1
  const lentTo = ({ cut, parts }: Local): Map<string, Slot> => {
    const [layouts, { params }] = [cut?.parts[0] && layoutsOf(cut.parts[0]), parts[0]!.func]
    const found = (known?.inputs ?? []).flatMap((slot): [string, Slot][] => {
      const mine = params[traced.inputPaths.indexOf(slot.path)]?.type
      const alike = ranks === known!.ranks && sameCut(layouts, known!.layouts, slot.path)
      return mine && alike && formatType(mine) === formatType(slot.type) ? [[slot.path, slot]] : []
    })
    return new Map(found)
  }
  const policy = options.recompute ?? false
  const onReference = options.target === 'reference'
  // The interpreter needs no facts about the machine, unless memory is to be planned.
  const here = onReference && typeof policy !== 'object' ? undefined : await machine()
  const threads = options.threads || Math.max(1, Math.floor((here?.cores ?? 1) / ranks))
  const build = (local: Local): BuiltProgram => {
    const { vectorBytes, registers, bf16Products } = here!
    const flops = flopsIn(local).toLocaleString('en')
    return buildC(
      local.parts,
      { threads, vectorBytes, registers, bf16Products, rowsAlike: policies.leaves > 0 },
      [`${name}: ${flops} FLOP a step, ${threads} threads, ${vectorBytes * 8}-bit vectors`],
      options,
      lentTo(local),
    )
  }
  const { funcs, report } = recomputed(
    name,
    sources.map(({ func }) => func),
    policy,
    (func) => residentBytes(build(localOf([func]))),
  )
  const local = localOf(funcs)
  const { cut, parts } = local
  const { func } = parts[0]!
  const shared = {
    ...signature,
    func,
    flops: flopsIn(local),
    ...(report ? { recomputed: report } : {}),
    ...(cut ? { cut } : {}),
  }
  const seconds = (): number => (performance.now() - started) / 1000
  if (onReference) return referenceProgram(func, traced, shared, seconds(), options.shares)
  const layouts = cut?.parts[0] && layoutsOf(cut.parts[0])
  const lent = lentTo(local)
  const built = build(local)
  const first = built.parts[0]!
  const sumBytes = (list: readonly Slot[], state: boolean): number =>
    list
      .filter((slot) => isState(slot.path) === state && !lent.has(slot.path))
      .reduce((total, slot) => total + bytesOf(slot.type), 0)
  const described = {
    ...shared,
    source: built.source,
    layout: { inputs: first.inputs, outputs: first.outputs, guards: built.guards },
    outline: built.parts.map(({ ranks, outline }) => ({ ranks, phases: outline })),
    memory: {
      arenaBytes: residentBytes(built),
      offloadedBytes: built.offloadedBytes,
      stateBytes: sumBytes(first.inputs, true),
      inputBytes: sumBytes(first.inputs, false),
      outputBytes: sumBytes(first.outputs, false),
      temporaryBytes: built.temporaryBytes,
      lowerBound: built.lowerBound,
    },
  }
  if (options.target === 'text') return { ...described, ...onlyText(name), compileSeconds: seconds() }
  const processes = options.parallel?.transport === 'mpi'
  if (processes) await loadMpi()
  const compiled = await compileShared({
    name,
    source: built.source,
    flags: [
      ...(processes ? (await findMpi()).flags : []),
      ...(options.checking ? ['-DANNEAL_COUNT'] : []),
      ...profileFlags(options.profile),
    ],
  })
  const native = openNative(compiled.path, built.arenaBytes, processes ? 1 : ranks, {
    lender: known?.native,
    offloads: built.offloadedBytes > 0,
  })
  const slotsOf = built.parts.map(
    ({ inputs, outputs }) => new Map([...outputs, ...inputs].map((slot) => [slot.path, slot])),
  )
  const noSuch = (path: string): InternalError =>
    new InternalError(`program ${name} has no '${path}', only ${[...slotsOf[0]!.keys()].join(', ')}`)
  const views = new Map<string, Values>()
  const view = (path: string): Values => {
    const slot = slotsOf[0]!.get(path)
    if (!slot) throw noSuch(path)
    const made =
      views.get(path) ?? (lent.has(path) ? options.shares!.view(path) : viewOf(native.arenas[0]!, slot))
    views.set(path, made)
    return made
  }
  const write = (path: string, values: ArrayLike<number>): void => fillView(name, path, view(path), values)
  /** Which ranks' arenas are here: in a process, its own. */
  const arenaOf = (rank: number): ArrayBuffer | undefined =>
    processes ? (rank === native.rank() ? native.arenas[0] : undefined) : native.arenas[rank]
  const pieces = (path: string): LivePiece[] => {
    if (lent.has(path)) return internals.get(options.shares!)!.pieces(path)
    if (slotsOf.every((slots) => !slots.has(path))) throw noSuch(path)
    const held = built.parts.flatMap(({ ranks }, part) => {
      const slot = slotsOf[part]!.get(path)
      const layout = cut && layoutsOf(cut.parts[part]!).get(path)
      if (!slot || !layout) return []
      return ranks.flatMap((rank) => {
        const arena = arenaOf(rank)
        return arena ? [{ rank, layout, data: viewOf(arena, slot) }] : []
      })
    })
    return held.toSorted((a, b) => a.rank - b.rank)
  }
  const wholeTypes = new Map([...shared.outputs, ...shared.inputs])
  // A process has its own pieces only; a value that not all have whole is asked of all, so all of them must ask.
  const everywhere = (path: string): LivePiece[] => {
    const held = pieces(path)
    const holders = cut!.parts.map((part) => ({ ranks: part.ranks, layout: layoutsOf(part).get(path) }))
    if (!processes || holders.every(({ layout }) => layout && isWhole(layout))) return held
    const { dtype, shape } = wholeTypes.get(path)!
    const sizes = holders.map(({ layout }) => (layout ? sizeOf(localShape(cut!.mesh, layout, shape)) : 0))
    const room = new arrays[dtype](Math.max(...sizes))
    if (held[0]) room.set(held[0].data)
    const all = native.exchange(new Uint8Array(room.buffer), ranks)
    return holders
      .flatMap(({ ranks, layout }, at) => {
        if (!layout) return []
        return ranks.map((rank) => ({
          rank,
          layout,
          data: new arrays[dtype](all[rank]!.buffer, 0, sizes[at]),
        }))
      })
      .toSorted((a, b) => a.rank - b.rank)
  }
  const inward = cut && new RankedValues(cut, wholeTypes, pieces, valuesOf)
  const outward = cut && new RankedValues(cut, wholeTypes, everywhere, valuesOf)
  const border: Pick<Program, 'view' | 'write'> =
    inward && outward
      ? {
          view: (path) => outward.view(path),
          write(path, given) {
            const type = wholeTypes.get(path)
            if (!type) throw noSuch(path)
            checkLength(name, path, sizeOf(type.shape), given)
            inward.write(path, given)
          },
        }
      : { view, write }
  const replicas =
    cut &&
    new Replicas(native, {
      ranks,
      processes,
      mesh: cut.mesh,
      parts: built.parts.map(({ ranks, inputs }, part) => ({
        ranks,
        layouts: layoutsOf(cut.parts[part]!),
        state: inputs.filter(({ path }) => isState(path) && !lent.has(path)),
      })),
    })
  const program: Program = {
    ...described,
    compileSeconds: seconds(),
    cached: compiled.cached,
    view: border.view,
    write: border.write,
    pieces: cut ? pieces : (path) => [wholePiece(view(path), wholeTypes.get(path)!)],
    ...(processes
      ? {
          process: {
            rank: native.rank(),
            exchange: (mine) => native.exchange(mine, ranks),
            countFrom: (step) => native.countFrom(step),
          },
        }
      : {}),
    run(values = {}) {
      for (const [path, data] of Object.entries(values)) border.write(path, data)
      return native.run()
    },
    runBlocking: () => native.runBlocking(),
    countedFlops: () => native.countedFlops(),
    traffic: () => (ranks === 1 ? [] : readTraffic(native.traffic, built.collectives, ranks)),
    checkReplicas: () => replicas?.compare(),
    checkUnchanged: () => replicas?.checkUnchanged(),
    movedBytes: () => native.movedBytes(),
    profile() {
      if (!options.profile) throw notProfiled(name)
      const { bytes } = profileLayout(built.sites, threads)
      return readProfile(native.profile(bytes), built.sites, threads)
    },
    close: () => native.close(),
  }
  const own = first.inputs.filter((slot) => !lent.has(slot.path))
  internals.set(program, { native, ranks, inputs: own, layouts, pieces })
  return program
}

/** What ranks run, and how it was cut for them. */
interface Local {
  readonly cut: Partitioned | undefined
  readonly parts: readonly PartOfProgram[]
}

const flopsIn = ({ parts }: Local): number =>
  parts.reduce((total, { func, ranks }) => total + ranks.length * flopsOf(func), 0)

const residentBytes = ({ arenaBytes, offloadedBytes }: BuiltProgram): number => arenaBytes - offloadedBytes

/** What one device holds: everything. */
const wholePiece = (data: HeldPiece['data'], { shape }: ValueType): HeldPiece => ({
  rank: 0,
  layout: wholeLayout(shape.length),
  data,
})

/** What a program needs of another whose inputs it shares. */
const internals = new WeakMap<
  Program,
  {
    readonly native: NativeProgram
    readonly ranks: number
    readonly inputs: readonly Slot[]
    readonly layouts: ReadonlyMap<string, Layout> | undefined
    readonly pieces: (path: string) => LivePiece[]
  }
>()

/** Whether a value is cut in the same way in two programs. */
function sameCut(
  a: ReadonlyMap<string, Layout> | undefined,
  b: ReadonlyMap<string, Layout> | undefined,
  path: string,
): boolean {
  const [mine, theirs] = [a?.get(path), b?.get(path)]
  return mine && theirs ? sameLayout(mine, theirs) : mine === theirs
}

/** The tensor tree that a tree of types becomes inside the traced function. */
export type Tensorised<T> = T extends ValueType ? Tensor : { readonly [K in keyof T]: Tensorised<T[K]> }

function checkState({
  func,
  inputPaths,
  outputPaths,
}: {
  func: Func
  inputPaths: readonly string[]
  outputPaths: readonly string[]
}): void {
  outputPaths.forEach((path, i) => {
    if (!isState(path)) return
    const at = inputPaths.indexOf(path)
    const [got, want] = [func.results[i]!.type, func.params[at]?.type]
    if (!want || got.dtype !== want.dtype || got.shape.join() !== want.shape.join()) {
      throw typeError(
        `output '${path}'`,
        formatType(got),
        want ? formatType(want) : 'an input of the same path',
        'state must keep its type',
      )
    }
  })
}

const arrays = {
  f32: Float32Array,
  f64: Float64Array,
  bf16: Uint16Array,
  f16: Uint16Array,
  i32: Int32Array,
  u8: Uint8Array,
  bool: Uint8Array,
} as const satisfies Record<DType, unknown>

const valuesOf = ({ dtype, shape }: ValueType): Values => new arrays[dtype](sizeOf(shape))

const viewOf = (arena: ArrayBuffer, { type, offset }: Slot): Values =>
  new arrays[type.dtype](arena, offset, sizeOf(type.shape))

function checkLength(program: string, path: string, wanted: number, values: ArrayLike<number>): void {
  if (values.length === wanted) return
  throw typeError(`${program}: input '${path}'`, `${values.length} values`, `${wanted}`, 'check the shape')
}

function fillView(program: string, path: string, target: Values, values: ArrayLike<number>): void {
  checkLength(program, path, target.length, values)
  target.set(values)
}

/** What a program that is text and nothing else says to whoever wants to run it. */
function onlyText(
  name: string,
): Pick<
  Program,
  | 'cached'
  | 'view'
  | 'pieces'
  | 'write'
  | 'run'
  | 'runBlocking'
  | 'countedFlops'
  | 'traffic'
  | 'checkReplicas'
  | 'checkUnchanged'
  | 'movedBytes'
  | 'profile'
  | 'close'
> {
  const refuse = (): never => {
    throw failure({
      where: name,
      got: "a program compiled with target 'text'",
      expected: 'one that can run',
      fix: "compile it with target 'c'",
    })
  }
  return {
    cached: false,
    view: refuse,
    pieces: refuse,
    write: refuse,
    run: async () => refuse(),
    runBlocking: refuse,
    countedFlops: refuse,
    traffic: refuse,
    checkReplicas: refuse,
    checkUnchanged: refuse,
    movedBytes: refuse,
    profile: refuse,
    close() {},
  }
}

const noOffload = (program: string): UserError =>
  failure({
    where: `offload of ${program}`,
    got: 'a program over several ranks',
    expected: 'a program of one rank',
    fix: 'leave offload out, or share the state out over the ranks (parallel.zero)',
  })

const notProfiled = (program: string): UserError =>
  failure({
    where: `profile of ${program}`,
    got: 'a program that does not record what its kernels cost',
    expected: 'a native program compiled for it',
    fix: 'compile it with { profile: true }',
  })

function referenceProgram(
  func: Func,
  { inputPaths, outputPaths }: { inputPaths: readonly string[]; outputPaths: readonly string[] },
  shared: Pick<Program, 'flops' | 'func' | 'recomputed' | 'inputs' | 'outputs' | 'cut'>,
  compileSeconds: number,
  lender?: Program,
): Program {
  const { cut } = shared
  if (cut) {
    const ranks = referenceRanks(cut, new Map([...shared.outputs, ...shared.inputs]))
    return interpreted(shared, compileSeconds, {
      view: (path) => ranks.view(path),
      pieces: (path) => ranks.pieces(path),
      write: (path, values) => ranks.write(path, values),
      run: () => ranks.run(),
    })
  }
  const values = new Map<string, Float64Array>(
    inputPaths.map((path, i) => {
      const { type } = func.params[i]!
      const theirs = lender?.inputs.get(path)
      const same = theirs && formatType(theirs) === formatType(type)
      return [path, same ? (lender!.view(path) as Float64Array) : new Float64Array(sizeOf(type.shape))]
    }),
  )
  const view = (path: string): Float64Array => {
    const known = values.get(path)
    if (!known) throw new InternalError(`no '${path}' in this program (or it has not run yet)`)
    return known
  }
  const write = (path: string, data: ArrayLike<number>): void => fillView('reference', path, view(path), data)
  const run = (): void => {
    const results = interpret(
      func,
      inputPaths.map((path) => values.get(path)!.slice()),
    )
    outputPaths.forEach((path, i) =>
      isState(path) ? values.get(path)!.set(results[i]!) : values.set(path, results[i]!),
    )
  }
  const typeOf = (path: string): ValueType => (shared.inputs.get(path) ?? shared.outputs.get(path))!
  const pieces = (path: string): HeldPiece[] => [wholePiece(view(path), typeOf(path))]
  return interpreted(shared, compileSeconds, { view, pieces, write, run })
}

/** A program of the reference target: no memory plan, no text. */
function interpreted(
  shared: Pick<Program, 'flops' | 'func' | 'inputs' | 'outputs' | 'cut'>,
  compileSeconds: number,
  { view, pieces, write, run }: Pick<Program, 'view' | 'pieces' | 'write'> & { run(): void },
): Program {
  return {
    ...shared,
    source: '',
    layout: { inputs: [], outputs: [], guards: [] },
    outline: [],
    compileSeconds,
    cached: false,
    memory: {
      arenaBytes: 0,
      offloadedBytes: 0,
      stateBytes: 0,
      inputBytes: 0,
      outputBytes: 0,
      temporaryBytes: 0,
      lowerBound: 0,
    },
    view,
    pieces,
    write,
    async run(inputs = {}) {
      for (const [path, data] of Object.entries(inputs)) write(path, data)
      run()
    },
    runBlocking: run,
    countedFlops: () => 0,
    traffic: () => [],
    checkReplicas() {},
    checkUnchanged() {},
    movedBytes: () => 0,
    profile() {
      throw notProfiled('reference')
    },
    close() {},
  }
}
