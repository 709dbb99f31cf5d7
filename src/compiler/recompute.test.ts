/**
 * Recomputation changes memory and FLOPs, and not a bit of any result: under `full`, under budgets, and when loops keep
 * a random choice of values. In C (three teams, FLOPs counted) and in the float64 reference.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile, type CompileOptions, type Tensorised } from './compile.ts'
import type { Program } from './program.ts'
import { attention, gelu, layerNorm } from './index.ts'
import type { Func, Node } from './graph/node.ts'
import { valueType } from './graph/types.ts'
import { loopPairs, type Keeping } from './passes/keep.ts'
import { flopsAgain, pairValues } from './passes/keep-choices.ts'
import { uniformPick } from './random-samples.ts'
import { draw } from './testing.ts'
import { checkpoint, grad, scan } from './trace/functions.ts'
import { iota, uniform, where, type Tensor } from './trace/tensor.ts'

const [batch, time, width, layers] = [2, 32, 32, 4] as const
const stacked = (...shape: number[]): ReturnType<typeof valueType> => valueType('f32', [layers, ...shape])
const inputs = {
  x: valueType('f32', [2, batch, time, width]),
  seed: valueType('i32', []),
  w: {
    norm: stacked(width),
    q: stacked(width, width),
    k: stacked(width, width),
    up: stacked(width, 2 * width),
    down: stacked(2 * width, width),
  },
}

/** Two microbatches through layers with a norm, attention, dropout and GELU: loss and gradients. */
function net({ x, seed, w }: Tensorised<typeof inputs>): Record<string, Tensor> {
  const layer = (h: Tensor, one: typeof w, index: Tensor): Tensor => {
    const normed = layerNorm(h, one.norm)
    const head = (m: Tensor): Tensor => normed.matmul(m).reshape([batch, time, 2, width / 2])
    const mixed = attention(head(one.q), head(one.k), head(one.k)).reshape(h.shape, h.axes)
    const mask = uniform({ seed, step: seed, salt: index }, 1, h.type).less(0.9)
    const after = h.add(where(mask, mixed.mul(1.1), 0))
    return after.add(gelu(after.matmul(one.up)).matmul(one.down))
  }
  const loss = (h: Tensor): Tensor => {
    const [last] = scan(h, { w, index: iota(layers, 'layer') }, (h, slice) => [
      checkpoint((args) => layer(args.h, args.w as typeof w, args.index), { h, ...slice }),
      {},
    ])
    return last.square().mean()
  }
  const [sums] = scan({ value: x.mean().mul(0), ...w }, x, ({ value, ...sums }, slice) => {
    const own = loss(slice)
    const added = Object.entries(grad(own, w)).map(([name, g]) => [name, sums[name as keyof typeof w].add(g)])
    return [{ value: value.add(own), ...(Object.fromEntries(added) as typeof w) }, {}]
  })
  return sums
}

async function outcome(options: CompileOptions): Promise<{ program: Program; bits: Map<string, number[]> }> {
  const program = await compile(net, inputs, options)
  let seed = 1
  for (const [path, type] of program.inputs) {
    if (path === 'seed') program.write(path, [7])
    else program.write(path, draw(type, seed++, path === 'x' ? [-1, 1] : [-0.3, 0.3]))
  }
  await program.run()
  const bits = new Map([...program.outputs.keys()].map((path) => [path, [...program.view(path)]]))
  const counted = program.countedFlops()
  program.close()
  if (options.checking) assert.equal(counted, program.flops)
  return { program, bits }
}

/** Each value that is wanted is kept with this probability, else what it is computed from is wanted. */
const randomly =
  (seed: number, share: number) =>
  (func: Func): Keeping => {
    const pick = uniformPick(seed)
    return new Map(
      loopPairs(func).map((pair) => {
        const { nodes, values, wanted } = pairValues(pair)
        const kept = new Set<Node>()
        const want = (i: number): void => {
          const { bytes, cost, inputs } = values[i]!
          if (cost === undefined || (bytes !== undefined && pick(0, 99) < 100 * share)) kept.add(nodes[i]!)
          else if (!kept.has(nodes[i]!)) inputs.forEach(want)
        }
        wanted.forEach(want)
        return [pair, kept]
      }),
    )
  }

test('no choice changes a bit, and every choice does the FLOPs it declares', async () => {
  const plain = await outcome({ checking: true, threads: 1 })
  const policies = [
    { recompute: true },
    { recompute: 'full' },
    { recompute: randomly(1, 0.2) },
    { recompute: randomly(2, 0.5) },
    { recompute: randomly(3, 0.8) },
  ] as const
  for (const [i, policy] of policies.entries()) {
    const { program, bits } = await outcome({ ...policy, checking: true, threads: 1 + (i % 3) })
    assert.deepEqual(bits, plain.bits, `policy ${i}`)
    if (i < 2) assert.ok(program.memory.arenaBytes < plain.program.memory.arenaBytes)
  }
})

test('in the reference, too', async () => {
  const plain = await outcome({ target: 'reference' })
  for (let seed = 0; seed < 12; seed++) {
    const { bits } = await outcome({ target: 'reference', recompute: randomly(seed, seed / 12) })
    assert.deepEqual(bits, plain.bits, `seed ${seed}`)
  }
})

const text = (recompute: CompileOptions['recompute'] = false): Promise<Program> =>
  compile(net, inputs, { target: 'text', threads: 2, recompute })

test('what is done again is counted before, and under full it is the forward pass of the loop', async () => {
  const plain = await text()
  for (let seed = 0; seed < 8; seed++) {
    let expected = 0
    const { flops } = await text((func) => {
      const keeping = randomly(seed, 0.5)(func)
      for (const [pair, kept] of keeping) expected += flopsAgain(pair, kept)
      return keeping
    })
    // Less where the backward loop computes the same from the same by itself.
    assert.ok(flops >= plain.flops && flops - plain.flops <= expected, `seed ${seed}`)
  }
  const [full, marked] = [await text('full'), await text(true)]
  assert.equal(full.flops, marked.flops)
  assert.equal(full.recomputed?.extraFlops, full.flops - plain.flops)
})

test('a budget is held by the real plan, at no more cost than a smaller one', async () => {
  const [none, full] = [(await text()).memory.arenaBytes, (await text('full')).memory.arenaBytes]
  let flops = 0
  for (const share of [1, 0.75, 0.5, 0.25]) {
    const memoryBytes = Math.round(full + (none - full) * share)
    const { memory, recomputed } = await text({ memoryBytes })
    assert.ok(memory.arenaBytes <= memoryBytes, `${memory.arenaBytes} of ${memoryBytes}`)
    assert.ok(recomputed!.optimal)
    assert.ok(recomputed!.extraFlops >= flops)
    flops = recomputed!.extraFlops
  }
  assert.ok(flops > 0)
  await assert.rejects(text({ memoryBytes: 1000 }), /^UserError: memory of program: .*at least .* MiB/)
})
