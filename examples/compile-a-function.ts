/**
 * A function of tensors compiled to native code: what it computes, costs and needs is known before it runs.
 * Run it with `npx node examples/compile-a-function.ts`. In a project of your own, import from 'anneal'.
 */
import { compile, f32, gelu, grad } from '../src/index.ts'

const rows = 64
const program = await compile(
  ({ x, w }) => {
    const y = gelu(x.matmul(w)).square().mean()
    return { y, dw: grad(y, w) }
  },
  { x: f32([rows, 32], ['row', 'in']), w: f32([32, 16], ['in', 'out']) },
  { name: 'gelu-layer' },
)

console.log(`${program.flops} FLOPs a run, ${program.memory.arenaBytes} bytes of memory`)
console.log(`${program.source.split('\n').length} lines of C`)

const x = Float32Array.from({ length: rows * 32 }, (_, i) => Math.sin(i))
const w = Float32Array.from({ length: 32 * 16 }, (_, i) => Math.cos(i) / 8)
await program.run({ x, w })
const before = program.view('y')[0]!
const dw = program.view('dw').slice()

// The gradient is right when a small step against it lowers the result by what it promises.
const step = 1e-2
let promised = 0
for (const [i, g] of dw.entries()) {
  w[i]! -= step * g
  promised += step * g * g
}
await program.run({ w })
const got = before - program.view('y')[0]!
console.log(`a step down the gradient: promised ${promised.toExponential(2)}, got ${got.toExponential(2)}`)
if (Math.abs(got - promised) > 0.05 * promised) throw new Error('the gradient is wrong')
program.close()
