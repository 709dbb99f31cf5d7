/**
 * Optimizers as functions of one parameter: how much state it has and what one update does. `groupedUpdate` applies
 * them to a whole tree. Learning rates, schedules and bias corrections are computed in the graph from the step number,
 * so a step is one native program.
 */
import { adamw, full, muon, Tensor, valueType, type ValueType } from '../compiler/index.ts'

export interface OptimizerOptions {
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  readonly momentum: number
  readonly weightDecay: number
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

/** AdamW (Loshchilov & Hutter, Decoupled Weight Decay Regularization). */
const adam: Optimizer = {
  state: (parameter) => ({ m: like(parameter), v: like(parameter) }),
  update(parameter, gradient, { m, v }, { lr, count }, { beta1, beta2, eps, weightDecay }) {
    // 1 / (1 - beta^t), with beta^t = exp(t ln beta).
    const correction = (beta: number): Tensor => {
      const left = count.mul(Math.log(beta)).exp().neg().add(1)
      return full(1, left.type).div(left)
    }
    const [next, nextM, nextV] = adamw(
      [parameter, gradient, m!, v!, lr, correction(beta1), correction(beta2)],
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

/** Muon (Jordan et al.): for stacks of matrices [..., rows, columns]. */
const muonOptimizer: Optimizer = {
  state: (parameter) => ({ buffer: like(parameter) }),
  update(parameter, gradient, { buffer }, { lr }, { momentum, weightDecay }) {
    const [next, nextBuffer] = muon([parameter, gradient, buffer!, lr], { momentum, weightDecay })
    return { parameter: next, state: { buffer: nextBuffer } }
  },
}

export const optimizers = { sgd, momentum, adamw: adam, muon: muonOptimizer } as const satisfies Record<
  string,
  Optimizer
>
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
