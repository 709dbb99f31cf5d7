/**
 * A training loop written by hand: parameters and Adam's moments live in the program as state, updated in place, so a
 * step is one native call. Run it with `npx node examples/linear-regression.ts`. In a project of your own, import from
 * 'anneal'.
 */
import { adamw, compile, f32, full, grad } from '../src/index.ts'

const samples = 256
const scalar = f32([])
const weights = f32([3])
const options = { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0 }

const program = await compile(
  ({ state, x, y }) => {
    const { count, w, m, v } = state
    const loss = x
      .matmul(w.reshape([3, 1]))
      .reshape([samples])
      .sub(y)
      .square()
      .mean()
    const next = count.add(1)
    // 1 / (1 - beta^t), with beta^t = exp(t ln beta): undoes the moments' bias towards their start at zero.
    const correction = (beta: number) => full(1, scalar).div(next.mul(Math.log(beta)).exp().neg().add(1))
    const inputs = [
      w,
      grad(loss, w),
      m,
      v,
      full(0.05, scalar),
      correction(options.beta1),
      correction(options.beta2),
    ]
    const [nextW, nextM, nextV] = adamw(inputs, options)
    return { loss, state: { count: next, w: nextW, m: nextM, v: nextV } }
  },
  { state: { count: scalar, w: weights, m: weights, v: weights }, x: f32([samples, 3]), y: f32([samples]) },
  { name: 'linear-regression' },
)

// y = 2 a - b + 0.5, from inputs (a, b, 1).
const x = new Float32Array(samples * 3)
const y = new Float32Array(samples)
for (let i = 0; i < samples; i++) {
  const [a, b] = [Math.sin(i), Math.cos(3 * i)]
  x.set([a, b, 1], i * 3)
  y[i] = 2 * a - b + 0.5
}
program.write('x', x)
program.write('y', y)
for (let step = 1; step <= 400; step++) {
  await program.run()
  if (step % 100 === 0) console.log(`step ${step}  loss ${program.view('loss')[0]!.toExponential(2)}`)
}
const found = Array.from(program.view('state.w'), (value) => value.toFixed(2))
console.log(`w = [${found.join(', ')}], expected [2.00, -1.00, 0.50]`)
if (found.join() !== '2.00,-1.00,0.50') throw new Error('did not converge')
program.close()
