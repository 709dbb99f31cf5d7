/**
 * A mixture of experts in place of the MLP (Shazeer et al., Outrageously Large Neural Networks): a router scores the
 * experts for every token, the `topK` best work on it, and their results are added by score. Nothing is dropped unless a
 * capacity is set. Shared experts, if any, are one MLP that every token passes.
 *
 * Two ways to keep the load even. `loss` adds E * sum f_e P_e to what is minimised (Fedus et al., Switch Transformers).
 * `bias` adds a number to each expert's score *for the choice alone* and moves it by a fixed rate against the load after
 * every step (Wang et al., Auxiliary-Loss-Free Load Balancing); it is training state without a gradient. Both need
 * nothing but sums over tokens, so that sharing tokens out changes nothing.
 */
import { full, groupedDot, groupRank, oneHot, pick, topk, where, type Tensor } from '../../compiler/index.ts'
import { linear } from '../../nn/layers.ts'
import type { LanguageConfig } from './config.ts'

export type ExpertConfig = LanguageConfig['model']

/** The weights of one layer: `up` and `down` hold a matrix for each expert. */
export type ExpertWeights<T> = {
  readonly up: T
  readonly down: T
  /** [embed, router]: scores of experts from tokens. */
  readonly router?: T
  /** [router]: what the step adds to scores for the choice, to even the load. */
  readonly bias?: T
  readonly shared?: { readonly up: T; readonly down: T }
}

/** What routing did, [expert] each: sums over all tokens. */
export type Routing = {
  /** How many choices fell on each expert. */
  readonly load: Tensor
  /** Scores that each expert got, each token's adding up to 1. */
  readonly importance: Tensor
}

/** The most tokens an expert takes of `tokens`; the rest of its choices are dropped. */
export const capacityOf = ({ capacity, topK, experts }: ExpertConfig, tokens: number): number =>
  Math.ceil((capacity * topK * tokens) / experts)

/**
 * x [batch, time, embed] through the experts of each token. `limited`: whether the capacity, if there is one, counts;
 * only in training, where what a token gets may depend on the others.
 */
export function mixture(
  x: Tensor,
  w: ExpertWeights<Tensor>,
  config: ExpertConfig,
  activation: (hidden: Tensor) => Tensor,
  limited: boolean,
): { readonly y: Tensor; readonly routing: Routing } {
  const { experts, topK, routing, capacity } = config
  // Every rank that shares out experts has the whole router: it is small, and so are its scores.
  const logits = linear(x, w.router!).named([...x.axes.slice(0, -1), 'expert'])
  const scores = routing === 'softmax' ? softmax(logits) : sigmoid(logits)
  const { indices } = topk(w.bias ? scores.add(w.bias.named(['expert'])) : scores, topK)
  const chosen = indices.named([...x.axes.slice(0, -1), 'choice'])
  const weights = normalised(pick(scores, chosen), topK)
  const places = limited && capacity > 0 ? withinCapacity(chosen, config) : chosen

  const eachChoice = x
    .reshape([...x.shape.slice(0, -1), 1, x.size('embed')], ['batch', 'time', 'choice', 'embed'])
    .broadcastTo({ shape: [...chosen.shape, x.size('embed')], axes: [...chosen.axes, 'embed'] })
  const active = activation(groupedDot(eachChoice, places, w.up))
  // Scores first: what goes back to a token is then one sum, and its gradient comes as one row.
  const y = groupedDot(active.mul(weights), places, w.down).sum('choice')
  const total = w.shared ? y.add(linear(activation(linear(x, w.shared.up)), w.shared.down)) : y

  const shares = routing === 'softmax' ? scores : scores.div(scores.sum('expert', true))
  const load = oneHot(chosen, experts, 'expert').cast(x.dtype).sum(['batch', 'time', 'choice'])
  return { y: total, routing: { load, importance: shares.sum(['batch', 'time']) } }
}

/** Group numbers with those beyond an expert's capacity outside all groups; earlier tokens come first. */
function withinCapacity(chosen: Tensor, config: ExpertConfig): Tensor {
  const { experts, topK } = config
  const tokens = chosen.shape.reduce((a, b) => a * b, 1) / topK
  return where(groupRank(chosen, experts).less(capacityOf(config, tokens)), chosen, experts)
}

/** Scores of the chosen experts so that they add up to 1; of one alone, the score itself, or the router would learn nothing. */
const normalised = (scores: Tensor, topK: number): Tensor =>
  topK === 1 ? scores : scores.div(scores.sum('choice', true))

function softmax(x: Tensor): Tensor {
  const raised = x.sub(x.maxOver('expert', true)).exp()
  return raised.div(raised.sum('expert', true))
}

const sigmoid = (x: Tensor): Tensor => full(1, x.type).div(x.neg().exp().add(1))

/**
 * E * the sum over experts of f P, added up over layers: f is the fraction of choices that fell on an expert, P its mean
 * score. 1 a layer when either is even; more when the same experts have much of both.
 */
export function balanceLoss({ load, importance }: Routing, { experts }: ExpertConfig): Tensor {
  const fraction = load.div(load.sum('expert', true))
  const mean = importance.div(importance.sum('expert', true))
  return fraction.mul(mean).sum().mul(experts)
}

/** The bias after a step: raised by the rate where the load is below its mean, lowered where it is above. */
export function movedBias(bias: Tensor, chosen: Tensor, rate: number): Tensor {
  const load = chosen.named(bias.axes)
  const mean = load.mean(-1, true).broadcastTo(load.type)
  const down = where(mean.less(load), -rate, 0)
  return bias.add(where(load.less(mean), rate, down))
}

/** How much more than its even share the busiest expert got, as a mean over layers: 1 is even. `load` [layer, expert]. */
export const imbalance = (load: Tensor): Tensor => load.maxOver('expert').div(load.mean('expert')).mean()
