/**
 * Local SGD with an outer optimizer on simulated replicas. They lie along the first axis of every tensor of one program,
 * where the collective is a mean that everybody gets; the oracle is plain arithmetic here, replica by replica.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytesOf, compile, grad, sizeOf, valueType, type Tensor, type Tensorised } from '../compiler/index.ts'
import { outerBytes, outerStart, outerUpdate, type Mean } from './outer.ts'

const replicas = 3
const f64 = (...shape: number[]) => valueType('f64', shape)
const wave = (size: number, rate: number): Float64Array =>
  Float64Array.from({ length: size }, (_, i) => Math.sin((i + 1) * rate))

/** Every replica gets the mean over all of them. */
const mean: Mean = (x) => x.mean(0, true).broadcastTo(x)

const near = (got: ArrayLike<number>, want: ArrayLike<number>, limit = 1e-13): void => {
  assert.equal(got.length, want.length)
  for (let i = 0; i < want.length; i++)
    assert.ok(Math.abs(got[i]! - want[i]!) <= limit, `${i}: ${got[i]}, not ${want[i]}`)
}

/** Mean loss of each replica on its own data, added up, so that the gradient of each is that of its own loss. */
const lossOf = (x: Tensor, w: Tensor, b: Tensor): Tensor => {
  const out = x
    .matmul(w)
    .add(b.reshape([replicas, 1, 4]))
    .tanh()
  return out.square().mean([1, 2]).sum()
}

const types = { w: f64(replicas, 5, 4), b: f64(replicas, 4), x: f64(replicas, 6, 5) }
/** All replicas start from the same parameters, and have data of their own. */
const same = (values: Float64Array): Float64Array =>
  Float64Array.from({ length: values.length * replicas }, (_, i) => values[i % values.length]!)
const start = { w: same(wave(20, 0.7)), b: same(wave(4, 1.3)), x: wave(replicas * 30, 2.1) }

test('one inner step of SGD and outer SGD of rate 1 are synchronous data parallelism', async () => {
  const rate = 0.3
  const program = await compile(
    ({ w, b, x }: Tensorised<typeof types>) => {
      const gradients = grad(lossOf(x, w, b), { w, b })
      const local = { w: w.sub(gradients.w.mul(rate)), b: b.sub(gradients.b.mul(rate)) }
      const { anchor } = outerUpdate(local, outerStart({ w, b }), mean, { lr: 1, momentum: 0 })
      const together = { w: w.sub(mean(gradients.w).mul(rate)), b: b.sub(mean(gradients.b).mul(rate)) }
      return { anchor, together, local }
    },
    types,
    { target: 'reference' },
  )
  await program.run(start)
  for (const name of ['w', 'b']) {
    near(program.view(`anchor.${name}`), program.view(`together.${name}`))
    assert.notDeepEqual(program.view(`local.${name}`), program.view(`anchor.${name}`))
  }
})

test('rounds of several local steps with Nesterov momentum equal the formula, replica by replica', async () => {
  const [outer, inner, every, rounds] = [{ lr: 0.7, momentum: 0.9 }, 0.2, 4, 3]
  const pair = { w: types.w, b: types.b }
  const inputs = { local: pair, anchor: pair, velocity: pair, x: types.x }
  const local = await compile(
    ({ local, x }: Tensorised<typeof inputs>) => {
      const gradients = grad(lossOf(x, local.w, local.b), local)
      return { next: { w: local.w.sub(gradients.w.mul(inner)), b: local.b.sub(gradients.b.mul(inner)) } }
    },
    inputs,
    { target: 'reference' },
  )
  const round = await compile(
    ({ local, anchor, velocity }: Tensorised<typeof inputs>) => ({
      next: outerUpdate(local, { anchor, velocity }, mean, outer),
    }),
    inputs,
    { target: 'reference' },
  )
  const anchors: Record<string, Float64Array> = { w: start.w.slice(), b: start.b.slice() }
  const want: Record<string, { anchor: Float64Array; velocity: Float64Array }> = {}
  for (const name of ['w', 'b']) {
    want[name] = { anchor: start[name as 'w'].slice(), velocity: new Float64Array(start[name as 'w'].length) }
    round.write(`velocity.${name}`, want[name].velocity)
  }
  for (let r = 0; r < rounds; r++) {
    for (const name of ['w', 'b']) local.write(`local.${name}`, anchors[name]!)
    for (let step = 0; step < every; step++) {
      await local.run({ x: start.x.map((value) => value * Math.cos(r + step)) })
      for (const name of ['w', 'b']) local.write(`local.${name}`, local.view(`next.${name}`))
    }
    for (const name of ['w', 'b']) {
      round.write(`local.${name}`, local.view(`next.${name}`))
      round.write(`anchor.${name}`, anchors[name]!)
      // The formula, on one replica's share at a time.
      const own = local.view(`next.${name}`)
      const { anchor, velocity } = want[name]!
      const size = anchor.length / replicas
      for (let i = 0; i < size; i++) {
        let moved = 0
        for (let k = 0; k < replicas; k++) moved += (anchor[k * size + i]! - own[k * size + i]!) / replicas
        for (let k = 0; k < replicas; k++) {
          const at = k * size + i
          velocity[at] = 0.9 * velocity[at]! + moved
          anchor[at]! -= 0.7 * (moved + 0.9 * velocity[at]!)
        }
      }
    }
    await round.run()
    for (const name of ['w', 'b']) {
      anchors[name] = Float64Array.from(round.view(`next.anchor.${name}`))
      round.write(`velocity.${name}`, round.view(`next.velocity.${name}`))
      near(anchors[name], want[name]!.anchor)
      near(round.view(`next.velocity.${name}`), want[name]!.velocity)
      // All replicas agree again.
      const size = anchors[name].length / replicas
      near(anchors[name].subarray(size, 2 * size), anchors[name].subarray(0, size), 0)
    }
  }
})

test('a round sends every parameter once, a step on average that divided by the steps of a round', async () => {
  let sent = 0
  const counting: Mean = (x) => {
    sent += bytesOf(x.type)
    return x
  }
  const own = { w: valueType('f32', [5, 4]), b: valueType('f32', [4]) }
  await compile(
    ({ w, b }: Tensorised<typeof own>) => {
      const state = outerStart({ w, b })
      return outerUpdate({ w: w.mul(2), b }, state, counting, { lr: 1, momentum: 0.9 }).anchor
    },
    own,
    { target: 'text' },
  )
  const { round, step } = outerBytes(Object.values(own), 500)
  assert.equal(sent, round)
  assert.equal(round, 4 * (sizeOf([5, 4]) + 4))
  assert.equal(step * 500, round)
})
