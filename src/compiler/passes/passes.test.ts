/**
 * The passes against what they promise: gradients through loops, nested loops and recomputed regions against
 * differences; recomputation trades FLOPs for memory and not one bit; accumulated gradients are those of the big batch;
 * simplification changes no value; the precision policy rounds the operands of products and nothing else; the checker
 * finds what is broken. Programs that C must run as well share one compilation.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { InternalError } from '../../errors.ts'
import { compile } from '../compile.ts'
import { gelu } from '../composites/gelu.ts'
import { rmsNorm } from '../composites/norm.ts'
import { silu } from '../composites/silu.ts'
import { bodyOf, Func, Graph, inGraph, Node, reachable, sourceOf } from '../graph/node.ts'
import { roundTo } from '../graph/round.ts'
import { sizeOf, valueType, type ValueType } from '../graph/types.ts'
import { addOp } from '../ops/add.ts'
import { flopsOf } from '../ops/cost.ts'
import { input } from '../ops/input.ts'
import { scanAttrs } from '../ops/scan.ts'
import { inputRanges, randomInputs, randomProgram } from '../random-graph.ts'
import { uniformPick } from '../random-samples.ts'
import { interpret } from '../targets/reference/interpret.ts'
import {
  draw,
  gradientError,
  inFreshGraph,
  plainPolicies,
  runCases,
  worstError,
  type Case,
} from '../testing.ts'
import { checkpoint, grad, scan, traceFunction } from '../trace/functions.ts'
import { full, iota, Tensor, where, zerosLike } from '../trace/tensor.ts'
import type { Tree } from '../trace/tree.ts'
import { check } from './check.ts'
import { inline } from './inline.ts'
import { pipeline, runPipeline } from './pipeline.ts'
import { precision } from './precision.ts'
import { simplify } from './simplify.ts'
import { stackOnce } from './stack-once.ts'

type Tensors = Record<string, Tensor>

const f64 = (...shape: number[]): ValueType => valueType('f64', shape)
const f32 = (...shape: number[]): ValueType => valueType('f32', shape)

const trace = (types: Tree<ValueType>, body: (inputs: Tensors) => Tensors): Func =>
  inFreshGraph(() => traceFunction('main', types, (inputs) => body(inputs as Tensors))).func

const pass = (run: (func: Func) => Func, func: Func): Func => inGraph(new Graph(), () => run(func))

/** Every node of a function and of the bodies it carries. */
function allNodes(func: Func): Node[] {
  const own = reachable([...func.params, ...func.results])
  const bodies = own.map(bodyOf).filter((body) => body !== undefined)
  return own.concat(bodies.flatMap(allNodes))
}

const countOf = (func: Func, op: string): number =>
  allNodes(func).filter((node) => node.op.name === op).length

const drawAll = (func: Func, seed: number): Float64Array[] =>
  func.params.map((param, i) => draw(param.type, seed * 16 + i, [-1, 1]))

// ---- gradients through structure -----------------------------------------------------------------------------------

const one = (name: string, types: readonly ValueType[], build: Case['build']): Case => ({
  name,
  types,
  data: types.map((type, i) => draw(type, 5 + i, type.dtype === 'i32' ? [0, 3] : [-1, 1])),
  build,
})

/** h <- tanh(h w), layer by layer; also every h. */
const layers = (x: Tensor, w: Tensor, options: { reverse?: boolean } = {}): [Tensor, Tensor] => {
  const [last, all] = scan(
    x,
    w,
    (h, m) => {
      const next = h.matmul(m).tanh()
      return [next, next.mul(h)] as const
    },
    options,
  )
  return [last, all]
}

const structures: readonly Case[] = [
  one('a loop', [f64(2, 3), f64(4, 3, 3)], ([x, w]) => layers(x!, w!)),
  one('a loop from the end', [f64(2, 3), f64(4, 3, 3)], ([x, w]) => layers(x!, w!, { reverse: true })),
  one('only the last carry', [f64(2, 3), f64(4, 3, 3)], ([x, w]) => [layers(x!, w!)[0]]),
  one('only the slices out', [f64(2, 3), f64(4, 3, 3)], ([x, w]) => [layers(x!, w!)[1]]),
  one('a loop of one step', [f64(2, 3), f64(1, 3, 3)], ([x, w]) => layers(x!, w!)),
  one('a captured weight', [f64(4, 3), f64(3, 3)], ([xs, w]) => {
    const [last] = scan(
      full(0.5, f64(3)),
      xs!,
      (h, x) => [h.add(x).reshape([1, 3]).matmul(w!).reshape([3]).sin(), {}] as const,
    )
    return [last]
  }),
  one('a captured product, hoisted', [f64(4, 3), f64(3)], ([xs, w]) => {
    const [last] = scan(full(0, f64(3)), xs!, (h, x) => [h.mul(w!.exp()).add(x), {}] as const)
    return [last]
  }),
  one('several carries of several types', [f64(5, 3)], ([xs]) => {
    const start = { h: full(1, f64(3)), step: full(0, valueType('i32', [])), unused: full(2, f64(2)) }
    const [last, ys] = scan(start, xs!, ({ h, step, unused }, x) => {
      const odd = step.mod(2).equal(1)
      const next = { h: where(odd, h.mul(x), h.add(x)), step: step.add(1), unused }
      return [next, { h: h.mul(step.cast('f64')) }] as const
    })
    return [last.h, last.unused, ys.h]
  }),
  one('a loop in a loop', [f64(3, 2, 4), f64(4)], ([xs, w]) => {
    const [last, rows] = scan(full(0.1, f64(4)), xs!, (outer, x) => {
      const [inner, ys] = scan(outer, x, (h, row) => {
        const next = h.mul(row).add(w!).tanh()
        return [next, next.sum()] as const
      })
      return [inner.add(outer), ys] as const
    })
    return [last, rows]
  }),
  one('rows of a table in a loop', [f64(3, 4), valueType('i32', [5])], ([table, index]) => {
    const [last] = scan(full(1, f64(4)), index!, (h, row) => [h.mul(table!.take(row)).cos(), {}] as const)
    return [last]
  }),
  one('composites in a loop', [f64(2, 4), f64(3, 4, 4)], ([x, w]) => {
    const [last] = scan(x!, w!, (h, m) => [h.add(silu(rmsNorm(h).matmul(m))), {}] as const)
    return [last]
  }),
  one('a checkpoint in a loop', [f64(2, 4), f64(3, 4, 4)], ([x, w]) => {
    const layer = ({ h, m }: { h: Tensor; m: Tensor }): Tensor => gelu(h.matmul(m)).add(h)
    const [last] = scan(x!, w!, (h, m) => [checkpoint(layer, { h, m }), {}] as const)
    return [last]
  }),
  one('a loop in a checkpoint', [f64(2, 3), f64(2, 3, 3)], ([x, w]) => [
    checkpoint(({ h, m }: { h: Tensor; m: Tensor }) => layers(h, m)[0], { h: x!, m: w! }),
  ]),
  one('a checkpoint that captures', [f64(2, 3), f64(3, 3)], ([x, w]) => [
    checkpoint(({ h }: { h: Tensor }) => h.matmul(w!).exp().mul(h), { h: x! }),
  ]),
  one('a value that is used twice, once behind a loop', [f64(3), f64(4, 3)], ([x, xs]) => {
    const y = x!.exp()
    const [last] = scan(y, xs!, (h, row) => [h.add(row).mul(y), {}] as const)
    return [last.mul(y)]
  }),
]

for (const structure of structures) {
  test(`gradient through ${structure.name} equals differences`, () => {
    const error = gradientError(structure)
    assert.ok(error < 1e-6, `error ${error}`)
  })
}

test('second derivatives through a loop equal differences', () => {
  for (const structure of structures.slice(0, 3)) {
    const error = gradientError(structure, { order: 2 })
    assert.ok(error < 1e-6, `${structure.name}: error ${error}`)
  }
})

/** A case that returns its results and the gradient of their sum. */
const withGradient = (structure: Case): Case => ({
  ...structure,
  name: structure.name.replaceAll(/\W+/g, '_'),
  build: (inputs) => {
    const results = structure.build(inputs)
    const loss = results.map((y) => y.square().sum()).reduce((a, b) => a.add(b))
    const variables = Object.fromEntries(inputs.flatMap((x, i) => (x.dtype === 'f64' ? [[`x${i}`, x]] : [])))
    return [...results, ...Object.values(grad(loss, variables))]
  },
})

test('the same loops and gradients in C, recomputing or not, and their FLOPs', async () => {
  const cases = structures.map(withGradient)
  const reference = await runCases(cases, { target: 'reference' })
  for (const recompute of [false, true]) {
    const { program, results } = await runCases(cases, {
      threads: 2,
      recompute,
      checking: true,
      name: 'structures',
    })
    for (const { name } of cases) {
      results.get(name)!.forEach((got, i) => {
        const error = worstError(got, reference.results.get(name)![i]!)
        assert.ok(error <= 1e-12, `${name}, result ${i}, recompute ${recompute}: error ${error}`)
      })
    }
    assert.equal(program.countedFlops(), program.flops)
  }
})

// ---- recomputation -------------------------------------------------------------------------------------------------

const deepLayer = ({ h, w }: { h: Tensor; w: Tensor }): Tensor => gelu(rmsNorm(h).matmul(w)).add(h)

/** Residual layers, each marked; loss and gradients. */
const deep = ({ x, ...weights }: Tensors): Tensors => {
  const output = Object.values(weights).reduce((h, w) => checkpoint(deepLayer, { h, w }), x!)
  const loss = output.square().mean()
  return { loss, ...grad(loss, { x: x!, ...weights }) }
}

const deepTypes = (
  dtype: 'f64' | 'f32',
  numLayers: number,
  rows: number,
  width: number,
): Record<string, ValueType> => ({
  x: valueType(dtype, [rows, width]),
  ...Object.fromEntries(
    Array.from({ length: numLayers }, (_, i) => [`w${i}`, valueType(dtype, [width, width])]),
  ),
})

test('recomputation changes no bit in the reference, and costs the forward FLOPs of what it repeats', () => {
  const types = deepTypes('f64', 3, 4, 6)
  const func = trace(types, deep)
  const kept = runPipeline(func, plainPolicies)
  const again = runPipeline(func, { ...plainPolicies, recompute: 'marked' })
  const data = drawAll(func, 3)
  assert.deepEqual(interpret(again, data), interpret(kept, data))
  const forward = runPipeline(
    trace(types, (xs) => ({ loss: deep(xs)['loss']! })),
    plainPolicies,
  )
  const extra = flopsOf(again) - flopsOf(kept)
  assert.ok(extra > 0.5 * flopsOf(forward) && extra < flopsOf(forward), `${extra} of ${flopsOf(forward)}`)
  assert.ok(countOf(again, 'barrier') > 0)
  assert.equal(countOf(kept, 'barrier'), 0)
})

test('recomputation needs less memory on a deep program, and gives the same gradients in C', async () => {
  const types = deepTypes('f32', 12, 64, 32)
  const results: Map<string, ArrayLike<number>>[] = []
  const memory: number[] = []
  for (const recompute of [false, true]) {
    const program = await compile<Record<string, ValueType>>(deep, types, {
      threads: 2,
      recompute,
      name: 'deep',
    })
    Object.entries(types).forEach(([name, type], i) => program.write(name, draw(type, i, [-0.3, 0.3])))
    await program.run()
    results.push(new Map([...program.outputs.keys()].map((path) => [path, program.view(path).slice()])))
    memory.push(program.memory.temporaryBytes)
    program.close()
  }
  assert.ok(memory[1]! < 0.33 * memory[0]!, `${memory[1]} bytes, ${memory[0]} without recomputation`)
  for (const [path, want] of results[0]!) assert.ok(worstError(results[1]!.get(path)!, want) < 1e-6, path)
})

// ---- gradient accumulation -----------------------------------------------------------------------------------------

const lossOf = (x: Tensor, w: Tensor): Tensor => x.matmul(w).tanh().square().mean()

test('gradients accumulated over microbatches in a loop are those of one big batch', async () => {
  const types = { x: f64(12, 5), w: f64(5, 4) }
  const big = trace(types, ({ x, w }) => ({ dw: grad(lossOf(x!, w!), { w: w! }).w }))
  const accumulated = trace(types, ({ x, w }) => {
    const [sum] = scan(
      zerosLike(w!),
      x!.reshape([4, 3, 5]),
      (total, part) => [total.add(grad(lossOf(part, w!), { w: w! }).w.mul(1 / 4)), {}] as const,
    )
    return { dw: sum }
  })
  const data = drawAll(big, 9)
  const [want] = interpret(runPipeline(big, plainPolicies), data)
  const [got] = interpret(runPipeline(accumulated, plainPolicies), data)
  assert.ok(worstError(got!, want!) < 1e-14)
  assert.ok(want!.some((x) => Math.abs(x) > 1e-3))
})

test('a gradient inside a loop may itself be differentiated through the loop', () => {
  // One step of gradient descent a row: the learned start, differentiated through the descent.
  const descent = one('descent', [f64(4, 3), f64(3)], ([xs, start]) => {
    const [last] = scan(start!, xs!, (w, x) => {
      const loss = x.mul(w).sum().square()
      return [w.sub(grad(loss, { w }).w.mul(0.1)), {}] as const
    })
    return [last]
  })
  assert.ok(gradientError(descent) < 1e-6)
})

test('what does not depend on a loop is computed once, outside of it', () => {
  const types = { xs: f64(10, 4), w: f64(4) }
  const func = runPipeline(
    trace(types, ({ xs, w }) => {
      const [sum] = scan(full(0, f64(4)), xs!, (total, x) => [total.add(x.mul(w!.exp())), {}] as const)
      return { sum }
    }),
    plainPolicies,
  )
  assert.equal(flopsOf(func), 4 + 10 * (4 + 4))
})

test('a gradient with respect to what the loss does not use is zero', () => {
  const func = trace({ x: f64(3), y: f64(2) }, ({ x, y }) => grad(x!.exp().sum(), { x: x!, y: y! }))
  const [dx, dy] = interpret(runPipeline(func, plainPolicies), [
    Float64Array.of(0, 1, 2),
    Float64Array.of(7, 8),
  ])
  assert.ok(worstError(dx!, [0, 1, 2].map(Math.exp)) < 1e-15)
  assert.deepEqual(dy, Float64Array.of(0, 0))
})

test('an op without a gradient says so', () => {
  const func = trace({ x: f64(3) }, ({ x }) => grad(x!.mod(2).sum(), { x: x! }))
  assert.throws(() => runPipeline(func, plainPolicies), {
    name: 'InternalError',
    message: /mod .* has no gradient/,
  })
})

// ---- simplify ------------------------------------------------------------------------------------------------------

test('simplify changes no value of random programs', () => {
  let removed = 0
  fc.assert(
    fc.property(fc.nat(1e6), (seed) => {
      const types = randomInputs(uniformPick(seed))
      const tree = Object.fromEntries(types.map((type, i) => [`x${i}`, type]))
      const func = trace(tree, (xs) =>
        Object.fromEntries(
          randomProgram(uniformPick(seed + 1), Object.values(xs), 14).map((y, i) => [`y${i}`, y]),
        ),
      )
      const simpler = pass(simplify, func)
      check(simpler, 'simplify')
      const data = types.map((type, i) => draw(type, seed + i, inputRanges[i]))
      const [got, want] = [interpret(simpler, data), interpret(func, data)]
      got.forEach((y, i) => assert.equal(worstError(y, want[i]!), 0, `result ${i}`))
      removed += allNodes(func).length - allNodes(simpler).length
      assert.ok(flopsOf(simpler) <= flopsOf(func))
    }),
    { numRuns: 60, seed: 5 },
  )
  assert.ok(removed > 50, `${removed} nodes removed`)
})

const rules: readonly (readonly [what: string, build: (x: Tensor) => Tensor, left: string[]])[] = [
  ['x + 0', (x) => x.add(0), []],
  ['0 + x', (x) => zerosLike(x).add(x), []],
  ['x * 1', (x) => x.mul(1), []],
  ['1 * x', (x) => full(1, x.type).mul(x), []],
  ['x / 1', (x) => x.div(full(1, x.type)), []],
  ['-(-x)', (x) => x.neg().neg(), []],
  ['a choice by a constant', (x) => where(full(0, valueType('bool', [2, 3])), x.exp(), x), []],
  ['a reshape of a reshape', (x) => x.reshape([6]).reshape([2, 3]), []],
  ['a transpose of a transpose', (x) => x.transpose().transpose(), []],
  [
    'a broadcast of a broadcast',
    (x) =>
      x
        .slice(0, 0, 1)
        .slice(1, 0, 1)
        .broadcastTo({ shape: [2, 1], axes: [] })
        .broadcastTo({ shape: [2, 3], axes: [] }),
    ['broadcast', 'slice', 'slice'],
  ],
  ['arithmetic of constants', (x) => x.mul(full(2, x.type).add(3).exp()), ['broadcast', 'constant', 'mul']],
  ['x * 0, which stays: x may be infinite', (x) => x.mul(0), ['broadcast', 'constant', 'mul']],
]

for (const [what, build, left] of rules) {
  test(`simplify: ${what}`, () => {
    const func = pass(
      simplify,
      trace({ x: f64(2, 3) }, ({ x }) => ({ y: build(x!) })),
    )
    const names = allNodes(func)
      .map((node) => node.op.name)
      .filter((name) => name !== 'input')
    assert.deepEqual(names.toSorted(), left)
  })
}

test('equal expressions are one node, and dead ones none', () => {
  const func = trace({ x: f64(3) }, ({ x }) => {
    x!.sin()
    return { y: x!.exp().add(x!.exp()) }
  })
  assert.deepEqual(
    allNodes(pass(simplify, func)).map((node) => node.op.name),
    ['input', 'exp', 'add'],
  )
})

// ---- inline, precision, pipeline, checker --------------------------------------------------------------------------

test('inline replaces composites by their bodies, also inside loops, except those claimed', () => {
  const func = trace({ x: f64(2, 4), w: f64(3, 4, 4) }, ({ x, w }) => {
    const [last] = scan(x!, w!, (h, m) => [silu(rmsNorm(h.matmul(m))), {}] as const)
    return { y: gelu(last) }
  })
  assert.equal(countOf(func, 'call'), 3)
  const all = pass((f) => inline(f, () => false), func)
  assert.equal(countOf(all, 'call'), 0)
  const but = pass((f) => inline(f, (name) => name === 'silu'), func)
  const calls = allNodes(but).filter((node) => node.op.name === 'call')
  assert.deepEqual(
    calls.map((node) => node.attrs['composite']),
    ['silu'],
  )
  const data = drawAll(func, 4)
  for (const other of [all, but]) {
    assert.equal(flopsOf(other), flopsOf(func))
    assert.deepEqual(interpret(other, data), interpret(func, data))
  }
})

const network = ({ x, w, v }: Tensors): Tensors => {
  const loss = x!.matmul(w!).tanh().matmul(v!).square().mean()
  return { loss, ...grad(loss, { dw: w!, dv: v! }) }
}

const isCarry = (loop: Node, param: Node): boolean => {
  const { body, numConstants, numCarries } = scanAttrs(loop)
  const at = body.params.indexOf(param)
  return at >= numConstants && at < numConstants + numCarries
}

for (const [policy, half] of [
  ['bf16', 'bf16'],
  ['fp16', 'f16'],
] as const) {
  test(`${policy} rounds the operands of f32 products, forward and backward, and nothing else`, () => {
    const func = trace({ x: f32(4, 6), w: f32(6, 5), v: f32(5, 2) }, network)
    const plain = runPipeline(func, plainPolicies)
    const rounded = runPipeline(func, { ...plainPolicies, precision: policy })
    const nodes = allNodes(rounded)
    const dots = nodes.filter((node) => node.op.name === 'dot')
    assert.equal(dots.length, countOf(plain, 'dot'))
    assert.equal(dots.length, 5)
    for (const dot of dots) {
      assert.equal(dot.dtype, 'f32')
      assert.deepEqual(
        dot.inputs.map((x) => x.dtype),
        [half, half],
      )
    }
    // Nothing is in 16 bits but these casts (and moves of them), and only products read those.
    for (const node of nodes.filter((node) => node.types[0]!.dtype === half)) {
      assert.ok(node.op.name === 'cast' || node.op.kind === 'movement', node.op.name)
      for (const user of nodes.filter((user) => user.inputs.includes(node))) {
        assert.ok(user.op.name === 'dot' || user.types[0]!.dtype === half, `${user.op.name} reads ${half}`)
      }
    }
    assert.equal(flopsOf(rounded), flopsOf(plain))
    assert.deepEqual(
      rounded.params.map((x) => x.dtype),
      ['f32', 'f32', 'f32'],
    )
  })

  test(`a ${policy} product is the product of rounded operands`, () => {
    const func = trace({ a: f32(3, 7), b: f32(7, 2) }, ({ a, b }) => ({ y: a!.matmul(b!) }))
    const data = drawAll(func, 6)
    const [got] = interpret(
      pass((f) => precision(f, policy), func),
      data,
    )
    const [want] = interpret(
      func,
      data.map((x) => x.map((value) => roundTo(half, value))),
    )
    assert.deepEqual(got, want)
    assert.notDeepEqual(got, interpret(func, data)[0])
  })

  test(`${policy} converts weights before a loop, and stacks what only products read at half the bytes`, () => {
    const layers = ({ x, w, s }: Tensors): Tensors => {
      const [last] = scan(
        x!,
        { w: w!.reshape([3, 6, 6]) },
        (x, slice) => [x.mul(s!).matmul(slice.w!).tanh().matmul(s!).add(x), {}],
        { name: 'layers' },
      )
      const loss = last.square().mean()
      return { loss, ...grad(loss, { dw: w!, ds: s! }) }
    }
    const func = trace({ x: f32(6, 6), w: f32(18, 6), s: f32(6, 6) }, layers)
    const rounded = runPipeline(func, { ...plainPolicies, precision: policy })
    const loops = allNodes(rounded).filter((node) => node.op.name === 'scan')
    assert.equal(loops.length, 2)
    for (const loop of loops) {
      const body = bodyOf(loop)!
      const users = (x: Node): Node[] =>
        reachable([...body.params, ...body.results]).filter((node) => node.inputs.includes(x))
      // No loop converts what it is handed: neither weights nor what the forward loop kept.
      for (const param of body.params.filter((x) => x.dtype === 'f32'))
        assert.ok(users(param).every((user) => user.dtype === 'f32' || isCarry(loop, param)))
      assert.ok(body.params.some((x) => x.dtype === half))
    }
    const [forward] = loops
    const stacked = forward!.types.filter((type) => type.dtype === half)
    assert.ok(stacked.length >= 2, `${stacked.length} stacks in ${half}`)
    // The shared matrix is multiplied elementwise and by products: the loop gets it in both types.
    const given = forward!.inputs.filter(({ shape }) => shape.join() === '6,6').map(({ dtype }) => dtype)
    assert.deepEqual(given.toSorted(), ['f32', 'f32', half].toSorted())
    assert.equal(flopsOf(rounded), flopsOf(runPipeline(func, plainPolicies)))
    const data = drawAll(func, 9)
    const want = interpret(runPipeline(func, plainPolicies), data)
    const got = interpret(rounded, data)
    got.forEach((x, i) => assert.ok(worstError(x, want[i]!) < 0.05))
  })

  test(`${policy} leaves f64 products alone`, () => {
    const func = trace({ x: f64(4, 6), w: f64(6, 5), v: f64(5, 2) }, network)
    const rounded = runPipeline(func, { ...plainPolicies, precision: policy })
    assert.ok(allNodes(rounded).every((node) => node.types[0]!.dtype !== half))
  })
}

test('the pipeline shows the program before the first pass and after each, in order', () => {
  const stages: string[] = []
  const func = trace({ x: f32(4, 6), w: f32(6, 5), v: f32(5, 2) }, network)
  const done = runPipeline(func, plainPolicies, (stage) => stages.push(stage))
  assert.deepEqual(stages, ['trace', ...pipeline.map(({ name }) => name)])
  assert.equal(countOf(done, 'grad') + countOf(done, 'call'), 0)
})

test('nodes made by passes keep the source line of the node they stand for', () => {
  const func = trace({ x: f32(4, 6), w: f32(6, 5), v: f32(5, 2) }, network)
  const done = runPipeline(func, plainPolicies)
  for (const node of allNodes(done)) assert.ok(node.origin, node.op.name)
  const here = (allNodes(done).find((node) => node.op.name === 'tanh')!.origin!.stack ?? '').includes(
    'passes.test',
  )
  assert.ok(here)
  assert.equal(sourceOf(done.results[0]!), undefined, 'files of the compiler itself are not user code')
})

const broken: readonly (readonly [what: string, make: () => Func, message: RegExp])[] = [
  [
    'an op outside the list',
    () => {
      const x = input(0, 'x', f64(2))
      const odd = { ...addOp, name: 'odd' }
      return new Func(9, 'main', [x], [new Node(99, odd, [x, x], {}, [f64(2)], undefined)])
    },
    /^after test: %99 odd -> f64\[2\] in @main: is not in the op list$/,
  ],
  [
    'a result type that does not follow from the inputs',
    () => {
      const x = input(0, 'x', f64(2))
      return new Func(9, 'main', [x], [new Node(99, addOp, [x, x], {}, [f64(3)], undefined)])
    },
    /^after test: %99 add -> f64\[3\] in @main: inferred f64\[2\]$/,
  ],
  [
    'a function that is not closed',
    () => new Func(9, 'main', [], [input(0, 'loose', f64(2))]),
    /'loose' is no parameter of this function$/,
  ],
  [
    'an input made later',
    () => {
      const x = input(0, 'x', f64(2))
      const late = new Node(50, addOp, [x, x], {}, [f64(2)], undefined)
      return new Func(9, 'main', [x], [new Node(49, addOp, [late, x], {}, [f64(2)], undefined)])
    },
    /uses a later node$/,
  ],
  [
    'an op that an earlier pass should have removed',
    () => {
      const x = new Tensor(input(0, 'x', f64(2)))
      return new Func(9, 'main', [x.node], [grad(x.exp().sum(), { x }).x.node])
    },
    /grad must be gone by now$/,
  ],
  [
    'the same inside a body',
    () => {
      const x = new Tensor(input(0, 'x', f64(2)))
      const loose = input(0, 'loose', f64(2))
      const [last] = scan(x, iota(3), (h) => [h.exp(), {}] as const)
      const loop = last.node.inputs[0]!
      const body = new Func(8, 'body', bodyOf(loop)!.params, [loose])
      const node = new Node(99, loop.op, loop.inputs, { ...loop.attrs, body }, loop.types, undefined)
      return new Func(
        9,
        'main',
        [x.node],
        [new Node(100, last.node.op, [node], { index: 0 }, [f64(2)], undefined)],
      )
    },
    /in @body: 'loose' is no parameter of this function$/,
  ],
]

for (const [what, make, message] of broken) {
  test(`the checker finds ${what}`, () => {
    const func = inFreshGraph(make)
    assert.throws(
      () => check(func, 'test', { gone: ['grad'] }),
      (error: unknown) => {
        assert.ok(error instanceof InternalError, String(error))
        assert.match(error.message, message)
        return true
      },
    )
  })
}

test('sizes of the random programs are worth testing', () => {
  const sizes = Array.from({ length: 20 }, (_, seed) =>
    inFreshGraph(() =>
      randomInputs(uniformPick(seed)).reduce((total, { shape }) => total + sizeOf(shape), 0),
    ),
  )
  assert.ok(Math.max(...sizes) > 1000)
})

test('a loop stacks a value once, and nothing changes but its results', () => {
  const func = trace({ x: f64(2, 3), w: f64(4, 3, 3) }, ({ x, w }) => {
    const [last, ys] = scan(x!, w!, (h, m) => {
      const next = h.matmul(m).tanh()
      return [next, { here: next.mul(h), there: next.mul(h), other: next.add(h) }] as const
    })
    return { last, here: ys.here, sum: ys.there.add(ys.other) }
  })
  const once = pass(stackOnce, func)
  const results = (of: Func): number => allNodes(of).find((node) => node.op.name === 'scan')!.types.length
  assert.deepEqual([results(func), results(once)], [4, 3])
  assert.equal(flopsOf(once), flopsOf(func))
  const data = drawAll(func, 3)
  assert.deepEqual(interpret(once, data), interpret(func, data))
})
