/** The models of devices give the published products they are anchored to, and behave as products do. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UserError } from '../../errors.ts'
import { anchors } from './gpus.ts'
import { hardwareByName, measureThisMachine, productEfficiency, productSeconds } from './index.ts'

test('the best published product of each device is met within 2 %', () => {
  for (const { hardware, shape, flops } of anchors) {
    const [m, n, k] = shape
    const modelled = (2 * m * n * k) / productSeconds(hardware, 'bf16', m, n, k)
    assert.ok(Math.abs(modelled / flops - 1) < 0.02, `${hardware.name}: ${modelled / 1e12} TFLOP/s`)
  }
})

test('efficiency grows with every size, and nothing is faster than the peak', () => {
  for (const name of ['h100', 'h200', 'a100']) {
    const hardware = hardwareByName(name)
    const square = [64, 256, 1024, 4096, 16384].map((n) => productEfficiency(hardware, 'bf16', n, n, n))
    for (const [i, share] of square.entries()) {
      assert.ok(share > 0 && share < 1, `${name}: ${share}`)
      if (i > 0) assert.ok(share > square[i - 1]!)
    }
  }
})

test('a thin product is bound by memory', () => {
  const hardware = hardwareByName('h100')
  const [m, n, k] = [1, 8192, 8192]
  const bytes = 2 * (m * k + k * n + m * n)
  const seconds =
    bytes / (hardware.memoryBandwidth * hardware.memoryAchieved) + hardware.products.launchSeconds
  assert.equal(productSeconds(hardware, 'bf16', m, n, k), seconds)
})

test('a product of two tiles more than a wave takes two waves', () => {
  const hardware = hardwareByName('a100')
  const products = { ...hardware.products, tiles: [hardware.products.tiles[0]!] }
  const seconds = (down: number, across: number): number =>
    productSeconds({ ...hardware, products }, 'bf16', 128 * down, 256 * across, 65536) -
    products.launchSeconds
  assert.ok(Math.abs(seconds(11, 10) / seconds(12, 9) - 2) < 1e-12)
})

test('this machine can be measured', async () => {
  const hardware = await measureThisMachine({ ranks: 2, threadsPerRank: 1, links: [] })
  assert.ok(hardware.peak.f32! > 1e8 && hardware.memoryBandwidth > 1e8 && hardware.memoryBytes > 1e8)
  assert.ok(productEfficiency(hardware, 'f32', 512, 512, 512) < 1)
})

test('an unknown name is answered with the nearest', () => {
  assert.throws(
    () => hardwareByName('h10'),
    (error) => error instanceof UserError && /did you mean h100/.test(error.message),
  )
})
