/**
 * What one microbatch costs one rank, read from the graph: the loss of the model and its gradients are traced at their
 * real size, differentiated and partitioned by the same passes that make a program, and then taken apart. The loop over
 * the layers gives what a layer costs forward and backward and what it keeps in between; what lies outside the loop is
 * the embedding and the head. Only the axes that cut a layer are in the mesh here: what data parallelism sends follows
 * from the sizes of the weights.
 */
import { Graph, inGraph, reachable, type Func, type Node } from '../../compiler/graph/node.ts'
import { dtypeBytes, sizeOf, valueType } from '../../compiler/graph/types.ts'
import { flopsOf } from '../../compiler/ops/cost.ts'
import { scanAttrs, scanOp } from '../../compiler/ops/scan.ts'
import { partition, type InputPlace } from '../../compiler/passes/partition.ts'
import { runPipeline } from '../../compiler/passes/pipeline.ts'
import { simplify } from '../../compiler/passes/simplify.ts'
import { claimed } from '../../compiler/targets/c/kernels.ts'
import { grad, type Tensor, type Tensors } from '../../compiler/index.ts'
import { traceFunction } from '../../compiler/trace/functions.ts'
import { InternalError } from '../../errors.ts'
import { placementOf, placeOf, type Plan } from '../plan.ts'
import type { PlannedModel } from './models.ts'
import { trafficOfNode } from '../traffic.ts'
import { noWork, peakBytes, rootOf, storedBytes, workOf, type SizedCollective, type Work } from './work.ts'

/** Forward, gradient of the input, gradient of the weights. */
export interface Phases {
  readonly F: Work
  readonly B: Work
  readonly W: Work
}

export interface ModelCosts {
  readonly layer: Phases
  readonly embedding: Phases
  readonly head: Phases
  /** Collectives of gradients after the last microbatch, `bytes` in elements: of one layer, and of the rest. */
  readonly settle: {
    readonly layer: readonly SizedCollective[]
    readonly outside: readonly SizedCollective[]
  }
  /** Elements of weights that a rank holds. */
  readonly parameters: { readonly layer: number; readonly embedding: number; readonly head: number }
  /** Of one layer and microbatch, until its backward pass: all that is kept, or its input alone. */
  readonly kept: { readonly all: number; readonly input: number }
  /** The most that a layer's passes, or the head's, have at once besides. */
  readonly working: { readonly layer: number; readonly head: number }
  /** Operations of the whole model on one device, forward and backward. */
  readonly modelFlops: number
}

export interface LayerMesh {
  readonly context: number
  readonly tensor: number
  readonly sequence: boolean
  readonly attention: Plan['attention']
}

/**
 * Costs by microbatch and mesh. Every extent and every count of bytes is linear in the microbatch, so a mesh is read at
 * two sizes, and any other size is on the line through them.
 */
export class CostReader {
  readonly #model: PlannedModel
  readonly #traced = new Map<number, ReturnType<typeof traced>>()
  readonly #costs = new Map<string, ModelCosts>()

  constructor(model: PlannedModel) {
    this.#model = model
  }

  costs(microbatch: number, { context, tensor, sequence, attention }: LayerMesh): ModelCosts {
    const mesh = { context, tensor, sequence, attention: context > 1 ? attention : 'ring' } as const
    const [small, large] = [2, 4]
    return onLine(this.read(small, mesh), this.read(large, mesh), (microbatch - small) / (large - small))
  }

  /** Read from a graph of this microbatch. */
  read(microbatch: number, mesh: LayerMesh): ModelCosts {
    const key = JSON.stringify([microbatch, mesh])
    let costs = this.#costs.get(key)
    if (!costs) {
      const known = this.#traced.get(microbatch) ?? traced(this.#model, microbatch)
      this.#traced.set(microbatch, known)
      costs = costsOf(this.#model, known, mesh)
      this.#costs.set(key, costs)
    }
    return costs
  }
}

/** All numbers of two alike values, as far beyond the first as `at` says in units of their distance. */
function onLine<T>(first: T, second: T, at: number): T {
  if (typeof first === 'number') return (first + ((second as number) - first) * at) as T
  if (typeof first !== 'object' || first === null) return first
  if (Array.isArray(first)) {
    const others = second as unknown[]
    if (others.length !== first.length)
      throw new InternalError('planner: costs of two microbatches are not alike')
    return first.map((one: unknown, i) => onLine(one, others[i], at)) as T
  }
  return Object.fromEntries(
    Object.entries(first).map(([name, one]) => [
      name,
      onLine(one, (second as Record<string, unknown>)[name], at),
    ]),
  ) as T
}

/** Loss and gradients of a microbatch on one device, after all common passes. */
function traced(
  model: PlannedModel,
  microbatch: number,
): { readonly func: Func; readonly paths: readonly string[]; readonly flops: number } {
  const inputs = {
    params: model.weights,
    tokens: valueType('i32', [microbatch, model.context + 1], ['batch', 'time']),
  }
  const body = (given: Tensors): Tensors => {
    const { params, tokens } = given as unknown as { params: Tensors; tokens: Tensor }
    const value = model.loss(params, tokens)
    return { loss: value, grads: grad(value, params) }
  }
  const { func, inputPaths } = inGraph(new Graph(), () => traceFunction(model.name, inputs, body))
  const done = runPipeline(func, { precision: 'f32', recompute: 'none', leaves: 0, claimed })
  return { func: done, paths: inputPaths, flops: flopsOf(done) }
}

function costsOf(
  model: PlannedModel,
  { func, paths, flops }: ReturnType<typeof traced>,
  { context, tensor, sequence, attention }: LayerMesh,
): ModelCosts {
  const plan: Plan = {
    mesh: [
      ...(context > 1
        ? [{ name: 'context', size: context, ...(attention === 'ring' ? { order: 'zigzag' as const } : {}) }]
        : []),
      ...(tensor > 1 ? [{ name: 'tensor', size: tensor }] : []),
    ],
    zero: 0,
    sequence,
    attention,
  }
  const places = paths.map((path, i): InputPlace =>
    placeOf(plan, path.startsWith('params.') ? `state.${path}` : path, func.params[i]!.type),
  )
  const weights = places.filter((_, i) => paths[i]!.startsWith('params.'))
  const outputs = [null, ...weights.map(({ layout }) => layout)]
  const cut = inGraph(new Graph(), () => partition(func, placementOf(plan), places, outputs))
  const local = inGraph(new Graph(), () => simplify(cut.func))
  return { ...takeApart(model, local, paths), modelFlops: flops }
}

function takeApart(
  model: PlannedModel,
  local: Func,
  paths: readonly string[],
): Omit<ModelCosts, 'modelFlops'> {
  const float = model.activationBytes
  const all = reachable(local.results)
  const loops = all.filter((node) => node.op === scanOp)
  const [forward, backward] = loops
  if (!forward || !backward || loops.length !== 2) {
    throw new InternalError(
      `planner: ${model.name} has ${loops.length} loops, not one forward and one backward`,
    )
  }
  const down = scanAttrs(forward)
  const up = scanAttrs(backward)

  // Inside the loops.
  const saved = down.body.results.slice(down.numCarries)
  const upCarries = up.body.results.slice(0, up.numCarries)
  const inputGradient = new Set(reachable(upCarries))
  const upAll = reachable(up.body.results)
  const layer = {
    F: workOf(reachable(down.body.results), down.body.results, float),
    B: workOf([...inputGradient], up.body.results, float),
    W: workOf(
      upAll.filter((node) => !inputGradient.has(node)),
      up.body.results,
      float,
    ),
  }
  const distinct = new Set(saved.map(rootOf))
  const kept = {
    all: sum([...distinct].map(({ types }) => storedBytes(types[0]!, float))),
    input: sum(
      down.body.params
        .slice(down.numConstants, down.numConstants + down.numCarries)
        .map(({ type }) => storedBytes(type, float)),
    ),
  }

  // Outside of them.
  const before = new Set(reachable(forward.inputs))
  const untilLoss = new Set(reachable([local.results[0]!]))
  const seeds = backward.inputs.slice(up.numConstants, up.numConstants + up.numCarries)
  const untilBackward = new Set(reachable(seeds))
  const afterBackward = new Set<Node>()
  for (const node of all) {
    if (node === backward || node.inputs.some((x) => afterBackward.has(x))) afterBackward.add(node)
  }
  // Gradients of weights are combined once for all microbatches.
  const isSettling = (node: Node): boolean =>
    node.op.kind === 'collective' &&
    !untilLoss.has(node) &&
    !untilBackward.has(node) &&
    !node.axes.includes('batch')
  const outside = all.filter((node) => node.op !== scanOp && !isSettling(node))
  const results = [...seeds, ...forward.inputs, ...local.results]
  const group = (wanted: (node: Node) => boolean): Work => workOf(outside.filter(wanted), results, float)
  const isHead = (node: Node): boolean => !before.has(node) && !afterBackward.has(node)
  const isDown = (node: Node): boolean => untilLoss.has(node)
  const isUp = (node: Node): boolean => untilBackward.has(node) && !untilLoss.has(node)
  const headNodes = outside.filter(isHead)
  return {
    layer,
    embedding: {
      F: group((node) => before.has(node)),
      B: noWork,
      W: group((node) => afterBackward.has(node)),
    },
    head: {
      F: group((node) => isHead(node) && isDown(node)),
      B: group((node) => isHead(node) && isUp(node)),
      W: group((node) => isHead(node) && !isDown(node) && !isUp(node)),
    },
    settle: settled(all.filter(isSettling), up.length),
    parameters: parametersOf(local, paths, before, headNodes),
    kept,
    working: {
      layer: Math.max(
        peakBytes(reachable(down.body.results), down.body.results, float) - kept.all,
        peakBytes(reachable(upCarries), upCarries, float),
      ),
      head: peakBytes(
        headNodes,
        headNodes.filter((node) => results.includes(node)),
        float,
      ),
    },
  }
}

/** Elements of weights by where a pipeline holds them. A table that embedding and head share is held by both ends. */
function parametersOf(
  local: Func,
  paths: readonly string[],
  before: ReadonlySet<Node>,
  headNodes: readonly Node[],
): ModelCosts['parameters'] {
  const parameters = { layer: 0, embedding: 0, head: 0 }
  const read = new Set(headNodes.flatMap(({ inputs }) => inputs.map(rootOf)))
  paths.forEach((path, i) => {
    if (!path.startsWith('params.')) return
    const param = local.params[i]!
    const size = sizeOf(param.shape)
    if (path.startsWith('params.layers.')) parameters.layer += size / param.shape[0]!
    else {
      if (before.has(param)) parameters.embedding += size
      if (read.has(param)) parameters.head += size
    }
  })
  return parameters
}

/** Collectives of gradients of weights, in elements: those of layers, which are stacked, for one layer. */
function settled(nodes: readonly Node[], layers: number): ModelCosts['settle'] {
  const settle: { layer: SizedCollective[]; outside: SizedCollective[] } = { layer: [], outside: [] }
  for (const node of nodes) {
    const entry = trafficOfNode(node, 1)
    if (!entry || entry.kind === 'send') continue
    const stacked = node.axes[0] === 'layer' || node.axes[0] === 'layers'
    const elements = entry.bytes / dtypeBytes[node.dtype] / (stacked ? layers : 1)
    settle[stacked ? 'layer' : 'outside'].push({
      kind: entry.kind,
      axes: entry.axes,
      bytes: elements,
      calls: 1,
    })
  }
  return settle
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
