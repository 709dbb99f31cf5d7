/**
 * Recurrent networks of characters for their eras. Of 2012: the plain tanh network (Mikolov et al., Recurrent neural network
 * based language model). Of 2013 and 2015: the LSTM (Hochreiter & Schmidhuber; with forget gates, Gers et al.), since 2015
 * with a forget gate that starts open (Jozefowicz et al., An Empirical Exploration of Recurrent Network Architectures).
 *
 * State is zero where a window begins. What a step reads from its character does not wait for the state, so it is one product
 * over all time; the loop holds the rest. Two units for each of `width`, which is the size of an embedding; one layer.
 */
import { crossEntropy, full, scan, valueType, type Tensor } from '../../../compiler/index.ts'
import type { ParameterSpec } from '../../../models/language/model.ts'
import { linear } from '../../../nn/layers.ts'
import type { TextModel, TextModelSettings } from './text-model.ts'

interface Weights {
  readonly tokens: Tensor
  readonly into: Tensor
  readonly across: Tensor
  readonly bias: Tensor
  readonly head: Tensor
}

type State = Readonly<Record<'h' | 'c', Tensor>>

/** A network of `parts` gates; `next` makes the state from them, [batch, parts x hidden]. */
function recurrent(
  { vocab, width }: TextModelSettings,
  parts: number,
  next: (gates: readonly Tensor[], state: State) => State,
): TextModel {
  const hidden = 2 * width
  const matrix = (rows: [string, number], columns: [string, number]): ParameterSpec => ({
    ...valueType('f32', [rows[1], columns[1]], [rows[0], columns[0]]),
    std: 1 / Math.sqrt(rows[1]),
    hidden: true,
  })
  const gates: [string, number] = ['gates', parts * hidden]
  return {
    specs: {
      tokens: { ...matrix(['vocab', vocab], ['embed', width]), std: 1, hidden: false },
      into: matrix(['embed', width], gates),
      across: matrix(['hidden', hidden], gates),
      bias: { ...valueType('f32', [parts * hidden], ['gates']), std: 0, hidden: false },
      head: { ...matrix(['hidden', hidden], ['vocab', vocab]), hidden: false },
    },
    losses(params, tokens) {
      const weights = params as unknown as Weights
      const [batch, time] = [tokens.size('batch'), tokens.size('time') - 1]
      const x = linear(weights.tokens.take(tokens.slice('time', 0, time)), weights.into, weights.bias)
      const zero = full(0, valueType('f32', [batch, hidden], ['batch', 'hidden']))
      const [, states] = scan(
        { h: zero, c: zero },
        { x: x.transpose([1, 0, 2]) },
        (state, slice) => {
          const sum = slice.x.add(linear(state.h, weights.across))
          const each = Array.from({ length: parts }, (_, i) =>
            sum.slice('gates', i * hidden, hidden).named(['batch', 'hidden']),
          )
          const { h, c } = next(each, state)
          return [{ h, c }, { h }]
        },
        { name: 'time' },
      )
      const last = states.h.named(['time', 'batch', 'hidden']).transpose([1, 0, 2])
      return crossEntropy(linear(last, weights.head), tokens.slice('time', 1, time))
    },
  }
}

export const recurrent2012 = (settings: TextModelSettings): TextModel =>
  recurrent(settings, 1, ([sum], { c }) => ({ h: sum!.tanh(), c }))

const sigmoid = (x: Tensor): Tensor => x.mul(0.5).tanh().mul(0.5).add(0.5)

/** `open`: added to the forget gate before its sigmoid. */
const lstm =
  (open: number) =>
  (settings: TextModelSettings): TextModel =>
    recurrent(settings, 4, ([into, forget, out, candidate], { c }) => {
      const kept = sigmoid(open === 0 ? forget! : forget!.add(open)).mul(c)
      const cell = kept.add(sigmoid(into!).mul(candidate!.tanh()))
      return { h: sigmoid(out!).mul(cell.tanh()), c: cell }
    })

export const lstm2013 = lstm(0)
export const lstm2015 = lstm(1)
