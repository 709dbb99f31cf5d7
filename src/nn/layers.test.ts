/** Layers that are more than one call: names of axes and biases. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile, valueType } from '../compiler/index.ts'
import { convolution } from './layers.ts'

test('a convolution takes the name of its last axis from the weight and adds the bias to every position', async () => {
  const program = await compile(
    ({ x, w, b }) => {
      const y = convolution(x, w, b, { padding: 1 })
      assert.equal(`${y}`, 'f32[batch=1, time=3, features=2]')
      const again = convolution(y, w, b)
      assert.equal(`${again}`, 'f32[batch=1, time=1, out=2]')
      return { y }
    },
    {
      x: valueType('f32', [1, 3, 2], ['batch', 'time', 'channels']),
      w: valueType('f32', [3, 2, 2], [null, 'channels', 'features']),
      b: valueType('f32', [2], ['features']),
    },
    { target: 'reference' },
  )
  program.write('x', [1, 2, 3, 4, 5, 6])
  program.write('w', [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1])
  program.write('b', [10, 20])
  await program.run()
  // First feature: channel 0 of the position before and channel 1 of the one after; second: 0 here, 1 after.
  assert.deepEqual([...program.view('y')], [14, 25, 17, 29, 13, 25])
  program.close()
})
