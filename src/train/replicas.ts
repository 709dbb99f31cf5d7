/**
 * Training steps of replicas that do not agree on everything: each has its own part of the batch and state of its own, and
 * what they tell each other is less than all gradients.
 *
 * - `parallel.compress=powersgd`: gradients travel as two thin matrices, and each replica keeps what they do not say.
 * - `parallel.local=H`: each replica takes H steps of its optimizer by itself; then an outer step (DiLoCo) moves the
 *   parameters by the mean of how far they went. A step of the run is such a round, and its batch that of all H steps.
 *
 * Replicas are an axis. One device goes through it in a loop; a mesh cuts it over `data`, so each rank has its replica,
 * and the means over the axis are all that is sent. So the same text is the meaning and the program, and a plan is proved
 * as any other. Parameters are those on which all replicas agree, as in any run: what is evaluated, sampled and exported.
 */
import {
  inPhase,
  iota,
  leaves,
  mapTree,
  scan,
  valueType,
  type Tensor,
  type Tensorised,
  type Tensors,
  type Tree,
  type ValueType,
} from '../compiler/index.ts'
import { failure } from '../errors.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import type { ModelConfig } from '../models/language/model.ts'
import { outerUpdate } from '../optim/outer.ts'
import { firstFactor, powerSgd, powerSgdState, type PowerState } from '../optim/power-sgd.ts'
import { gradientsOf, trainedOf } from './microbatches.ts'
import type { Source } from './programs.ts'
import { stepInputs, trainedTypes, type StepState } from './state.ts'
import { nextState, normOf } from './update.ts'

const replica = 'replica'

/** Whether replicas have state of their own. */
export const isReplicated = ({ parallel }: Pick<LanguageConfig, 'parallel'>): boolean =>
  parallel.local > 0 || parallel.compress !== 'none'

/**
 * Replicas are part of the training state, so unlike other plans they cannot change on the way.
 * @throws UserError naming the setting that did.
 */
export function requireSameReplicas(then: LanguageConfig, now: LanguageConfig): void {
  if (!isReplicated(then) && !isReplicated(now)) return
  const settings = ({ mesh, parallel }: LanguageConfig): Record<string, string | number> => ({
    'parallel.compress': parallel.compress,
    'parallel.local': parallel.local > 0 ? 'on' : 'off',
    ...(parallel.compress === 'none' ? {} : { 'parallel.rank': parallel.rank }),
    'mesh.data': mesh.data,
  })
  const before = settings(then)
  for (const [where, value] of Object.entries(settings(now))) {
    if (before[where] === value) continue
    throw failure({
      where: `resume with ${where}`,
      got: String(value),
      expected: `${before[where]}: ranks along mesh.data hold state of their own`,
      fix: 'leave it as it was, or start a new run',
    })
  }
}

export const replicatedSource = (config: LanguageConfig, vocab: number): Source =>
  config.parallel.local > 0 ? localSource(config, vocab) : compressedSource(config, vocab)

const perReplica = ({ dtype, shape, axes }: ValueType, replicas: number): ValueType =>
  valueType(dtype, [replicas, ...shape], [replica, ...axes])

/** Tokens of a step, those of each replica together. */
function tokenType({ batch, accumulate, mesh, parallel, model }: LanguageConfig): ValueType {
  const local = Math.max(1, parallel.local)
  return valueType(
    'i32',
    [mesh.data, local, accumulate, batch / (mesh.data * local * accumulate), model.context + 1],
    [replica, 'local', 'micro', 'batch', 'time'],
  )
}

/** Number of the first microbatch of a replica: each draws dropout masks of its own. */
const firstMicrobatch = (index: Tensor, { accumulate }: LanguageConfig): Tensor => index.mul(accumulate)

const overReplicas = (x: Tensor): Tensor => x.sum(0).mul(1 / x.shape[0]!)

const overReplicasKept = (x: Tensor): Tensor => x.sum(0, true).mul(1 / x.shape[0]!)

/** Compressed gradients: all replicas have the same parameters and optimizer, and a residual each. */
function compressedSource(config: LanguageConfig, vocab: number): Source {
  const model: ModelConfig = { ...config.model, vocab }
  const { state, seed } = stepInputs(config, vocab)
  const replicas = config.mesh.data
  const compress = Object.fromEntries(
    Object.entries(powerSgdState(trainedTypes(model), config.parallel.rank)).map(
      ([path, { residual, q }]) => [path, { residual: perReplica(residual, replicas), q: perReplica(q, 1) }],
    ),
  )
  const inputs = { state: { ...state, compress }, tokens: tokenType(config), seed }
  const body = ({ state, tokens, seed }: Tensorised<typeof inputs>): Tensors => {
    const [, own] = scan(
      {},
      { tokens, index: iota(replicas, replica) },
      (_, x) => {
        const { loss, grads, load } = gradientsOf(
          model,
          state,
          x.tokens.reshape(x.tokens.shape.slice(1), x.tokens.axes.slice(1)),
          seed,
          firstMicrobatch(x.index, config),
        )
        return [{}, { loss, grads, ...(load ? { load } : {}) }]
      },
      { name: 'replicas' },
    )
    const compressed = inPhase('optimizer', () =>
      powerSgd(own.grads, state.compress as Record<string, PowerState>, overReplicasKept),
    )
    const grads = mapTree<Tensor, Tensor>(compressed.gradients, (g) =>
      g.reshape(g.shape.slice(1), g.axes.slice(1)),
    ) as Record<string, Tensor>
    const { state: next, ...measured } = nextState(config, vocab, state as StepState, {
      loss: own.loss.sum(0).mul(1 / (config.batch * config.model.context)),
      grads,
      norm: normOf(grads),
      ...(own.load ? { load: overReplicas(own.load) } : {}),
    }) as { readonly state: Record<string, Tensors> }
    return { state: { ...next, compress: compressed.state }, ...measured }
  }
  return { name: 'train-step', inputs, body: body as unknown as Source['body'] }
}

/** What of the training state must not start at zero: the right factors, the same on all replicas. */
export function firstFactors(config: LanguageConfig, vocab: number): [string, Float64Array][] {
  if (config.parallel.compress === 'none') return []
  const state = powerSgdState(trainedTypes({ ...config.model, vocab }), config.parallel.rank)
  return Object.entries(state).map(([path, { q }]) => [
    `state.compress.${path}.q`,
    firstFactor(q, config.seed),
  ])
}

/** Rounds of local steps: each replica has an optimizer of its own, and all of them an outer one. */
function localSource(config: LanguageConfig, vocab: number): Source {
  const model: ModelConfig = { ...config.model, vocab }
  const { mesh, parallel } = config
  const [replicas, count] = [mesh.data, parallel.local]
  const { state, seed } = stepInputs(config, vocab)
  const optim = mapTree<ValueType, ValueType>(state.optim, (type) => perReplica(type, replicas))
  const inputs = {
    state: { ...state, optim: optim as typeof state.optim, outer: trainedTypes(model) },
    tokens: tokenType(config),
    seed,
  }
  // Schedules count the steps of a replica.
  const inner: LanguageConfig = {
    ...config,
    steps: config.steps * count,
    optim: { ...config.optim, warmup: config.optim.warmup * count },
  }
  const windows = config.batch / (replicas * count)
  const body = ({ state, tokens, seed }: Tensorised<typeof inputs>): Tensors => {
    const [, own] = scan(
      {},
      { tokens, index: iota(replicas, replica), optim: state.optim },
      (_, x) => {
        const first = firstMicrobatch(x.index, config)
        const [last, measured] = scan(
          { params: state.params as Tree<Tensor>, optim: x.optim as Tree<Tensor> },
          { tokens: x.tokens, index: iota(count, 'local') },
          (now, { tokens, index }) => {
            const step = state.step.mul(count).add(index)
            const before = { step, ...now } as StepState
            const { loss, grads, load } = gradientsOf(model, before, tokens, seed, first)
            const { state: next, ...measured } = nextState(inner, vocab, before, {
              loss: loss.mul(1 / (windows * config.model.context)),
              grads,
              norm: normOf(grads),
              ...(load ? { load } : {}),
            }) as { readonly state: Record<string, Tensors> }
            return [{ params: next['params']!, optim: next['optim']! }, measured]
          },
          { name: 'local-steps' },
        )
        // Means over the round.
        const means = mapTree<Tensor, Tensor>(measured, (values) => values.mean(0))
        return [{}, { ...last, measured: means }]
      },
      { name: 'replicas' },
    )
    const went = new Map(leaves<Tensor>(own.params))
    const trained = trainedOf(model, state.params)
    const { anchor, velocity } = inPhase('optimizer', () =>
      outerUpdate(
        Object.fromEntries(Object.keys(trained).map((path) => [path, went.get(path)!])),
        { anchor: trained, velocity: state.outer as Record<string, Tensor> },
        overReplicas,
        { lr: parallel.outerLr, momentum: parallel.outerMomentum },
      ),
    )
    return {
      state: {
        step: state.step.add(1),
        // What a rule moves has no momentum.
        params: mapTree<Tensor, Tensor>(
          state.params,
          (_, path) => anchor[path] ?? overReplicas(went.get(path)!),
        ),
        optim: own.optim,
        outer: velocity,
      },
      ...(mapTree<Tensor, Tensor>(own.measured, overReplicas) as Record<string, Tensor>),
    }
  }
  return { name: 'train-step', inputs, body: body as unknown as Source['body'] }
}
