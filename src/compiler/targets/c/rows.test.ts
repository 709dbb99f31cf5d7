/** Large results written past the caches, and column sums that share their barriers: values, bits and program text. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile, layerNorm, valueType, type Program } from '../../index.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

const stepOf = ({ source }: Program): string => source.slice(source.indexOf('static void step('))
const bytesOf = (program: Program, path: string): Buffer => {
  const { buffer, byteOffset, byteLength } = program.view(path)
  return Buffer.from(buffer.slice(byteOffset, byteOffset + byteLength))
}

test('a large flat result is streamed, a next state is not, whatever the team and the length', async () => {
  const length = (1 << 22) + 37
  const vector = valueType('f32', [length])
  const values = Float32Array.from({ length }, (_, i) => ((i % 1013) - 500) / 250)
  let first: Buffer | undefined
  for (const threads of [1, 2, 3]) {
    const program = await compile(
      ({ state: { x }, y }) => ({ state: { x: x.mul(0.5) }, out: x.mul(y).add(y) }),
      { state: { x: vector }, y: vector },
      { threads, checking: true },
    )
    assert.equal(program.source.match(/ stream\(out/g)?.length, 1)
    program.write('state.x', values)
    program.write('y', values)
    await program.run({})
    const [out, x] = [program.view('out'), program.view('state.x')]
    for (let i = 0; i < length; i++) {
      const want = values[i]! * values[i]! + values[i]!
      if (Math.abs(out[i]! - want) > 1e-6 || x[i] !== values[i]! / 2) assert.fail(`${i}: ${out[i]}, ${x[i]}`)
    }
    assert.equal(program.countedFlops(), program.flops)
    first ??= bytesOf(program, 'out')
    assert.ok(first.equals(bytesOf(program, 'out')), `${threads} threads`)
    program.close()
  }
})

test('rows that later passes read are streamed from their buffers', async () => {
  const [rows, width] = [2048, 1040]
  for (const dtype of ['f32', 'f64'] as const) {
    const matrix = valueType(dtype, [2 * rows, width])
    const program = await compile(
      ({ x, scale }) => {
        const total = x.add(x)
        return { total, out: layerNorm(total, scale) }
      },
      { x: matrix, scale: valueType(dtype, [width]) },
      { threads: 3 },
    )
    assert.equal(program.source.match(/ stream\(out/g)?.length, 2)
    const size = 2 * rows * width
    const x = Float64Array.from({ length: size }, (_, i) => Math.sin(i))
    program.write('x', x)
    program.write(
      'scale',
      Float64Array.from({ length: width }, (_, i) => 1 + i / width),
    )
    await program.run({})
    const [total, out] = [program.view('total'), program.view('out')]
    for (let row = 0; row < 2 * rows; row += 97) {
      const line = Array.from(x.subarray(row * width, (row + 1) * width), (value) => 2 * value)
      const mean = line.reduce((sum, value) => sum + value, 0) / width
      const variance = line.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width
      line.forEach((value, i) => {
        const want = ((value - mean) / Math.sqrt(variance + 1e-5)) * (1 + i / width)
        assert.ok(Math.abs(total[row * width + i]! - value) < 1e-6)
        assert.ok(Math.abs(out[row * width + i]! - want) < 1e-4, `${out[row * width + i]}, expected ${want}`)
      })
    }
    program.close()
  }
})

test('independent column sums meet at two barriers', async () => {
  const matrix = valueType('f32', [96, 40])
  const program = await compile(
    ({ a, b, c }) => ({ first: a.sum([0]), second: b.mul(b).sum([0]), third: c.sum() }),
    { a: matrix, b: matrix, c: matrix },
    { threads: 3, checking: true },
  )
  const text = stepOf(program)
  assert.equal(text.slice(0, text.indexOf('\n}')).match(/team_barrier/g)?.length, 2)
  assert.ok(!/KERNEL sum[^}]*team_barrier/.test(program.source))
  const data = ['a', 'b', 'c'].map((path, at) => {
    const values = Float32Array.from({ length: 96 * 40 }, (_, i) => ((i * (at + 3)) % 17) - 8)
    program.write(path, values)
    return values
  })
  await program.run({})
  const column = (values: Float32Array, c: number, of: (x: number) => number): number =>
    values.filter((_, i) => i % 40 === c).reduce((sum, x) => sum + of(x), 0)
  for (let c = 0; c < 40; c++) {
    assert.equal(
      program.view('first')[c],
      column(data[0]!, c, (x) => x),
    )
    assert.equal(
      program.view('second')[c],
      column(data[1]!, c, (x) => x * x),
    )
  }
  assert.equal(
    program.view('third')[0],
    data[2]!.reduce((sum, x) => sum + x, 0),
  )
  assert.equal(program.countedFlops(), program.flops)
  program.close()
})
