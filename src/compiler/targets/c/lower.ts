/**
 * Lowering: a fused function becomes a block, the steps that the emitted program runs (kernels, copies, loops) in phases
 * (schedule.ts), with a storage for every value that lives in memory. Loops hold a block of their own. Steps are made in
 * creation order: forward, backward, update, as the model was written.
 */
import { InternalError } from '../../../errors.ts'
import type { Func, Node } from '../../graph/node.ts'
import { bytesOf, dtypeBytes, sizeOf } from '../../graph/types.ts'
import { callOp } from '../../ops/call.ts'
import { getOp } from '../../ops/get.ts'
import { scanAttrs, scanOp } from '../../ops/scan.ts'
import { fuse, type FusedKernel, type Fusion } from './fuse.ts'
import { isKept, type KeptStacks, type LetGo } from './kept.ts'
import type { KernelLibrary } from './kernels.ts'
import { emitRows, type KernelText } from './rows.ts'
import { Schedule, type Phase, type Place, type Use } from './schedule.ts'
import { emitCopy, emitSingle } from './singles.ts'
import { always, isRowLocal, never, type Nature } from './span.ts'
import { planMemory, Storage, type Moment } from './storage.ts'
import { denseView, isDense, type View } from './view.ts'
import {
  placeOf,
  workOfCollective,
  workOfCopy,
  workOfMembers,
  workOfNode,
  workOfPacking,
  type Work,
} from './work.ts'

export interface KernelStep {
  readonly kind: 'kernel'
  /** Name of the C function. */
  readonly name: string
  readonly args: readonly Argument[]
  readonly scratch: Storage | undefined
  /** The function takes a scratch pointer even when it needs none. */
  readonly takesScratch: boolean
  readonly nature: Nature
  readonly work: Work
  /** The number of the collective, where ranks meet. */
  readonly collective?: number
  /** Where ranks exchange values: what they do. */
  readonly node?: Node
}

/** A pointer argument: a storage and where in it to start. */
export interface Argument {
  readonly storage: Storage
  readonly bytes: number
}

export interface LoopStep {
  readonly kind: 'loop'
  readonly length: number
  readonly reverse: boolean
  readonly block: Block
  /** Storages of the outer block that hold each body parameter: whole for constants, per step for slices. */
  readonly bindings: readonly Binding[]
  /** Slices of stacks in a file, with which a turn is through. */
  readonly letGo: readonly LetGo[]
  /** Memory for the body's temporaries. */
  readonly region: Storage
  readonly comment: string
}

/** How a C pointer variable of a loop body gets its address. */
export type Binding =
  | { readonly kind: 'whole'; readonly variable: string; readonly storage: Storage }
  | { readonly kind: 'slice'; readonly variable: string; readonly storage: Storage; readonly bytes: number }
  | {
      readonly kind: 'swap'
      readonly variable: string
      readonly next: string
      readonly storage: Storage
      readonly other: Storage
    }

export type Step = KernelStep | LoopStep

export interface Block {
  readonly phases: readonly Phase[]
  readonly temporaries: readonly Storage[]
  readonly temporaryBytes: number
  readonly lowerBound: number
  /** For every result: true when it was computed in place of the storage offered for it. */
  readonly resultInPlace: readonly boolean[]
}

/** What a block gets from outside. */
export interface Surroundings {
  readonly params: readonly Storage[]
  /** Place for each result. `replaces`: the parameter whose memory it may take over, if nothing reads it afterwards. */
  readonly results: readonly { readonly place: Storage; readonly replaces?: number }[]
  /** Where stacks in a file get their place, if any lie in one. */
  readonly kept?: KeptStacks | undefined
  /** Give every temporary memory of its own, with a gap after it. */
  readonly apart?: boolean
}

export function lower(func: Func, library: KernelLibrary, surroundings: Surroundings): Block {
  return new Lowering(func, library, surroundings).run()
}

class Lowering {
  readonly #func: Func
  readonly #fusion: Fusion
  readonly #library: KernelLibrary
  readonly #surroundings: Surroundings
  readonly #schedule: Schedule
  readonly #phaseOfKernel: number[] = []
  readonly #storages = new Map<Node, Storage>()
  readonly #all: Storage[] = []
  readonly #inPlace: { place: Place; out: Storage; input: Storage }[] = []
  readonly #gets = new Map<Node, Map<number, Node>>()
  /** Values that are results with a place of their own, not next values of a state. */
  readonly #fresh: ReadonlySet<Node>

  constructor(func: Func, library: KernelLibrary, surroundings: Surroundings) {
    this.#func = func
    this.#fusion = fuse(func)
    this.#schedule = new Schedule(library.threads)
    this.#library = library
    this.#surroundings = surroundings
    this.#fresh = new Set(
      func.results
        .filter((_, i) => surroundings.results[i]!.replaces === undefined)
        .map((result) => this.#fusion.source(result)?.base ?? result),
    )
    func.params.forEach((param, i) => this.#storages.set(param, surroundings.params[i]!))
    for (const node of this.#fusion.stored) {
      if (node.op !== getOp) continue
      const source = node.inputs[0]!
      this.#gets.set(source, (this.#gets.get(source) ?? new Map()).set(node.attrs['index'] as number, node))
    }
  }

  run(): Block {
    for (const kernel of this.#fusion.kernels) this.#phaseOfKernel.push(this.#kernel(kernel))
    const resultInPlace = this.#placeResults()
    this.#reuseInputs()
    this.#schedule.cutBlocks()
    const plan = planMemory(this.#all, this.#surroundings)
    return {
      phases: this.#schedule.phases,
      temporaries: this.#all,
      temporaryBytes: plan.bytes,
      lowerBound: plan.lowerBound,
      resultInPlace,
    }
  }

  #storage(node: Node): Storage {
    const known = this.#storages.get(node)
    if (known) return known
    const made = this.#temporary(node.op.name, bytesOf(node.type))
    this.#storages.set(node, made)
    return made
  }

  #temporary(label: string, bytes: number): Storage {
    const storage = new Storage(label, Math.max(bytes, 1))
    this.#all.push(storage)
    return storage
  }

  /** Adds a step; every storage it touches lives at least in its phase. */
  #place(step: Step, nature: Nature, uses: readonly Use[], from = 0): Place {
    const place = this.#schedule.place(step, nature, uses, from)
    for (const { storage, written, local } of uses) storage.use({ place, written, local })
    return place
  }

  /** Lowers a kernel; returns the phase in which its last step runs. */
  #kernel(kernel: FusedKernel): number {
    const behind = Math.max(0, ...kernel.behind.map((place) => this.#phaseOfKernel[place]!))
    if (kernel.kind === 'rows') {
      return this.#text(
        'rows',
        emitRows(kernel, this.#fusion, this.#fresh),
        [...kernel.members.keys()],
        behind,
      )
    }
    const { node, fused } = kernel
    if (node.op === scanOp) return this.#loop(node, behind)
    if (node.op.kind === 'collective') return this.#collective(node, behind)
    if (node.op === callOp || node.op.kind === 'product') return this.#handWritten(node, behind)
    return this.#text(node.op.name, emitSingle(kernel, this.#fusion), [...byId(fused), node], behind)
  }

  /** Steps of a generated kernel; returns the phase of the last. */
  #text(kind: string, text: KernelText, members: readonly Node[], behind: number): number {
    const scratchBytes = text.scratchBytes + (text.privateBytes ?? 0) * this.#library.threads
    const scratch = scratchBytes > 0 ? this.#temporary('scratch', scratchBytes) : undefined
    const work = workOfMembers(members, text.parameters, this.#fusion)
    const phase = this.#textStep(kind, text, work, scratch ? [writes(scratch)] : [], behind)
    if (!text.finish || !scratch) return phase
    const total = workOfMembers(members, text.finish.parameters, this.#fusion)
    const rest = { ...total, ops: `total of ${total.ops}`, flops: 0 }
    return this.#textStep(`${kind}_total`, text.finish, rest, [reads(scratch), writes(scratch)], behind)
  }

  #textStep(kind: string, text: KernelText, work: Work, scratch: readonly Use[], behind: number): number {
    const uses = text.parameters.map(({ node, written }) => ({
      storage: this.#storage(node),
      written,
      local: written ? always : (text.local.get(node) ?? never),
    }))
    const step: KernelStep = {
      kind: 'kernel',
      name: this.#library.text(kind, text),
      args: text.parameters.map(({ node }) => at(this.#storage(node))),
      scratch: scratch[0]?.storage,
      takesScratch: scratch.length > 0,
      nature: text.nature,
      work,
    }
    const place = this.#place(step, text.nature, [...uses, ...scratch], behind)
    for (const { out, input } of text.inPlace) {
      this.#inPlace.push({ place, out: this.#storage(out), input: this.#storage(input) })
    }
    return place.phase
  }

  /** Products and claimed composites: kernels written by hand, which need operands with certain strides. */
  #handWritten(node: Node, behind: number): number {
    const operands = node.inputs.map((input) => {
      const { base, view } = this.#fusion.source(input)
      return { base, view, dtype: input.dtype }
    })
    const chosen = this.#library.choose(
      node,
      operands.map(({ view }) => view),
    )
    const args = operands.map(({ base, view }, i): Use & { readonly bytes: number } => {
      const copied = chosen.copies.get(i)
      const { local, packed } = chosen.operands[i]!
      const storage = copied ? this.#copy(base, copied) : this.#storage(base)
      const bytes = copied ? 0 : view.offset * dtypeBytes[base.dtype]
      if (!packed) return { storage, bytes, written: false, local: copied ? never : local }
      const panels = this.#temporary('packed', packed.bytes)
      const others = packed.with === undefined ? [] : [this.#dense(node.inputs[packed.with]!)]
      this.#place(
        {
          kind: 'kernel',
          name: packed.name,
          args: [at(storage, bytes), ...others.map((other) => at(other)), at(panels)],
          scratch: undefined,
          takesScratch: false,
          nature: team,
          work: workOfPacking(node, base, copied ?? view, packed.bytes),
        },
        team,
        [storage, ...others].map(reads).concat(writes(panels)),
        behind,
      )
      return { storage: panels, bytes: 0, written: false, local: never }
    })
    const results =
      node.op === callOp ? node.types.map((_, i) => this.#result(node, i)) : [this.#storage(node)]
    const scratch = chosen.scratchBytes > 0 ? this.#temporary('scratch', chosen.scratchBytes) : undefined
    const { phase } = this.#place(
      {
        kind: 'kernel',
        name: chosen.name,
        args: [
          ...args.map(({ storage, bytes }) => at(storage, bytes)),
          ...results.map((storage) => at(storage)),
        ],
        scratch,
        takesScratch: true,
        nature: chosen.nature,
        work: workOfNode(
          node,
          operands.map(({ view }) => view),
        ),
      },
      chosen.nature,
      [...args, ...results.map(writes), ...(scratch ? [writes(scratch)] : [])],
      behind,
    )
    return phase
  }

  /** Ranks meet here; every rank has the same step at the same place. Operands are dense. */
  #collective(node: Node, behind: number): number {
    const inputs = node.inputs.map((input) => this.#dense(input))
    const out = this.#storage(node)
    const { name, nature, site } = this.#library.collective(node)
    const step: KernelStep = {
      kind: 'kernel',
      name,
      args: [...inputs, out].map((storage) => at(storage)),
      scratch: undefined,
      takesScratch: false,
      nature,
      work: workOfCollective(node),
      node,
      ...(site === undefined ? {} : { collective: site }),
    }
    const place = this.#place(step, nature, [...inputs.map(reads), writes(out)], behind)
    // An element of the result is written by whoever has read that element of all operands.
    if (node.op.name === 'allReduce') this.#inPlace.push({ place, out, input: inputs[0]! })
    return place.phase
  }

  /** The `get` node of a result, if anything reads it. */
  #reader(node: Node, index: number): Node | undefined {
    return this.#gets.get(node)?.get(index)
  }

  /** Storage of one result of a multi-result node, whether or not anything reads it. */
  #result(node: Node, index: number): Storage {
    const read = this.#reader(node, index)
    return read ? this.#storage(read) : this.#temporary('unused', bytesOf(node.types[index]!))
  }

  /** A dense copy of a view in memory of its own. */
  #copy(base: Node, view: View): Storage {
    const storage = this.#temporary('copy', sizeOf(view.shape) * dtypeBytes[base.dtype])
    this.#copyTo(base, view, this.#storage(base), storage, `copy of ${base.op.name}`)
    return storage
  }

  #copyTo(base: Node, view: View, from: Storage, to: Storage, comment: string, phase = 0): void {
    const text = emitCopy(base, view)
    const local = (rows: number): boolean => isRowLocal(view, sizeOf(base.shape), rows)
    this.#place(
      {
        kind: 'kernel',
        name: this.#library.raw('copy', text, 2),
        args: [at(from), at(to)],
        scratch: undefined,
        takesScratch: false,
        nature: text.nature,
        work: workOfCopy(comment, base, view),
      },
      text.nature,
      [{ ...reads(from), local }, writes(to)],
      phase,
    )
  }

  #dense(node: Node): Storage {
    const { base, view } = this.#fusion.source(node)
    return isDense(view) && view.offset === 0 && sizeOf(view.shape) === sizeOf(base.shape)
      ? this.#storage(base)
      : this.#copy(base, view)
  }

  #loop(node: Node, behind: number): number {
    const attrs = scanAttrs(node)
    const { body, numConstants, numCarries } = attrs
    const numFixed = numConstants + numCarries
    const prefix = `f${body.id}`
    const inputs = node.inputs.map((input) => this.#dense(input))
    const bindings: Binding[] = []
    const letGo: LetGo[] = []
    const { kept } = this.#surroundings
    const params: Storage[] = []
    const results: { place: Storage; replaces?: number }[] = []
    const outside = (variable: string, bytes: number): Storage => new Storage(variable, bytes, variable)
    body.params.forEach((param, i) => {
      const variable = `${prefix}_in${i}`
      params.push(outside(variable, bytesOf(param.type)))
      if (i < numConstants) bindings.push({ kind: 'whole', variable, storage: inputs[i]! })
      else if (i >= numFixed) {
        const bytes = bytesOf(param.type)
        bindings.push({ kind: 'slice', variable, storage: inputs[i]!, bytes })
        // A loop may ask for one stack under two names; its slices come once.
        const again = inputs.indexOf(inputs[i]!) < i
        if (kept?.has(inputs[i]!) && !again) letGo.push({ variable, bytes, read: true })
      }
    })
    const carryBuffers: { first: Storage; other: Storage }[] = []
    body.results.forEach((result, i) => {
      const variable = `${prefix}_out${i}`
      const place = outside(variable, bytesOf(result.type))
      if (i < numCarries) {
        const first = this.#ownCarry(node, numConstants + i, inputs)
        const other = this.#temporary('carry', bytesOf(result.type))
        carryBuffers.push({ first, other })
        bindings.push({
          kind: 'swap',
          variable: `${prefix}_in${numConstants + i}`,
          next: variable,
          storage: first,
          other,
        })
        results.push({ place, replaces: numConstants + i })
      } else {
        const [bytes, stack] = [bytesOf(result.type), this.#reader(node, i)]
        if (kept && stack && isKept(node, stack, this.#fusion)) {
          this.#storages.set(stack, kept.place(bytesOf(stack.type)))
          letGo.push({ variable, bytes, read: false })
        }
        bindings.push({ kind: 'slice', variable, storage: this.#result(node, i), bytes })
        results.push({ place })
      }
    })
    const block = lower(body, this.#library, { ...this.#surroundings, params, results })
    // A carry computed in place needs no second buffer; otherwise the two swap roles after every step.
    carryBuffers.forEach(({ first, other }, i) => {
      const swapped = !block.resultInPlace[i]!
      const index = bindings.findIndex(
        (binding) => binding.kind === 'swap' && binding.next === `${prefix}_out${i}`,
      )
      if (!swapped)
        bindings[index] = { kind: 'whole', variable: `${prefix}_in${numConstants + i}`, storage: first }
      const final = swapped && attrs.length % 2 === 1 ? other : first
      const read = this.#reader(node, i)
      if (read) this.#storages.set(read, final)
    })
    const region = this.#temporary('loop temporaries', block.temporaryBytes)
    const touched = bindings.flatMap((binding) =>
      binding.kind === 'swap' ? [binding.storage, binding.other] : [binding.storage],
    )
    const carried = new Set(carryBuffers.flatMap(({ first, other }) => [first, other]))
    const comment = `${body.name}, ${attrs.length} steps (${placeOf(node)})`
    const written = [
      ...touched.filter((storage) => carried.has(storage)),
      ...node.types
        .slice(numCarries)
        .map((_, i) => this.#resultStorage(bindings, `${prefix}_out${numCarries + i}`)),
      region,
    ]
    const { phase } = this.#place(
      { kind: 'loop', length: attrs.length, reverse: attrs.reverse, block, bindings, letGo, region, comment },
      team,
      [...touched.map(reads), ...written.map(writes)],
      behind,
    )
    return phase
  }

  #resultStorage(bindings: readonly Binding[], variable: string): Storage {
    const binding = bindings.find((candidate) => candidate.variable === variable)
    if (!binding) throw new InternalError(`no binding for ${variable}`)
    return binding.storage
  }

  /** The buffer a carry starts in: its initial value's own memory when nothing else needs that, else a copy. */
  #ownCarry(node: Node, index: number, inputs: readonly Storage[]): Storage {
    const input = node.inputs[index]!
    const storage = inputs[index]!
    const { base } = this.#fusion.source(input)
    const shared =
      storage.outside !== undefined ||
      this.#func.params.includes(base) ||
      inputs.filter((other) => other === storage).length > 1 ||
      this.#fusion.readCount(base) > 1
    if (!shared) return storage
    const copy = this.#temporary('carry', storage.bytes)
    const dense: View = { offset: 0, shape: [sizeOf(input.shape)], strides: [1] }
    this.#copyTo(input, dense, storage, copy, 'first carry')
    return copy
  }

  /** Brings every result to its place: computed there when legal, copied at the end otherwise. */
  #placeResults(): boolean[] {
    const taken = new Set<Storage>()
    const late: { from: Storage; to: Storage; view: View; base: Node }[] = []
    // A parameter that is itself a result is read once more, at the very end.
    const readLate = new Set<Storage>()
    this.#func.results.forEach((result, i) => {
      const storage = this.#storage(this.#fusion.source(result).base)
      const { replaces } = this.#surroundings.results[i]!
      const stays = replaces !== undefined && storage === this.#surroundings.params[replaces]
      if (this.#surroundings.params.includes(storage) && !stays) readLate.add(storage)
    })
    const inPlace = this.#func.results.map((result, i) => {
      const { place: wanted, replaces } = this.#surroundings.results[i]!
      const { base, view } = this.#fusion.source(result)
      const storage = this.#storage(base)
      const whole = isDense(view) && view.offset === 0 && sizeOf(view.shape) === sizeOf(base.shape)
      const old = replaces === undefined ? undefined : this.#surroundings.params[replaces]!
      const movable = whole && storage.root.outside === undefined && !taken.has(storage.root)
      if (old !== undefined && storage === old && whole) return true
      if (old !== undefined && movable && !readLate.has(old) && this.#mayReplace(storage, old)) {
        taken.add(storage.root)
        storage.root.unite(old)
        return true
      }
      // A place of its own (an output, the second buffer of a carry) can be computed into at any time.
      if (movable && wanted !== old) {
        taken.add(storage.root)
        storage.root.unite(wanted)
        return false
      }
      late.push({ from: storage, to: wanted, view, base })
      return false
    })
    // Parameters may trade places: read them all before any is overwritten.
    const { phases } = this.#schedule
    const staged = late.map(({ base, view, from }) =>
      this.#func.params.includes(base) ? this.#copy(base, view) : from,
    )
    const end = phases.length
    late.forEach(({ base, view, from, to }, i) => {
      const moved = staged[i] !== from
      this.#copyTo(base, moved ? denseView(view.shape) : view, staged[i]!, to, `copy of ${base.op.name}`, end)
    })
    return inPlace
  }

  /** Nothing reads the old value after the new one is written, or only the kernel that writes it, element by element. */
  #mayReplace(storage: Storage, old: Storage): boolean {
    const written = storage.moments.find((moment) => moment.written)
    if (!written || storage.bytes !== old.bytes || storage.root.first < written.place.phase) return false
    return old.moments.every((read) => this.#isBefore(read, written.place, storage, old))
  }

  /** Lets outputs take over the memory of temporaries that die in the kernel that writes them. */
  #reuseInputs(): void {
    const taken = new Set<Storage>()
    for (const { place, out, input } of this.#inPlace) {
      const [mine, theirs] = [out.root, input.root]
      if (mine === theirs || mine.outside !== undefined || theirs.outside !== undefined) continue
      if (taken.has(theirs) || mine.bytes !== theirs.bytes || mine.first !== place.phase) continue
      if (!theirs.moments.every((moment) => this.#isBefore(moment, place, out, input))) continue
      if (!mine.moments.every((moment) => isWithin(moment, place) || moment.place.phase > place.phase))
        continue
      taken.add(theirs)
      mine.unite(theirs)
    }
  }

  /** Whether a use of `old` is over when the step at `place` writes `out` over it, in every thread. */
  #isBefore({ place: used, local }: Moment, place: Place, out: Storage, old: Storage): boolean {
    if (used.phase !== place.phase) return used.phase < place.phase
    if (used.chain !== place.chain) return false
    if (used.index !== place.index)
      return used.index < place.index && (place.chain.kind === 'serial' || local(place.chain.rows))
    return this.#inPlace.some((pair) => pair.place === place && pair.out === out && pair.input === old)
  }
}

/** Whether a use of the result of the step at `place` follows in the same chain, each thread reading its own rows. */
const isWithin = ({ place: used }: Moment, place: Place): boolean =>
  used.chain === place.chain && used.index >= place.index

const team: Nature = { kind: 'team' }
const reads = (storage: Storage): Use => ({ storage, written: false, local: never })
const writes = (storage: Storage): Use => ({ storage, written: true, local: always })

const at = (storage: Storage, bytes = 0): Argument => ({ storage, bytes })

const byId = (nodes: Iterable<Node>): Node[] => [...nodes].toSorted((a, b) => a.id - b.id)
