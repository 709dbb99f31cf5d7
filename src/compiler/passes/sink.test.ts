/** Late barriers: what only they need moves behind them, loops are split, and neither a bit nor a FLOP changes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Graph, inGraph, reachable, type Func, type Node } from '../graph/node.ts'
import { sizeOf, valueType } from '../graph/types.ts'
import { barrier } from '../ops/barrier.ts'
import { flopsOf } from '../ops/cost.ts'
import { dotOp } from '../ops/dot.ts'
import { scanAttrs, scanOp } from '../ops/scan.ts'
import { interpret } from '../targets/reference/interpret.ts'
import { checkpoint, grad, scan, traceFunction, type Tensors } from '../trace/functions.ts'
import { Tensor } from '../trace/tensor.ts'
import type { Tree } from '../trace/tree.ts'
import { runPipeline } from './pipeline.ts'

const f64 = (shape: readonly number[]) => valueType('f64', shape)

/** The function with its barriers late, and as ordinary ones. */
function both(
  types: Tree<ReturnType<typeof f64>>,
  body: (inputs: Record<string, Tensor>, late: (x: Tensor, after: Tensor) => Tensor) => Tensors,
): { readonly late: Func; readonly usual: Func } {
  const build = (name?: string): Func =>
    runPipeline(
      inGraph(new Graph(), () =>
        traceFunction('f', types, (inputs) =>
          body(inputs as Record<string, Tensor>, (x, after) => new Tensor(barrier(x.node, after.node, name))),
        ),
      ).func,
      { precision: 'f32', recompute: 'marked', leaves: 0, claimed: () => false },
    )
  return { late: build('later'), usual: build() }
}

function assertSame({ late, usual }: { readonly late: Func; readonly usual: Func }): void {
  let seed = 7
  const random = (): number => (seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5
  const args = usual.params.map(({ shape }) => Float64Array.from({ length: sizeOf(shape) }, random))
  assert.deepEqual(interpret(late, args), interpret(usual, args))
  assert.equal(flopsOf(late), flopsOf(usual))
}

const dependsOn = (node: Node, other: Node): boolean => reachable([node]).includes(other)
const named = (func: Func, name: string): Node => func.params.find(({ attrs }) => attrs['name'] === name)!

test('work that only a late barrier needs waits for its token; shared work does not', () => {
  const funcs = both({ a: f64([3, 3]), b: f64([3, 3]), token: f64([]) }, ({ a, b, token }, late) => {
    const shared = a!.matmul(b!)
    const alone = shared.exp().matmul(b!).transpose([1, 0])
    return { now: shared.sum(), later: late(alone, token!) }
  })
  assertSame(funcs)
  const products = (func: Func): Node[] => reachable(func.results).filter(({ op }) => op === dotOp)
  const waits = (func: Func): boolean[] =>
    products(func).map((product) => dependsOn(product, named(func, 'token')))
  assert.deepEqual(waits(funcs.usual), [false, false])
  assert.deepEqual(waits(funcs.late), [false, true])
})

const stack = { x: f64([2, 4]), w: f64([3, 4, 4]), v: f64([3, 4, 4]), shared: f64([4, 4]), token: f64([]) }

for (const recomputed of [false, true]) {
  test(`a backward loop is split in two${recomputed ? ', recomputed values and all' : ''}`, () => {
    const funcs = both(stack, ({ x, w, v, shared, token }, late) => {
      const layer = (h: Tensor, w: Tensor, v: Tensor): Tensor =>
        h.add(h.matmul(w).tanh().matmul(shared!).square().matmul(v))
      const [{ h }] = scan({ h: x! }, { w: w!, v: v! }, ({ h }, { w, v }) => [
        { h: recomputed ? checkpoint(({ h, w, v }) => layer(h!, w!, v!), { h, w, v }) : layer(h, w, v) },
        {},
      ])
      const parts = grad(h.square().sum(), { x: x!, w: w!, v: v!, shared: shared! })
      return {
        dx: parts.x,
        dw: late(parts.w, token!),
        dv: late(parts.v, token!),
        dShared: late(parts.shared, token!),
      }
    })
    assertSame(funcs)
    const loops = reachable(funcs.late.results).filter(({ op }) => op === scanOp)
    const [, now, later] = loops
    assert.equal(loops.length, 3)
    const token = named(funcs.late, 'token')
    assert.ok(!dependsOn(now!, token) && dependsOn(later!, token))
    const products = (loop: Node): number =>
      reachable(scanAttrs(loop).body.results).filter(({ op }) => op === dotOp).length
    const again = recomputed ? 2 : 0
    assert.deepEqual([products(now!), products(later!)], [3 + again, 3])
    // The first carries the gradient of x; the second the sum of what each layer adds to the shared weights.
    assert.deepEqual([scanAttrs(now!).numCarries, scanAttrs(later!).numCarries], [1, 1])
  })
}

test('a loop whose gradients of weights are wanted at once stays one', () => {
  const funcs = both(stack, ({ x, w, token }, late) => {
    const [{ h }] = scan({ h: x! }, { w: w! }, ({ h }, { w }) => [{ h: h.matmul(w).tanh() }, {}])
    const parts = grad(h.sum(), { x: x!, w: w! })
    return { dx: late(parts.x, token!), dw: parts.w }
  })
  assertSame(funcs)
  assert.equal(reachable(funcs.late.results).filter(({ op }) => op === scanOp).length, 2)
})
