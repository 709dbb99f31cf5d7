/**
 * What an architecture tells the loader: the type of every weight, as a tree whose paths are the names in the file, and
 * the forward pass over that tree. Weights of a layer are stacked: `h.ln_1.weight` [layers, embed] holds `h.0.ln_1.weight`,
 * `h.1.ln_1.weight`, … so that the layers are one `scan` and compile time does not grow with depth.
 */
import { valueType, type Tensor, type Tensors, type Tree, type ValueType } from '../../compiler/index.ts'
import type { Cache } from '../cached-layers.ts'
import type { CachedRows } from '../decoder.ts'

export interface Forward {
  /** [batch, time, vocab] */
  readonly logits: Tensor
  /** [batch, time, embed], after the last norm: what the head reads. */
  readonly final: Tensor
  /** [layers, batch, time, embed], what each block reads (the first is the embedding); when asked for. */
  readonly blockInputs?: Tensor
}

export interface ForwardOptions {
  readonly blockInputs?: boolean
}

export interface Architecture {
  /** Put before every name except the head's, in files saved with the head. */
  readonly prefix: string
  readonly weights: Tree<ValueType>
  /** Tensors some files carry that are no weights (masks, tables); matched without the prefix. */
  readonly notWeights: RegExp
  readonly forward: (parameters: Tensors, tokens: Tensor, options?: ForwardOptions) => Forward
  /** Heads of keys and values, and how wide they are: what a cache holds of each position and layer. */
  readonly cached: { readonly layers: number; readonly kvHeads: number; readonly dim: number }
  /** A token at a time, over a cache: what the last block returns. */
  readonly decode: (
    parameters: Tensors,
    cache: Cache<Tensor>,
    rows: CachedRows,
  ) => { readonly last: Tensor; readonly cache: Cache<Tensor> }
  /** What the last block returns, [..., embed], to `final` and `logits`. */
  readonly readout: (parameters: Tensors, last: Tensor) => Pick<Forward, 'final' | 'logits'>
}

/** An f32 weight by its named sizes: `weight({ vocab: 96, embed: 32 })`. */
export const weight = (sizes: Readonly<Record<string, number>>): ValueType =>
  valueType('f32', Object.values(sizes), Object.keys(sizes))

/** One tensor of the file: its name without prefix, and which slice of the stacked weight it is. */
export interface Part {
  readonly name: string
  readonly shape: readonly number[]
  readonly index: number
}

/** The tensors of the file that make up the weight at `path`: one, or one per layer. */
export function partsOf(path: string, type: ValueType): Part[] {
  if (type.axes[0] !== 'layers') return [{ name: path, shape: type.shape, index: 0 }]
  const [stack, rest] = [path.slice(0, path.indexOf('.')), path.slice(path.indexOf('.'))]
  const shape = type.shape.slice(1)
  return Array.from({ length: type.shape[0]! }, (_, index) => ({
    name: `${stack}.${index}${rest}`,
    shape,
    index,
  }))
}
