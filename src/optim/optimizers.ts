/**
 * Optimizers as functions of one parameter: how much state it has and what one update does. `groupedUpdate` applies
 * them to a whole tree. Learning rates, schedules and bias corrections are computed in the graph from the step number,
 * so a step is one native program.
 */
import {
  adafactor,
  adamw,
  adamw8bit,
  blockScales,
  full,
  muon,
  Tensor,
  valueType,
  type ValueType,
} from '../compiler/index.ts'

export interface OptimizerOptions {
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  readonly momentum: number
  readonly weightDecay: number
  /** Adafactor: the step is in proportion to the parameter, at most 1 / sqrt(updates), instead of lr alone. */
  readonly relativeStep?: boolean
}

/** Scalars (f32) shared by every parameter of a step. */
export interface StepScalars {
  readonly lr: Tensor
  /** Number of this update, from 1. */
  readonly count: Tensor
}

export interface Optimizer {
  /** State tensors of a parameter, by name. All start at zero. */
  state(parameter: ValueType): Readonly<Record<string, ValueType>>
  update(
    parameter: Tensor,
    gradient: Tensor,
    state: Readonly<Record<string, Tensor>>,
    scalars: StepScalars,
    options: OptimizerOptions,
  ): { readonly parameter: Tensor; readonly state: Readonly<Record<string, Tensor>> }
}

const like = (parameter: ValueType): ValueType => valueType(parameter.dtype, parameter.shape, parameter.axes)

const decay = (parameter: Tensor, lr: Tensor, weightDecay: number): Tensor =>
  weightDecay === 0 ? parameter : parameter.sub(parameter.mul(lr.mul(weightDecay)))

/** Stochastic gradient descent. */
const sgd: Optimizer = {
  state: () => ({}),
  update: (parameter, gradient, _, { lr }, { weightDecay }) => ({
    parameter: decay(parameter, lr, weightDecay).sub(gradient.mul(lr)),
    state: {},
  }),
}

/** SGD with heavy-ball momentum (Polyak; Sutskever et al., On the importance of initialization and momentum). */
const momentum: Optimizer = {
  state: (parameter) => ({ velocity: like(parameter) }),
  update(parameter, gradient, { velocity }, { lr }, { momentum, weightDecay }) {
    const next = velocity!.mul(momentum).add(gradient)
    return { parameter: decay(parameter, lr, weightDecay).sub(next.mul(lr)), state: { velocity: next } }
  },
}

/** 1 / (1 - beta^t), with beta^t = exp(t ln beta). */
function correction(beta: number, count: Tensor): Tensor {
  const left = count.mul(Math.log(beta)).exp().neg().add(1)
  return full(1, left.type).div(left)
}

/** AdamW (Loshchilov & Hutter, Decoupled Weight Decay Regularization). */
const adam: Optimizer = {
  state: (parameter) => ({ m: like(parameter), v: like(parameter) }),
  update(parameter, gradient, { m, v }, { lr, count }, { beta1, beta2, eps, weightDecay }) {
    const [next, nextM, nextV] = adamw(
      [parameter, gradient, m!, v!, lr, correction(beta1, count), correction(beta2, count)],
      {
        beta1,
        beta2,
        eps,
        weightDecay,
      },
    )
    return { parameter: next, state: { m: nextM, v: nextV } }
  },
}

/** AdamW with a byte for each moment (Dettmers et al., 8-bit Optimizers via Block-wise Quantization). */
const adam8bit: Optimizer = {
  state(parameter) {
    const { shape, axes } = parameter
    const codes = valueType('u8', shape, axes)
    return { m: codes, mScale: blockScales(parameter), v: codes, vScale: blockScales(parameter) }
  },
  update(parameter, gradient, { m, mScale, v, vScale }, { lr, count }, { beta1, beta2, eps, weightDecay }) {
    const corrections = [correction(beta1, count), correction(beta2, count)]
    const [next, ...state] = adamw8bit([parameter, gradient, m!, mScale!, v!, vScale!, lr, ...corrections], {
      beta1,
      beta2,
      eps,
      weightDecay,
    })
    return { parameter: next!, state: { m: state[0]!, mScale: state[1]!, v: state[2]!, vScale: state[3]! } }
  },
}

/** Adafactor (Shazeer & Stern), without a first moment: of a matrix it keeps a number a row and a column. */
const factored: Optimizer = {
  state(parameter) {
    const { dtype, shape, axes } = parameter
    if (shape.length < 2) return { second: like(parameter) }
    const without = (axis: number): ValueType =>
      valueType(dtype, shape.toSpliced(axis, 1), axes.toSpliced(axis, 1))
    return { rows: without(-1), columns: without(-2) }
  },
  update(parameter, gradient, state, { lr, count }, { weightDecay, relativeStep = false }) {
    const names = Object.keys(state)
    // The share of the new gradient falls as t^-0.8; a relative step is at most 1 / sqrt(t).
    const share = count.log().mul(-0.8).exp()
    const step = relativeStep ? lr.min(count.rsqrt()) : lr
    const kept = names.map((name) => state[name]!)
    const [next, ...updated] = adafactor([parameter, gradient, step, share, ...kept], {
      weightDecay,
      relative: relativeStep,
    })
    return {
      parameter: next!,
      state: Object.fromEntries(names.map((name, i) => [name, updated[i]!])),
    }
  },
}

/** Muon (Jordan et al.): for stacks of matrices [..., rows, columns]. */
const muonOptimizer: Optimizer = {
  state: (parameter) => ({ buffer: like(parameter) }),
  update(parameter, gradient, { buffer }, { lr }, { momentum, weightDecay }) {
    const [next, nextBuffer] = muon([parameter, gradient, buffer!, lr], { momentum, weightDecay })
    return { parameter: next, state: { buffer: nextBuffer } }
  },
}

export const optimizers = {
  sgd,
  momentum,
  adamw: adam,
  adamw8bit: adam8bit,
  adafactor: factored,
  muon: muonOptimizer,
} as const satisfies Record<string, Optimizer>
export type OptimizerName = keyof typeof optimizers

/** Which optimizer a parameter gets, and its learning rate. */
export interface Assignment {
  readonly optimizer: Optimizer
  readonly lr: Tensor
}

/** State types for every parameter of a tree. */
export function optimizerState(
  specs: readonly (readonly [string, ValueType])[],
  choose: (path: string) => Optimizer,
): Record<string, Readonly<Record<string, ValueType>>> {
  return Object.fromEntries(specs.map(([path, spec]) => [path, choose(path).state(spec)]))
}

/** Updates every parameter; state is keyed by parameter path. */
export function groupedUpdate(
  parameters: readonly (readonly [string, Tensor])[],
  gradients: ReadonlyMap<string, Tensor>,
  state: Readonly<Record<string, Readonly<Record<string, Tensor>>>>,
  count: Tensor,
  assign: (path: string) => Assignment,
  options: OptimizerOptions,
): { parameters: Map<string, Tensor>; state: Record<string, Readonly<Record<string, Tensor>>> } {
  const next = new Map<string, Tensor>()
  const nextState: Record<string, Readonly<Record<string, Tensor>>> = {}
  for (const [path, parameter] of parameters) {
    const { optimizer, lr } = assign(path)
    const updated = optimizer.update(
      parameter,
      gradients.get(path)!,
      state[path] ?? {},
      { lr, count },
      options,
    )
    next.set(path, updated.parameter)
    nextState[path] = updated.state
  }
  return { parameters: next, state: nextState }
}
