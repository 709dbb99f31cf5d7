/**
 * Forward and backward passes of one pipeline rank, in the order of a schedule, as one graph without branches. Every
 * action waits for the one before it (`barrier`), so that a compiled program does what the schedule says, no earlier and
 * no later, and holds as many activations as the schedule promises. Gradients of microbatches are added in their order,
 * pairwise as leaves of a batch are, which makes a pipeline equal to gradient accumulation on one device, bit for bit.
 *
 * A split backward pass is one gradient all the same. Its gradients of weights stand behind late barriers, which say
 * when they are wanted, and the compiler moves what is for them alone to that place (compiler/passes/sink.ts).
 */
import { InternalError } from '../errors.ts'
import type { Group } from '../compiler/graph/mesh.ts'
import type { Node } from '../compiler/graph/node.ts'
import { add } from '../compiler/ops/add.ts'
import { barrier } from '../compiler/ops/barrier.ts'
import { get } from '../compiler/ops/get.ts'
import { pullback } from '../compiler/ops/grad.ts'
import { receive, send } from '../compiler/ops/send.ts'
import type { Stages } from '../compiler/trace/stages.ts'
import { isMessage, type Instruction, type Message } from './schedule/index.ts'

export interface PipelineRank {
  readonly stages: Stages
  readonly instructions: readonly Instruction[]
  readonly microbatches: number
  /** Backward passes make gradients of inputs only; those of weights are actions of their own. */
  readonly splitBackward: boolean
  /** The mesh axis of the pipeline. */
  readonly group: Group
  /** Inputs of a stage for a microbatch. `after` is applied to what must not be touched before its turn. */
  readonly inputs: (stage: number, microbatch: number, after: (x: Node) => Node) => ReadonlyMap<string, Node>
  /** A scalar that is 1, but not a constant: what the last stage's backward passes wait with. */
  readonly one: Node
  /** Which of those inputs get gradients. */
  readonly parameters: (stage: number) => readonly string[]
}

export interface PipelineResult {
  /** What the last stage reports besides what is minimised, added up over microbatches; empty on other ranks. */
  readonly reported: readonly Node[]
  /** For each stage of this rank the gradients of its parameters, added up over microbatches. */
  readonly gradients: ReadonlyMap<number, ReadonlyMap<string, Node>>
  /** Nothing that should come after the pipeline may begin before these. */
  readonly last: readonly Node[]
}

/** Traces what one rank does. */
export function runRank(rank: PipelineRank): PipelineResult {
  const { stages, group } = rank
  const end = stages.count - 1
  const passes = new Map<
    string,
    { readonly carried: readonly Node[]; readonly out: readonly Node[]; inputs: ReadonlyMap<string, Node> }
  >()
  // What is on its way between stages, by `forward 2.3`: for stage 2, microbatch 3.
  const activations = new Map<string, readonly Node[]>()
  const gradients = new Map<number, Map<string, PairwiseSum>>()
  const reported: PairwiseSum[] = []
  const weightGradients = new Map<string, ReadonlyMap<string, Node>>()
  let before: readonly Node[] = []
  const after = (x: Node): Node => before.reduce((value, token) => barrier(value, token), x)
  const take = (direction: string, stage: number, microbatch: number): Node[] => {
    const found = activations.get(`${direction} ${stage}.${microbatch}`)
    if (!found)
      throw new InternalError(`pipeline: nothing ${direction} for stage ${stage}, microbatch ${microbatch}`)
    return found.map(after)
  }
  const forward = (stage: number, microbatch: number): void => {
    const inputs = rank.inputs(stage, microbatch, after)
    const carried = stage === 0 ? stages.begin(inputs) : take('forward', stage, microbatch)
    const out = stages.run(stage, inputs, carried)
    passes.set(`${stage}.${microbatch}`, { carried, out, inputs })
    if (stage === end) out.slice(1).forEach((value, i) => (reported[i] ??= new PairwiseSum()).add(value))
    else activations.set(`forward ${stage + 1}.${microbatch}`, out)
    before = out
  }
  // The whole backward pass is traced at once; where it is split, gradients of weights are taken from it later.
  const backward = (stage: number, microbatch: number): void => {
    const { carried, out, inputs } = passes.get(`${stage}.${microbatch}`)!
    passes.delete(`${stage}.${microbatch}`)
    const paths = rank.parameters(stage)
    const cotangents = stage === end ? [after(rank.one)] : take('backward', stage, microbatch)
    const handle = pullback(out.slice(0, cotangents.length), cotangents, [
      ...carried,
      ...paths.map((path) => inputs.get(path)!),
    ])
    const parts = handle.types.map((_, i) => get(handle, i))
    const down = parts.slice(0, carried.length)
    activations.set(`backward ${stage - 1}.${microbatch}`, down)
    const own = new Map(paths.map((path, i) => [path, parts[carried.length + i]!]))
    if (rank.splitBackward) {
      weightGradients.set(`${stage}.${microbatch}`, own)
      before = down
    } else before = [...down, ...accumulate(stage, own)]
  }
  const accumulate = (stage: number, parts: ReadonlyMap<string, Node>): Iterable<Node> => {
    const sums = gradients.get(stage) ?? new Map([...parts.keys()].map((path) => [path, new PairwiseSum()]))
    for (const [path, part] of parts) sums.get(path)!.add(part)
    gradients.set(stage, sums)
    return [...sums.values()].map((sum) => sum.latest)
  }
  const weights = (stage: number, microbatch: number): void => {
    const parts = [...weightGradients.get(`${stage}.${microbatch}`)!]
    weightGradients.delete(`${stage}.${microbatch}`)
    const late = (x: Node): Node =>
      before.reduce((value, token) => barrier(value, token, `W ${stage}.${microbatch}`), x)
    before = [...accumulate(stage, new Map(parts.map(([path, part]) => [path, late(part)])))]
  }
  const exchange = ({ kind, stage, microbatch, peer, direction }: Message): void => {
    // A forward message is named by the stage it goes to, a backward one too.
    const target = kind === 'receive' ? stage : direction === 'forward' ? stage + 1 : stage - 1
    const key = `${direction} ${target}.${microbatch}`
    if (kind === 'send') {
      before = activations.get(key)!.map((x, i) => send(after(x), group, peer, `${key} ${i}`))
      return
    }
    const types = stages.carries(direction === 'forward' ? stage : stage + 1)
    const received = types.map((type, i) => receive(type, group, peer, `${key} ${i}`, before))
    activations.set(key, received)
    before = received
  }
  for (const instruction of rank.instructions) {
    if (isMessage(instruction)) exchange(instruction)
    else if (instruction.kind === 'F') forward(instruction.stage, instruction.microbatch)
    else if (instruction.kind === 'B') backward(instruction.stage, instruction.microbatch)
    else weights(instruction.stage, instruction.microbatch)
  }
  return {
    reported: reported.map((sum) => sum.total!),
    gradients: new Map(
      [...gradients].map(([stage, sums]) => [
        stage,
        new Map([...sums].map(([path, sum]) => [path, sum.total!])),
      ]),
    ),
    last: before,
  }
}

/** Adds values as they come like a binary counter: neighbours first, then their sums. */
class PairwiseSum {
  readonly #parts: { readonly value: Node; readonly count: number }[] = []

  add(value: Node): void {
    let part = { value, count: 1 }
    for (let last = this.#parts.at(-1); last?.count === part.count; last = this.#parts.at(-1)) {
      part = { value: add(last.value, part.value), count: 2 * part.count }
      this.#parts.pop()
    }
    this.#parts.push(part)
  }

  /** What the last addition made. */
  get latest(): Node {
    return this.#parts.at(-1)!.value
  }

  get total(): Node | null {
    return this.#parts
      .map(({ value }) => value)
      .reduceRight<Node | null>((sum, value) => (sum ? add(value, sum) : value), null)
  }
}
