/**
 * Lowering: a fused function becomes a block, the list of steps that the emitted program runs (kernels, copies, loops),
 * with a storage for every value that lives in memory. Loops hold a block of their own. Scheduling is by creation order:
 * forward, backward, update, as the model was written.
 */
import { InternalError } from '../../../errors.ts'
import { describe, sourceOf, type Func, type Node } from '../../graph/node.ts'
import { bytesOf, dtypeBytes, sizeOf } from '../../graph/types.ts'
import { callOp } from '../../ops/call.ts'
import { getOp } from '../../ops/get.ts'
import { scanAttrs, scanOp } from '../../ops/scan.ts'
import { fuse, type FusedKernel, type Fusion } from './fuse.ts'
import type { KernelLibrary } from './kernels.ts'
import { emitRows, type KernelText } from './rows.ts'
import { emitCopy, emitSingle } from './singles.ts'
import { planMemory, Storage } from './storage.ts'
import { denseView, isDense, type View } from './view.ts'

export interface KernelStep {
  readonly kind: 'kernel'
  /** Name of the C function. */
  readonly name: string
  readonly args: readonly Argument[]
  readonly scratch: Storage | undefined
  /** The function takes a scratch pointer even when it needs none. */
  readonly takesScratch: boolean
  readonly serial: boolean
  readonly comment: string
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
  readonly steps: readonly Step[]
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
}

export function lower(func: Func, library: KernelLibrary, surroundings: Surroundings): Block {
  return new Lowering(func, library, surroundings).run()
}

class Lowering {
  readonly #func: Func
  readonly #fusion: Fusion
  readonly #library: KernelLibrary
  readonly #surroundings: Surroundings
  readonly #steps: Step[] = []
  readonly #storages = new Map<Node, Storage>()
  readonly #all: Storage[] = []
  readonly #inPlace: { step: number; out: Storage; input: Storage }[] = []
  readonly #lastRead = new Map<Storage, number>()
  readonly #producedAt = new Map<Storage, number>()
  readonly #gets = new Map<Node, Map<number, Node>>()

  constructor(func: Func, library: KernelLibrary, surroundings: Surroundings) {
    this.#func = func
    this.#fusion = fuse(func)
    this.#library = library
    this.#surroundings = surroundings
    func.params.forEach((param, i) => this.#storages.set(param, surroundings.params[i]!))
    for (const node of this.#fusion.stored) {
      if (node.op !== getOp) continue
      const source = node.inputs[0]!
      this.#gets.set(source, (this.#gets.get(source) ?? new Map()).set(node.attrs['index'] as number, node))
    }
  }

  run(): Block {
    for (const kernel of this.#fusion.kernels) this.#kernel(kernel)
    const resultInPlace = this.#placeResults()
    this.#reuseInputs()
    const plan = planMemory(this.#all)
    return { steps: this.#steps, temporaryBytes: plan.bytes, lowerBound: plan.lowerBound, resultInPlace }
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

  /** Adds a step; every storage it touches lives at least until then. */
  #push(step: Step, reads: readonly Storage[], writes: readonly Storage[]): number {
    const at = this.#steps.push(step) - 1
    for (const storage of [...reads, ...writes]) storage.touch(at)
    for (const storage of reads) this.#lastRead.set(storage, at)
    for (const storage of writes) this.#producedAt.set(storage, at)
    return at
  }

  #kernel(kernel: FusedKernel): void {
    if (kernel.kind === 'rows') {
      const members = [...kernel.members.keys()]
      this.#text('rows', emitRows(kernel, this.#fusion), members)
      return
    }
    const { node } = kernel
    if (node.op === scanOp) this.#loop(node)
    else if (node.op === callOp || node.op.kind === 'product') this.#handWritten(node)
    else this.#text(node.op.name, emitSingle(kernel, this.#fusion), [node])
  }

  #text(kind: string, text: KernelText, members: readonly Node[]): void {
    const name = this.#library.text(kind, text)
    const args = text.parameters.map(({ node }) => at(this.#storage(node)))
    const scratch = text.scratchBytes > 0 ? this.#temporary('scratch', text.scratchBytes) : undefined
    const reads = text.parameters.filter((p) => !p.written).map((p) => this.#storage(p.node))
    const writes = text.parameters.filter((p) => p.written).map((p) => this.#storage(p.node))
    const comment = `${members.map((node) => node.op.name).join(' ')} ${place(members.at(-1)!)}`
    const step: KernelStep = {
      kind: 'kernel',
      name,
      args,
      scratch,
      takesScratch: scratch !== undefined,
      serial: text.serial,
      comment,
    }
    const index = this.#push(step, reads, scratch ? [...writes, scratch] : writes)
    for (const { out, input } of text.inPlace) {
      this.#inPlace.push({ step: index, out: this.#storage(out), input: this.#storage(input) })
    }
  }

  /** Products and claimed composites: kernels written by hand, which need operands with certain strides. */
  #handWritten(node: Node): void {
    const operands = node.inputs.map((input) => {
      const { base, view } = this.#fusion.source(input)
      return { base, view, dtype: input.dtype }
    })
    const chosen = this.#library.choose(
      node,
      operands.map(({ view }) => view),
    )
    const args = operands.map(({ base }, i) => {
      const copied = chosen.copies.get(i)
      return copied ? this.#copy(base, copied) : this.#storage(base)
    })
    const results =
      node.op === callOp ? node.types.map((_, i) => this.#result(node, i)) : [this.#storage(node)]
    const scratch = chosen.scratchBytes > 0 ? this.#temporary('scratch', chosen.scratchBytes) : undefined
    this.#push(
      {
        kind: 'kernel',
        name: chosen.name,
        args: [
          ...args.map((storage, i) => at(storage, chosen.offsets[i]! * dtypeBytes[operands[i]!.dtype])),
          ...results.map((storage) => at(storage)),
        ],
        scratch,
        takesScratch: true,
        serial: false,
        comment: `${describe(node)} ${place(node)}`,
      },
      args,
      scratch ? [...results, scratch] : results,
    )
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
  #copy(base: Node, view: View, target?: Storage, source: Storage = this.#storage(base)): Storage {
    const bytes = sizeOf(view.shape) * dtypeBytes[base.dtype]
    const storage = target ?? this.#temporary('copy', bytes)
    const from = source
    const text = emitCopy(base, view)
    const name = this.#library.raw('copy', text.body, 2)
    const step: KernelStep = {
      kind: 'kernel',
      name,
      args: [at(from), at(storage)],
      scratch: undefined,
      takesScratch: false,
      serial: text.serial,
      comment: `copy of ${base.op.name}`,
    }
    this.#push(step, [from], [storage])
    return storage
  }

  #dense(node: Node): Storage {
    const { base, view } = this.#fusion.source(node)
    return isDense(view) && view.offset === 0 && sizeOf(view.shape) === sizeOf(base.shape)
      ? this.#storage(base)
      : this.#copy(base, view)
  }

  #loop(node: Node): void {
    const attrs = scanAttrs(node)
    const { body, numConstants, numCarries } = attrs
    const numFixed = numConstants + numCarries
    const prefix = `f${body.id}`
    const inputs = node.inputs.map((input) => this.#dense(input))
    const bindings: Binding[] = []
    const params: Storage[] = []
    const results: { place: Storage; replaces?: number }[] = []
    const outside = (variable: string, bytes: number): Storage => new Storage(variable, bytes, variable)
    body.params.forEach((param, i) => {
      const variable = `${prefix}_in${i}`
      params.push(outside(variable, bytesOf(param.type)))
      if (i < numConstants) bindings.push({ kind: 'whole', variable, storage: inputs[i]! })
      else if (i >= numFixed)
        bindings.push({ kind: 'slice', variable, storage: inputs[i]!, bytes: bytesOf(param.type) })
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
        bindings.push({
          kind: 'slice',
          variable,
          storage: this.#result(node, i),
          bytes: bytesOf(result.type),
        })
        results.push({ place })
      }
    })
    const block = lower(body, this.#library, { params, results })
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
    const comment = `${body.name}, ${attrs.length} steps ${place(node)}`
    const writes = [
      ...touched.filter((storage) => carried.has(storage)),
      ...node.types
        .slice(numCarries)
        .map((_, i) => this.#resultStorage(bindings, `${prefix}_out${numCarries + i}`)),
      region,
    ]
    this.#push(
      { kind: 'loop', length: attrs.length, reverse: attrs.reverse, block, bindings, region, comment },
      touched,
      writes,
    )
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
    const type = input.type
    const dense: View = { offset: 0, shape: [sizeOf(type.shape)], strides: [1] }
    const text = emitCopy(input, dense)
    const name = this.#library.raw('copy', text.body, 2)
    this.#push(
      {
        kind: 'kernel',
        name,
        args: [at(storage), at(copy)],
        scratch: undefined,
        takesScratch: false,
        serial: text.serial,
        comment: 'first carry',
      },
      [storage],
      [copy],
    )
    return copy
  }

  /** Brings every result to its place: computed there when legal, copied at the end otherwise. */
  #placeResults(): boolean[] {
    const taken = new Set<Storage>()
    const late: { from: Storage; to: Storage; view: View; base: Node }[] = []
    // A parameter that is itself a result is read once more, at the very end.
    this.#func.results.forEach((result, i) => {
      const storage = this.#storage(this.#fusion.source(result).base)
      const { replaces } = this.#surroundings.results[i]!
      const stays = replaces !== undefined && storage === this.#surroundings.params[replaces]
      if (this.#surroundings.params.includes(storage) && !stays) this.#lastRead.set(storage, Infinity)
    })
    const inPlace = this.#func.results.map((result, i) => {
      const { place: wanted, replaces } = this.#surroundings.results[i]!
      const { base, view } = this.#fusion.source(result)
      const storage = this.#storage(base)
      const whole = isDense(view) && view.offset === 0 && sizeOf(view.shape) === sizeOf(base.shape)
      const old = replaces === undefined ? undefined : this.#surroundings.params[replaces]!
      const movable = whole && storage.root.outside === undefined && !taken.has(storage.root)
      if (old !== undefined && storage === old && whole) return true
      if (old !== undefined && movable && this.#mayReplace(storage, old)) {
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
    const staged = late.map(({ base, view, from }) =>
      this.#func.params.includes(base) ? this.#copy(base, view) : from,
    )
    late.forEach(({ base, view, from, to }, i) => {
      const moved = staged[i] !== from
      this.#copy(base, moved ? denseView(view.shape) : view, to, staged[i]!)
    })
    return inPlace
  }

  /** Nothing reads the old value after the new one is written, or only the kernel that writes it, element by element. */
  #mayReplace(storage: Storage, old: Storage): boolean {
    const written = this.#producedAt.get(storage)
    if (written === undefined || storage.bytes !== old.bytes || storage.root.first < written) return false
    const read = this.#lastRead.get(old) ?? -1
    if (read < written) return true
    return (
      read === written &&
      this.#inPlace.some(({ step, out, input }) => step === written && out === storage && input === old)
    )
  }

  /** Lets outputs take over the memory of temporaries that die in the kernel that writes them. */
  #reuseInputs(): void {
    const taken = new Set<string>()
    for (const { step, out, input } of this.#inPlace) {
      const [mine, theirs] = [out.root, input.root]
      const key = `${step}:${this.#all.indexOf(theirs)}`
      if (mine === theirs || mine.outside !== undefined || theirs.outside !== undefined || taken.has(key))
        continue
      if (theirs.last !== step || mine.first !== step || mine.bytes !== theirs.bytes) continue
      taken.add(key)
      mine.unite(theirs)
    }
  }
}

const at = (storage: Storage, bytes = 0): Argument => ({ storage, bytes })

const place = (node: Node): string => {
  const source = sourceOf(node)
  return source ? `(${source.split('/').slice(-2).join('/')})` : ''
}
