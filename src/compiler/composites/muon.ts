/**
 * One Muon update (Jordan et al., Muon: An optimizer for hidden layers in neural networks): Nesterov momentum, then the
 * update is replaced by the nearest semi-orthogonal matrix through five quintic Newton-Schulz steps. Parameters are
 * stacks of matrices [..., in, out]; each matrix is orthogonalised on its own.
 */
import { valueType } from '../graph/types.ts'
import { Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

const coefficients = [3.4445, -4.775, 2.0315] as const
const steps = 5

export const muonComposite: Composite = {
  name: 'muon',
  doc: 'Muon update: (parameter, gradient, momentum buffer, lr) to (parameter, momentum buffer)',
  body([parameter, gradient, buffer, lr], options) {
    const { momentum, weightDecay } = options as { momentum: number; weightDecay: number }
    const nextBuffer = buffer!.mul(momentum).add(gradient!.mul(1 - momentum))
    const nesterov = gradient!.mul(1 - momentum).add(nextBuffer.mul(momentum))
    const [rows, columns] = parameter!.shape.slice(-2) as [number, number]
    // Jordan's rule for a weight [out, in], sqrt(max(1, out / in)), in our layout [in, out].
    const scale = Math.sqrt(Math.max(1, columns / rows))
    const decayed = weightDecay === 0 ? parameter! : parameter!.sub(parameter!.mul(lr!.mul(weightDecay)))
    const update = orthogonalise(nesterov).mul(lr!.mul(scale))
    return [decayed.sub(update), nextBuffer]
  },
  samples: () => {
    const scalar = valueType('f64', [])
    return [
      [3, 4],
      [5, 3],
      [2, 3, 3],
    ].map((shape) => ({
      inputs: [valueType('f64', shape), valueType('f64', shape), valueType('f64', shape), scalar],
      options: { momentum: 0.95, weightDecay: 0.1 },
      ranges: [
        [-1, 1],
        [-1, 1],
        [-1, 1],
        [0.01, 0.1],
      ] as const,
    }))
  },
}

/** Newton-Schulz iteration on each matrix of a stack; works on the side with fewer rows. */
function orthogonalise(update: Tensor): Tensor {
  const [rows, columns] = update.shape.slice(-2) as [number, number]
  const batch = update.shape.slice(0, -2).map((_, i) => `stack${i}`)
  const tall = rows > columns
  let x = update.named([...batch, ...(tall ? ['column', 'row'] : ['row', 'column'])])
  const norm = x.square().sum(['row', 'column'], true).sqrt().add(1e-7)
  x = x.div(norm)
  const [a, b, c] = coefficients
  for (let i = 0; i < steps; i++) {
    // A = X Xᵀ over the longer axis, then X <- aX + (bA + cA²)X.
    const gram = x.dot(x.rename({ row: 'other' }), 'column')
    const square = gram.dot(gram.rename({ row: 'other', other: 'next' }), 'other').rename({ next: 'other' })
    const mixed = gram.mul(b).add(square.mul(c))
    const moved = mixed
      .dot(x.rename({ row: 'other' }), 'other')
      .transpose([...batch, ...(tall ? ['column', 'row'] : ['row', 'column'])])
    x = x.mul(a).add(moved)
  }
  return x.named(update.axes)
}

export interface MuonOptions {
  readonly momentum: number
  readonly weightDecay: number
}

export function muon(inputs: readonly Tensor[], options: MuonOptions): [Tensor, Tensor] {
  return invoke(muonComposite, inputs, { ...options }) as [Tensor, Tensor]
}
