/**
 * The compiler's front door: a TypeScript function of tensors in, a program out. The function is traced once; FLOPs and
 * memory are known before anything runs. Inputs and results are trees; what is returned under `state` replaces the
 * input of the same name, in place, and stays in the program between runs.
 */
import { failure, InternalError, type UserError } from '../errors.ts'
import { Graph, inGraph, type Func } from './graph/node.ts'
import { bytesOf, formatType, sizeOf, typeError, type DType, type ValueType } from './graph/types.ts'
import { flopsOf } from './ops/cost.ts'
import { runPipeline, type Policies } from './passes/pipeline.ts'
import type { Precision } from './passes/precision.ts'
import { readProfile, type Profile } from './profile.ts'
import { recomputed, type Recompute, type RecomputeReport } from './recompute.ts'
import { machine } from './runtime/machine.ts'
import { openNative, type NativeProgram } from './runtime/native.ts'
import { compileShared } from './runtime/toolchain.ts'
import { buildC, isState, type BuiltProgram, type Slot } from './targets/c/build.ts'
import { claimed } from './targets/c/kernels.ts'
import { profileLayout } from './targets/c/profile.ts'
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
  /**
   * Less memory, more FLOPs: `true` honours `checkpoint` marks, `'full'` lets loops keep as little as they can for their
   * backward pass, `{ memoryBytes }` as much as fits into an arena of that size. Default false: everything is kept.
   */
  readonly recompute?: Recompute
  /** The emitted program counts its own FLOPs (slow; for tests). */
  readonly checking?: boolean
  /** The program records what each kernel costs, for `profile()`. The arithmetic is the same. */
  readonly profile?: boolean
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
  /** Sees the program before the first pass and after each. */
  readonly observe?: (stage: string, func: Func) => void
}

export type Values = Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array

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

export interface Program {
  /** Floating-point operations of one run. */
  readonly flops: number
  readonly memory: ProgramMemory
  /** The emitted C program; empty for the reference target. */
  readonly source: string
  /** Where inputs and outputs lie in the arena of the C program; state is both. None for the reference target. */
  readonly layout: Pick<BuiltProgram, 'inputs' | 'outputs' | 'guards'>
  /** The function after all common passes. */
  readonly func: Func
  /** What was chosen, where something was: `recompute` is 'full' or a budget. */
  readonly recomputed?: RecomputeReport
  readonly compileSeconds: number
  /** The native code came from the cache. */
  readonly cached: boolean
  /** Paths and types of inputs and outputs. */
  readonly inputs: ReadonlyMap<string, ValueType>
  readonly outputs: ReadonlyMap<string, ValueType>
  /** Memory of an input or output: a live view for native programs. bf16 shows as its 16 bits. */
  view(path: string): Values
  /** Copies values into an input (or state). */
  write(path: string, values: ArrayLike<number>): void
  /** Writes the given inputs and runs once. Outputs are then read with `view`. */
  run(inputs?: Readonly<Record<string, ArrayLike<number>>>): Promise<void>
  /** Runs once on the calling thread, which it blocks; worth it for programs of microseconds. */
  runBlocking(): void
  /** FLOPs counted so far by a checking build. */
  countedFlops(): number
  /** Bytes that offloaded state has moved so far, from its file and back. */
  movedBytes(): number
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
  const policies: Policies = {
    precision: options.precision ?? 'f32',
    recompute: options.recompute === true ? 'marked' : 'none',
    claimed,
  }
  const name = options.name ?? 'program'
  const traced = inGraph(new Graph(), () =>
    traceFunction(name, inputs, (tensors) => body(tensors as Tensorised<I>)),
  )
  checkState(traced)
  const plain = runPipeline(traced.func, policies, options.observe)
  const known = options.shares && internals.get(options.shares)
  const types = (
    paths: readonly string[],
    nodes: readonly { readonly type: ValueType }[],
  ): Map<string, ValueType> => new Map(paths.map((path, i) => [path, nodes[i]!.type]))
  const signature = {
    inputs: types(traced.inputPaths, plain.params),
    outputs: types(traced.outputPaths, plain.results),
  }
  const lent = new Map(
    (known?.inputs ?? []).flatMap((slot) => {
      const mine = signature.inputs.get(slot.path)
      return mine && formatType(mine) === formatType(slot.type) ? [[slot.path, slot]] : []
    }),
  )
  const policy = options.recompute ?? false
  const onReference = options.target === 'reference'
  // The interpreter needs no facts about the machine, unless memory is to be planned.
  const here = onReference && !(typeof policy === 'object') ? undefined : await machine()
  const threads = options.threads || (here?.cores ?? 1)
  const build = (func: Func): BuiltProgram => {
    const { vectorBytes, registers, bf16Products } = here!
    const flops = flopsOf(func).toLocaleString('en')
    const title = [`${name}: ${flops} FLOP a step, ${threads} threads, ${vectorBytes * 8}-bit vectors`]
    return buildC(func, traced, { threads, vectorBytes, registers, bf16Products }, title, options, lent)
  }
  const { func, report } = recomputed(name, plain, policy, (func) => residentBytes(build(func)))
  const shared = { ...signature, func, flops: flopsOf(func), ...(report ? { recomputed: report } : {}) }
  const seconds = (): number => (performance.now() - started) / 1000
  if (onReference) return referenceProgram(func, traced, shared, seconds(), options.shares)
  const built = build(func)
  const sumBytes = (list: readonly Slot[], state: boolean): number =>
    list
      .filter((slot) => isState(slot.path) === state && !lent.has(slot.path))
      .reduce((total, slot) => total + bytesOf(slot.type), 0)
  const described = {
    ...shared,
    source: built.source,
    layout: { inputs: built.inputs, outputs: built.outputs, guards: built.guards },
    memory: {
      arenaBytes: residentBytes(built),
      offloadedBytes: built.offloadedBytes,
      stateBytes: sumBytes(built.inputs, true),
      inputBytes: sumBytes(built.inputs, false),
      outputBytes: sumBytes(built.outputs, false),
      temporaryBytes: built.temporaryBytes,
      lowerBound: built.lowerBound,
    },
  }
  if (options.target === 'text') return { ...described, ...onlyText(name), compileSeconds: seconds() }
  const compiled = await compileShared({
    name,
    source: built.source,
    flags: [
      ...(options.checking ? ['-DANNEAL_COUNT'] : []),
      ...(options.profile ? ['-DANNEAL_PROFILE'] : []),
    ],
  })
  const native = openNative(compiled.path, built.arenaBytes, {
    lender: known?.native,
    offloads: built.offloadedBytes > 0,
  })
  const slots = new Map([...built.outputs, ...built.inputs].map((slot) => [slot.path, slot]))
  const views = new Map<string, Values>()
  const view = (path: string): Values => {
    const slot = slots.get(path)
    if (!slot)
      throw new InternalError(`program ${name} has no '${path}', only ${[...slots.keys()].join(', ')}`)
    const made = views.get(path) ?? (lent.has(path) ? options.shares!.view(path) : viewOf(native.arena, slot))
    views.set(path, made)
    return made
  }
  const write = (path: string, values: ArrayLike<number>): void => fillView(name, path, view(path), values)
  const program: Program = {
    ...described,
    compileSeconds: seconds(),
    cached: compiled.cached,
    view,
    write,
    run(values = {}) {
      for (const [path, data] of Object.entries(values)) write(path, data)
      return native.run()
    },
    runBlocking: () => native.runBlocking(),
    countedFlops: () => native.countedFlops(),
    movedBytes: () => native.movedBytes(),
    profile() {
      if (!options.profile) throw notProfiled(name)
      const { bytes } = profileLayout(built.sites, threads)
      return readProfile(native.profile(bytes), built.sites, threads)
    },
    close: () => native.close(),
  }
  internals.set(program, { native, inputs: built.inputs.filter((slot) => !lent.has(slot.path)) })
  return program
}

const residentBytes = ({ arenaBytes, offloadedBytes }: BuiltProgram): number => arenaBytes - offloadedBytes

/** What a program needs of another whose inputs it shares. */
const internals = new WeakMap<Program, { readonly native: NativeProgram; readonly inputs: readonly Slot[] }>()

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
  i32: Int32Array,
  u8: Uint8Array,
  bool: Uint8Array,
} as const satisfies Record<DType, unknown>

const viewOf = (arena: ArrayBuffer, { type, offset }: Slot): Values =>
  new arrays[type.dtype](arena, offset, sizeOf(type.shape))

function fillView(program: string, path: string, target: Values, values: ArrayLike<number>): void {
  if (values.length !== target.length) {
    throw typeError(
      `${program}: input '${path}'`,
      `${values.length} values`,
      `${target.length}`,
      'check the shape',
    )
  }
  target.set(values)
}

/** What a program that is text and nothing else says to whoever wants to run it. */
function onlyText(
  name: string,
): Pick<
  Program,
  'cached' | 'view' | 'write' | 'run' | 'runBlocking' | 'countedFlops' | 'movedBytes' | 'profile' | 'close'
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
    write: refuse,
    run: async () => refuse(),
    runBlocking: refuse,
    countedFlops: refuse,
    movedBytes: refuse,
    profile: refuse,
    close() {},
  }
}

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
  shared: Pick<Program, 'flops' | 'func' | 'recomputed' | 'inputs' | 'outputs'>,
  compileSeconds: number,
  lender?: Program,
): Program {
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
  const runBlocking = (): void => {
    const results = interpret(
      func,
      inputPaths.map((path) => values.get(path)!.slice()),
    )
    outputPaths.forEach((path, i) =>
      isState(path) ? values.get(path)!.set(results[i]!) : values.set(path, results[i]!),
    )
  }
  return {
    ...shared,
    source: '',
    layout: { inputs: [], outputs: [], guards: [] },
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
    write,
    async run(inputs = {}) {
      for (const [path, data] of Object.entries(inputs)) write(path, data)
      runBlocking()
    },
    runBlocking,
    countedFlops: () => 0,
    movedBytes: () => 0,
    profile() {
      throw notProfiled('reference')
    },
    close() {},
  }
}
