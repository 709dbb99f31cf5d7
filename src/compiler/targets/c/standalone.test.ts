/**
 * Programs that run by themselves: they compute what the same program computes inside Node, bit for bit; and built with
 * sanitizers they notice what they are there for, which is shown by breaking a program in the way each must find.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { UserError } from '../../../errors.ts'
import { compile } from '../../compile.ts'
import type { Program } from '../../program.ts'
import { philoxUniform } from '../../graph/philox.ts'
import { valueType, type ValueType } from '../../graph/types.ts'
import { runSanitized, type Sanitizer } from '../../runtime/sanitize.ts'
import { compileExecutable } from '../../runtime/toolchain.ts'
import { standaloneText, type Range } from './standalone.ts'

const f32 = (...shape: number[]): ValueType => valueType('f32', shape)

/** Two products with a row kernel between them, and state; three threads share all of it. */
const build = (target: 'c' | 'text'): Promise<Program> =>
  compile(
    ({ state, x, ids }) => {
      const h = x.matmul(state.w).tanh()
      return { y: h.matmul(state.w.transpose()), rows: x.take(ids), state: { w: state.w.mul(0.5) } }
    },
    { state: { w: f32(48, 80) }, x: f32(90, 48), ids: valueType('i32', [7]) },
    { threads: 3, target, apart: true, name: 'standalone' },
  )

const rangeOf = (path: string): Range => (path === 'ids' ? [0, 90] : [-1, 1])

/** FNV-1a of 64 bits, as standalone.h prints it. */
function hashOf(bytes: Uint8Array): string {
  let hash = 14695981039346656037n
  for (const byte of bytes) hash = ((hash ^ BigInt(byte)) * 1099511628211n) & 0xffff_ffff_ffff_ffffn
  return hash.toString(16).padStart(16, '0')
}

test('alone or inside Node: the same bits', async () => {
  const program = await build('c')
  try {
    const text = standaloneText(program, rangeOf)
    const { path } = await compileExecutable({ name: 'standalone', source: text, checking: true })
    const printed = execFileSync(path, ['2'], { encoding: 'utf8' }).trim().split('\n')
    program.layout.inputs.forEach(({ path: input, type }, number) => {
      const [low, high] = rangeOf(input)
      const view = program.view(input)
      for (let i = 0; i < view.length; i++) {
        const value = low + (high - low) * philoxUniform({ seed: number, step: 0, stream: 0, salt: 0 }, i)
        view[i] = type.dtype === 'i32' ? Math.floor(value) : value
      }
    })
    await program.run()
    await program.run()
    for (const { path: output } of program.layout.outputs) {
      const { buffer, byteOffset, byteLength } = program.view(output)
      const [name, hash] = printed.find((line) => line.startsWith(`${output} `))!.split(' ')
      assert.equal(hash, hashOf(new Uint8Array(buffer, byteOffset, byteLength)), name)
    }
  } finally {
    program.close()
  }
})

const broken: Readonly<Record<string, readonly [Sanitizer, (text: string) => string, RegExp]>> = {
  'a kernel that writes one element too many': [
    'address,undefined',
    (text) => text.replace(/(KERNEL rows_0\([^]*?for \(int64_t c = begin; c <) end;/, '$1= end;'),
    /AddressSanitizer: use-after-poison/,
  ],
  'a sum that overflows': [
    'address,undefined',
    (text) => text.replace('const int steps =', 'const int steps = INT32_MAX - 1 + count +'),
    /runtime error: signed integer overflow/,
  ],
  'a step without barriers': [
    'thread',
    (text) => {
      // The step's own barriers only: without those of the team the program would hang.
      const parts = text.split(/(?=static void step\(|\/\*\n \* The end of every emitted program)/)
      assert.equal(parts.length, 3)
      const [before, step, after] = parts
      return [before, step!.replaceAll('team_barrier(tid);', ''), after].join('')
    },
    /ThreadSanitizer: data race/,
  ],
}

for (const [what, [sanitizer, damage, report]] of Object.entries(broken)) {
  test(`found: ${what}`, async () => {
    const text = standaloneText(await build('text'), rangeOf)
    const damaged = damage(text)
    assert.notEqual(damaged, text)
    await assert.rejects(
      runSanitized('broken', damaged, sanitizer, ['1']),
      (error) => error instanceof UserError && report.test(error.message),
    )
    assert.match(await runSanitized('whole', text, sanitizer, ['2']), /^y [0-9a-f]{16} [\d.]+$/m)
  })
}

test('a text cannot run, and says what can', async () => {
  const program = await build('text')
  assert.ok(program.memory.arenaBytes > 0 && program.source.includes('anneal_run'))
  await assert.rejects(program.run(), /target 'text'/)
  assert.throws(() => program.view('y'), /compile it with target 'c'/)
})
