/**
 * Printing and reading back: the text of an example word for word, the same text after a round trip for every op sample,
 * every composite and a small model at every stage of the pipeline, the same results when run, and the line in every
 * complaint about bad text.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../../errors.ts'
import { invoke } from '../composites/composite.ts'
import { composites } from '../composites/index.ts'
import { rmsNorm } from '../composites/norm.ts'
import { silu } from '../composites/silu.ts'
import { ops } from '../ops/index.ts'
import { check } from '../passes/check.ts'
import { runPipeline } from '../passes/pipeline.ts'
import { randomSample } from '../random-samples.ts'
import { interpret } from '../targets/reference/interpret.ts'
import { applied, draw, inFreshGraph, plainPolicies } from '../testing.ts'
import { checkpoint, grad, scan, traceFunction } from '../trace/functions.ts'
import { full, type Tensor } from '../trace/tensor.ts'
import type { Tree } from '../trace/tree.ts'
import type { Func } from './node.ts'
import { parseFunc } from './parse.ts'
import { printFunc } from './print.ts'
import { valueType, type ValueType } from './types.ts'

type Tensors = Record<string, Tensor>

const trace = (name: string, types: Tree<ValueType>, body: (inputs: Tensors) => Tensors): Func =>
  inFreshGraph(() => traceFunction(name, types, (inputs) => body(inputs as Tensors))).func

const parse = (text: string): Func => inFreshGraph(() => parseFunc(text, ops))

/** Prints, parses, prints again; returns what was parsed. */
function roundTrip(func: Func): Func {
  const text = printFunc(func)
  const parsed = parse(text)
  assert.equal(printFunc(parsed), text)
  check(parsed, 'parse')
  return parsed
}

const layer = ({ h, m }: { h: Tensor; m: Tensor }): Tensor => silu(rmsNorm(h).matmul(m))

/** Layers as a loop, one of them recomputed, a loss and its gradient: every structure op, nested. */
const model = (): Func =>
  trace(
    'small model',
    { x: valueType('f32', [4, 8], ['batch', 'embed']), w: valueType('f32', [3, 8, 8]) },
    ({ x, w }) => {
      const [last] = scan(x!, w!, (h, m) => [checkpoint(layer, { h, m }).add(h), {}] as const)
      const loss = last.square().mean()
      return { loss, gradient: grad(loss, { w: w! }).w }
    },
  )

test('a function prints as text that reads like a program', () => {
  const func = trace('main', { x: valueType('f32', [2, 3], ['rows', null]) }, ({ x }) => {
    const [total] = scan(full(0, valueType('f32', [3])), x!, (sum, row) => [sum.add(row), {}] as const)
    return { total: total.mul(-0.5) }
  })
  assert.equal(
    printFunc(func),
    `func @scan(%3 "": f32[3], %4 "x:": f32[3]) -> (%5) {
  %5 = add %3 %4 : f32[3]
}

func @main(%0 x: f32[rows=2, 3]) -> (%10) {
  %1 = constant : f32[] {"dtype":"f32","value":0}
  %2 = broadcast %1 : f32[3] {"shape":[3],"dims":[],"axes":[null]}
  %6 = scan %2 %0 : f32[3] {"body":"@scan","length":2,"numConstants":0,"numCarries":1,"reverse":false,"axis":"rows"}
  %7 = get %6 : f32[3] {"index":0}
  %8 = constant : f32[] {"dtype":"f32","value":-0.5}
  %9 = broadcast %8 : f32[3] {"shape":[3],"dims":[],"axes":[null]}
  %10 = mul %7 %9 : f32[3]
}
`,
  )
})

for (const op of ops.filter((op) => op.samples().length > 0)) {
  test(`${op.name} reads back as it was printed, and means the same`, () => {
    const samples = fc.gen().map((g) => randomSample(op, (min, max) => g(fc.integer, { min, max }), 4))
    fc.assert(
      fc.property(samples, (sample) => {
        const types = Object.fromEntries(sample.inputs.map((type, i) => [`x${i}`, type]))
        const func = trace(op.name, types, (xs) =>
          Object.fromEntries(applied(op, Object.values(xs), sample.attrs).map((y, i) => [`y${i}`, y])),
        )
        const data = sample.inputs.map((type, i) => draw(type, i, sample.ranges?.[i]))
        assert.deepEqual(interpret(roundTrip(func), data), interpret(func, data))
      }),
      { numRuns: 8, seed: 4 },
    )
  })
}

for (const composite of composites) {
  test(`composite ${composite.name} reads back as it was printed`, () => {
    for (const { inputs, options } of composite.samples()) {
      const types = Object.fromEntries(inputs.map((type, i) => [`x${i}`, type]))
      roundTrip(
        trace('main', types, (xs) =>
          Object.fromEntries(invoke(composite, Object.values(xs), options).map((y, i) => [`y${i}`, y])),
        ),
      )
    }
  })
}

test('a model with loops, checkpoints and gradients reads back after every pass, and runs the same', () => {
  const stages = new Map<string, Func>()
  runPipeline(model(), { ...plainPolicies, recompute: 'marked', precision: 'bf16' }, (stage, func) =>
    stages.set(stage, func),
  )
  assert.ok(stages.size >= 5)
  for (const func of stages.values()) roundTrip(func)
  const data = [draw(valueType('f32', [4, 8]), 1), draw(valueType('f32', [3, 8, 8]), 2)]
  const want = interpret(runPipeline(model(), plainPolicies), data)
  assert.deepEqual(interpret(runPipeline(roundTrip(model()), plainPolicies), data), want)
})

const small = (): Func =>
  traceFunction('main', { x: valueType('f32', [3]) }, (xs) => ({ y: (xs as Tensors)['x']!.exp().mul(2) }))
    .func

test('nodes that a function does not reach leave no trace in its text', () => {
  const among = inFreshGraph(() => {
    traceFunction('other', { x: valueType('f32', [5]) }, (xs) => ({ y: (xs as Tensors)['x']!.mul(3) }))
    return small()
  })
  assert.ok(among.results[0]!.id > 6)
  assert.equal(printFunc(among), printFunc(inFreshGraph(small)))
})

test('names and numbers that JSON or the grammar lack survive', () => {
  const odd = ['a b', 'x)', '1st', 'täglich', 'q"uote', '']
  const func = trace(
    'odd "name" {',
    Object.fromEntries(odd.map((name) => [name || 'empty', valueType('f32', [2], [name])])),
    (xs) =>
      Object.fromEntries(
        Object.entries(xs).map(([key, x], i) => [key, x.mul([-0, Infinity, -Infinity, NaN, 1e-45, 0.1][i]!)]),
      ),
  )
  const data = func.params.map((_, i) => Float64Array.of(i + 1, -i))
  assert.deepEqual(interpret(roundTrip(func), data), interpret(func, data))
})

test('infinite and negative-zero attributes keep their value', () => {
  const composite = composites.find(({ name }) => name === 'rmsNorm')!
  const options = { eps: -0, other: [Infinity, { deep: -Infinity }] }
  const func = trace('main', { x: valueType('f32', [2, 3]) }, ({ x }) => ({
    y: invoke(composite, [x!], options)[0]!,
  }))
  const call = roundTrip(func).results[0]!.inputs[0]!
  assert.deepEqual(call.attrs['options'], options)
  assert.ok(Object.is((call.attrs['options'] as { eps: number }).eps, -0))
})

test('functions of one name are told apart', () => {
  const func = trace('main', { x: valueType('f32', [3, 2]) }, ({ x }) => {
    const zero = full(0, valueType('f32', [2]))
    const [a] = scan(zero, x!, (sum, row) => [sum.add(row), {}] as const)
    const [b] = scan(zero, x!, (most, row) => [most.max(row), {}] as const)
    return { a, b }
  })
  assert.match(printFunc(func), /func @scan\(.*func @scan#1\(/s)
  roundTrip(func)
})

const good = `func @main(%0 x: f32[4], %1 y: f32[4]) -> (%3) {
  %2 = add %0 %1 : f32[4]
  %3 = sum %2 : f32[] {"axes":[0]}
}
`

const mistakes: readonly (readonly [what: string, text: string, message: RegExp])[] = [
  [
    'an unknown operation',
    good.replace('add', 'plus'),
    /^line 2 .*: got plus; expected the name of an operation/,
  ],
  [
    'a wrong type',
    good.replace('add %0 %1 : f32[4]', 'add %0 %1 : f32[5]'),
    /^line 2 .*: got f32\[5\]; expected f32\[4\]/,
  ],
  ['an unknown input', good.replace('%0 %1', '%0 %7'), /^line 2 .*: got %7; expected a node above/],
  ['an input made later', good.replace('%0 %1', '%0 %3'), /^line 2 .*: got %3; expected a node above/],
  ['an unknown result', good.replace('(%3)', '(%9)'), /^line 1 .*: got %9; expected a node of this function/],
  ['a number twice', good.replace('%3 = sum %2', '%2 = sum %0'), /^line 3 .*: got %2 a second time/],
  [
    'an element type that is none',
    good.replace('y: f32', 'y: f8'),
    /^line 1 .*: got 'f8\[4\]\).*; expected an element type: f32, f64/,
  ],
  ['a shape that is none', good.replace('y: f32[4]', 'y: f32[four]'), /^line 1 .*expected = and an extent/],
  [
    'attributes that are no JSON',
    good.replace('{"axes":[0]}', '{axes: 0}'),
    /^line 3 .*expected attributes as JSON/,
  ],
  [
    'an attribute the op rejects',
    good.replace('[0]}', '[3]}'),
    /^line 3 .*expected distinct axes of the input/,
  ],
  [
    'missing attributes',
    good.replace(' {"axes":[0]}', ''),
    /^line 3 .*expected inputs and attributes of sum/,
  ],
  [
    'words behind a line',
    good.replace(': f32[4]\n', ': f32[4] please\n'),
    /^line 2 .*got ' please'; expected the end of the line/,
  ],
  ['no equals sign', good.replace('%2 = add', '%2 add'), /^line 2 .*expected =/],
  [
    'no closing brace',
    good.replace('}\n', '').trimEnd().replace(/\n\}$/, ''),
    /^line 3 .*got the end of the text; expected }/,
  ],
  ['no function', '\n\n', /^line 3 .*: got no function/],
  ['something else', 'hello', /^line 1 .*: got 'hello'; expected func @name/],
  [
    'a body that is not there',
    good.replace('sum %2 : f32[] {"axes":[0]}', 'call %2 : f32[4] {"body":"@gone"}'),
    /^line 3 .*: got @gone; expected a function printed before/,
  ],
  ['one name for two functions', good + good, /^line 5 .*: got @main a second time/],
]

for (const [what, text, message] of mistakes) {
  test(`text with ${what}: the error names the line`, () => {
    assert.throws(
      () => parse(text),
      (error: unknown) => {
        assert.ok(error instanceof UserError, String(error))
        assert.match(error.message, message)
        assert.doesNotMatch(error.message, /\n/)
        return true
      },
    )
  })
}

test('the text the mistakes are made from is right', () => {
  assert.equal(printFunc(parse(good)), good)
})
