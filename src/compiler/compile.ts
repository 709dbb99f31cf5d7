/**
 * The compiler's front door: a TypeScript function of tensors in, a program out. The function is traced once; FLOPs and
 * memory are known before anything runs. Inputs and results are trees; what is returned under `state` replaces the
 * input of the same name, in place, and stays in the program between runs.
 */
import { InternalError } from '../errors.ts'
import { isWhole, localShape, ranksOf, sameLayout, type Layout } from './graph/mesh.ts'
import type { Fp8Scaling } from './composites/dot-fp8.ts'
import { Graph, inGraph, type Func } from './graph/node.ts'
import { bytesOf, formatType, sizeOf, typeError, type DType, type ValueType } from './graph/types.ts'
import { operationsOf } from './meter.ts'
import { flopsOf } from './ops/cost.ts'
import { runPipeline, type Policies } from './passes/pipeline.ts'
import type { Precision } from './passes/precision.ts'
import { readProfile } from './profile.ts'
import { checkLength, fillView, notProfiled, wholePiece, type Program, type Values } from './program.ts'
import { layoutsOf, readTraffic, type LivePiece } from './ranked-native.ts'
import {
  partitionProgram,
  RankedValues,
  type NamedFunc,
  type Parallel,
  type Partitioned,
  type StageSource,
} from './ranked.ts'
import { referenceProgram } from './reference-program.ts'
import { Replicas } from './replicas.ts'
import { recomputed, type Recompute } from './recompute.ts'
import { machine } from './runtime/machine.ts'
import { findMpi, loadMpi } from './runtime/mpi.ts'
import { openNative, type NativeProgram } from './runtime/native.ts'
import { compileShared } from './runtime/toolchain.ts'
import { buildC, isState, type BuiltProgram, type PartOfProgram, type Slot } from './targets/c/build.ts'
import { claimed } from './targets/c/kernels.ts'
import { profileFlags, profileLayout } from './targets/c/profile.ts'
import { onlyText } from './text-program.ts'
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
  /** What loops keep of their forward pass lies in the file until their backward pass. Results are the same. */
  readonly offloadActivations?: boolean
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
    (func) => build(localOf([func])).residentBytes,
  )
  const local = localOf(funcs)
  const { cut, parts } = local
  const { func } = parts[0]!
  const shared = {
    ...signature,
    func,
    flops: flopsIn(local),
    operations: operationsOf(parts.map(({ func, ranks }) => ({ func, times: ranks.length }))),
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
      arenaBytes: built.residentBytes,
      offloadedBytes: built.offloadedBytes,
      movedBytes: built.movedBytes,
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
    offloadedBytes: built.offloadedBytes,
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
