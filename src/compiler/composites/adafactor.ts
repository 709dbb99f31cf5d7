/**
 * One Adafactor update (Shazeer & Stern, Adafactor: Adaptive learning rates with sublinear memory cost). Of the second
 * moment of a matrix only the means of its rows and of its columns are kept; their outer product, divided by the mean of
 * all, stands for it. The update is clipped where its root mean square passes 1. Parameters are stacks of matrices
 * [..., rows, columns], each on its own; anything with fewer axes keeps its whole second moment.
 */
import { valueType } from '../graph/types.ts'
import type { Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

/** Added to squares so that nothing divides by 0, and the least size that a relative step takes a parameter for. */
const [squareFloor, sizeFloor] = [1e-30, 1e-3]

export interface AdafactorOptions {
  readonly weightDecay: number
  /** The step is lr times the root mean square of the parameter (at least 0.001), instead of lr. */
  readonly relative: boolean
}

export const adafactorComposite: Composite = {
  name: 'adafactor',
  doc: 'Adafactor update: (parameter, gradient, lr, share of the new gradient, rows, columns) to (parameter, rows, columns); vectors keep (second moment)',
  body([parameter, gradient, lr, share, ...kept], options) {
    const { weightDecay, relative } = options as unknown as AdafactorOptions
    const square = gradient!.square().add(squareFloor)
    const mixed = (old: Tensor, now: Tensor): Tensor => old.add(now.sub(old).mul(share!))
    const matrices = kept.length === 2
    const next = matrices
      ? [mixed(kept[0]!, square.mean(-1)), mixed(kept[1]!, square.mean(-2))]
      : [mixed(kept[0]!, square)]
    const update = gradient!.mul(matrices ? factored(next[0]!, next[1]!) : next[0]!.rsqrt())
    const axes = matrices ? [-2, -1] : parameter!.shape.map((_, axis) => axis)
    const rms = (x: Tensor): Tensor => x.square().mean(axes, true).sqrt()
    const clipped = update.div(rms(update).max(1))
    const step = relative ? clipped.mul(rms(parameter!).max(sizeFloor)) : clipped
    const decayed = weightDecay === 0 ? parameter! : parameter!.sub(parameter!.mul(lr!.mul(weightDecay)))
    return [decayed.sub(step.mul(lr!)), ...next]
  },
  samples: () => {
    const [scalar, range] = [valueType('f64', []), [0.1, 1] as const]
    const sample = (shape: number[], kept: number[][], relative: boolean) => ({
      inputs: [valueType('f64', shape), valueType('f64', shape), scalar, scalar].concat(
        kept.map((shape) => valueType('f64', shape)),
      ),
      options: { weightDecay: relative ? 0 : 0.1, relative },
      ranges: [[-1, 1] as const, [0.2, 1] as const, [0.01, 0.1] as const, range, ...kept.map(() => range)],
    })
    return [
      sample([3, 4], [[3], [4]], false),
      sample(
        [2, 3, 5],
        [
          [2, 3],
          [2, 5],
        ],
        true,
      ),
      sample([6], [[6]], true),
    ]
  },
}

/** One over the square root of the estimate; as two factors, since their product may be too small for a float. */
function factored(rows: Tensor, columns: Tensor): Tensor {
  const whole = rows.mean(-1, true)
  const [down, across] = [rows.div(whole).rsqrt(), columns.rsqrt()]
  return down
    .reshape([...rows.shape, 1])
    .mul(across.reshape([...columns.shape.slice(0, -1), 1, columns.shape.at(-1)!]))
}

/** Returns the next parameter and what is kept: rows and columns, or the second moment. */
export const adafactor = (inputs: readonly Tensor[], options: AdafactorOptions): Tensor[] =>
  invoke(adafactorComposite, inputs, { ...options })
