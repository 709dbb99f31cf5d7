/**
 * Split backward passes: a zero-bubble pipeline computes what one device computes, with exactly the arithmetic of the
 * same schedule unsplit, and makes gradients of weights when the schedule says so and no earlier.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reachable, type Func, type Node } from '../src/compiler/graph/node.ts'
import { compile } from '../src/compiler/index.ts'
import { barrierOp } from '../src/compiler/ops/barrier.ts'
import { dotOp } from '../src/compiler/ops/dot.ts'
import { receiveOp } from '../src/compiler/ops/send.ts'
import { scanAttrs, scanOp } from '../src/compiler/ops/scan.ts'
import type { LanguageOverrides } from '../src/models/language/config.ts'
import { inspectSchedule, makeSchedule, type Schedule } from '../src/parallel/schedule/index.ts'
import { parallelOptions } from '../src/train/parallel.ts'
import { stepSource } from '../src/train/programs.ts'
import { assertAgree, configOf, pipelined, ran, vocab } from './plans.ts'

const configs = (['modern', 'gpt2'] as const).map((block) =>
  configOf({ batch: 8, accumulate: 4, model: { layers: 4, block } } as LanguageOverrides),
)

/** The same order of work, but each backward pass at once. */
const unsplit = (schedule: Schedule): Schedule => ({
  ...schedule,
  splitBackward: false,
  actions: schedule.actions.map((actions) => actions.filter(({ kind }) => kind !== 'W')),
})

test('zero-bubble pipelines equal accumulation on one device, and compute nothing twice', async () => {
  const cases = [
    ['pipe=2', 'zb-h1'],
    ['pipe=2', 'zb-h2'],
    ['pipe=2', 'dualpipe-v'],
    ['pipe=2 data=2', 'zb-h1'],
    ['pipe=4', 'zb-h1'],
    ['pipe=2 tensor=2 sequence', 'zb-h2'],
    ['pipe=2 data=2 zero=1', 'dualpipe-v'],
    ['pipe=2 tensor=2', 'dualpipe-v'],
  ] as const
  for (const [at, config] of configs.entries()) {
    const one = await ran(stepSource(config, vocab), {})
    for (const [plan, name] of cases.filter((_, i) => i < 3 || i % 2 === at)) {
      const what = `${config.model.block} ${plan} ${name}`
      const split = await ran(stepSource(config, vocab), { parallel: pipelined(config, plan, name) })
      const whole = await ran(stepSource(config, vocab), {
        parallel: pipelined(config, plan, name, 1, unsplit),
      })
      assertAgree(what, one, split, 1e-11)
      assertAgree(what, whole, split, 0)
      assert.equal(split.flops, whole.flops, what)
    }
  }
})

/** The kind of each loop over layers on a pipeline rank, in the order of its program: a loop depends on the one before. */
function orderOfLoops(func: Func): string[] {
  const behind = new Map<Node, ReadonlySet<Node>>()
  const loops = reachable(func.results).filter((node) => {
    const above = node.inputs.flatMap((x) => Array.from(behind.get(x)!))
    const loop = node.op === scanOp
    behind.set(node, new Set(loop ? [...above, node] : above))
    return loop
  })
  // Every loop stands behind all those before it, or it might begin earlier.
  loops.forEach((loop, i) => assert.equal(behind.get(loop)!.size, i + 1, `loop ${i} may begin too early`))
  return loops.map((loop) => {
    const { name } = scanAttrs(loop).body
    return name.endsWith('Rest') ? 'W' : name.endsWith('Backward') ? 'B' : 'F'
  })
}

/** The most forward passes at once whose stacked values some later loop still reads, not counting what only waits. */
function mostKept(func: Func): number {
  const sources = new Map<Node, ReadonlySet<Node>>()
  const until = new Map<Node, number>()
  const loops = reachable(func.results).filter(({ op }) => op === scanOp)
  for (const node of reachable(func.results)) {
    const values = node.op === barrierOp ? node.inputs.slice(0, 1) : node.op === receiveOp ? [] : node.inputs
    const behind = values.flatMap((x) => (x.op === scanOp ? [x] : Array.from(sources.get(x)!)))
    sources.set(node, new Set(behind))
    if (node.op !== scanOp) continue
    for (const loop of behind) until.set(loop, loops.indexOf(node))
    sources.set(node, new Set())
  }
  const forward = loops.filter((loop) => !/Backward/.test(scanAttrs(loop).body.name))
  return Math.max(
    ...loops.map(
      (_, now) =>
        forward.filter((loop) => loops.indexOf(loop) <= now && (until.get(loop) ?? -1) >= now).length,
    ),
  )
}

test('every rank works in the order of its schedule, gradients of weights in their own actions', async () => {
  for (const config of configs) {
    for (const [plan, name, ranks] of [
      ['pipe=2', 'zb-h1', 2],
      ['pipe=4', 'zb-h2', 4],
      ['pipe=2', 'dualpipe-v', 2],
    ] as const) {
      const { inputs, body } = stepSource(config, vocab)
      const parallel = pipelined(config, plan, name)
      const { cut } = await compile(body, inputs, { target: 'reference', parallel })
      const schedule = makeSchedule(name, { ranks, microbatches: config.accumulate })
      const { actions } = schedule
      const { activations } = inspectSchedule(schedule)
      cut!.parts.forEach(({ func, inputPaths }, place) => {
        assert.deepEqual(
          orderOfLoops(func),
          actions[place]!.map(({ kind }) => kind),
        )
        assert.equal(mostKept(func), activations[place], 'activations of as many microbatches as foretold')
        const bodies = reachable(func.results).flatMap((node) => (node.op === scanOp ? [node] : []))
        const matrices = inputPaths.flatMap((path, i) =>
          path.startsWith('state.params.layers') && func.params[i]!.shape.length === 3
            ? [func.params[i]!.shape.slice(1).join()]
            : [],
        )
        for (const loop of bodies) {
          const { name, results } = scanAttrs(loop).body
          const products = reachable(results).filter(({ op }) => op === dotOp)
          const ofWeights = products.filter(({ shape }) => shape.length === 2)
          const want = name.endsWith('Rest') ? matrices : []
          assert.deepEqual(ofWeights.map(({ shape }) => shape.join()).toSorted(), want.toSorted())
        }
      })
    }
  }
})

test('the gradient of the head is made behind the work before its action', async () => {
  const [config] = configs
  const { inputs, body } = stepSource(config!, vocab)
  const { cut } = await compile(body, inputs, {
    target: 'reference',
    parallel: pipelined(config!, 'pipe=2', 'zb-h1'),
  })
  const { func } = cut!.parts[1]!
  const loopsBehind = (node: Node): string =>
    reachable([node])
      .filter(({ op }) => op === scanOp)
      .map((loop) => scanAttrs(loop).body.name.replace('layers', '') || 'Forward')
      .join(' ')
  const { width } = config!.model
  const heads = reachable(func.results).filter(
    (node) =>
      node.op === dotOp &&
      node.shape.join() === [width, vocab].join() &&
      node.inputs.every((x) => x.shape.length === 3),
  )
  // The second rank runs F0 B0 F1 B1 W0 F2 B2 W1 F3 B3 W2 W3; a head's gradient is part of W.
  const [F, B, W] = ['Forward', 'Backward', 'BackwardRest']
  const before = [
    [F, B, F, B],
    [F, B, F, B, W, F, B],
    [F, B, F, B, W, F, B, W, F, B],
    [F, B, F, B, W, F, B, W, F, B, W],
  ]
  assert.deepEqual(
    heads.map(loopsBehind),
    before.map((loops) => loops.join(' ')),
  )
})

test('the settings of a run choose the schedule and how layers lie on the ranks', async () => {
  for (const parallel of [
    { schedule: 'interleaved', stages: 2 },
    { schedule: 'zb-h2' },
    { schedule: 'dualpipe-v' },
  ]) {
    const config = configOf({
      batch: 8,
      accumulate: 4,
      model: { layers: 4 },
      mesh: { pipe: 2 },
      parallel,
    } as LanguageOverrides)
    const source = stepSource(config, vocab)
    const one = await ran(source, {})
    assertAgree(parallel.schedule, one, await ran(source, parallelOptions(config, vocab)), 1e-11)
  }
})
