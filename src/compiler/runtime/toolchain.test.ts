/** Runs the real compiler in a cache of its own; each failure a person can meet is provoked, not imitated. */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, test } from 'node:test'
import { UserError } from '../../errors.ts'
import { cacheDir } from './cache.ts'
import { bf16ProductsOf, featuresFromMacros, machine } from './machine.ts'
import { compileShared, findCompiler, loadShared } from './toolchain.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-toolchain-'))
const environment = { CC: process.env['CC'], ANNEAL_CACHE: process.env['ANNEAL_CACHE'] }
process.env['ANNEAL_CACHE'] = join(folder, 'cache')

afterEach(() => setEnvironment('CC', environment.CC))
after(() => {
  setEnvironment('ANNEAL_CACHE', environment.ANNEAL_CACHE)
  rmSync(folder, { recursive: true })
})

function setEnvironment(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name]
  else process.env[name] = value
}

const says =
  (...parts: readonly RegExp[]) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof UserError, String(error))
    assert.doesNotMatch(error.message, /\n/)
    for (const part of parts) assert.match(error.message, part)
    return true
  }

function script(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, `#!/bin/sh\n${text}\n`)
  chmodSync(path, 0o755)
  return path
}

const add = 'double add(double a, double b) { return a + b; }\n'

test('a source is compiled once, then found', async () => {
  const [first, meanwhile] = await Promise.all([
    compileShared({ name: 'add', source: add }),
    compileShared({ name: 'add', source: add }),
  ])
  assert.equal(first.cached, false)
  assert.ok(first.seconds > 0)
  assert.equal(meanwhile.path, first.path)
  const again = await compileShared({ name: 'add', source: add })
  assert.deepEqual([again.path, again.cached], [first.path, true])
  assert.equal(loadShared(again.path).func('double add(double, double)')(2, 3), 5)
  const flagged = await compileShared({ name: 'add', source: add, flags: ['-DX'] })
  assert.notEqual(flagged.path, first.path)
  assert.deepEqual(
    readdirSync(cacheDir()).filter((name) => name.includes('tmp')),
    [],
  )
})

test('rounding by a magic number, which our exp rests on, survives the flags', async () => {
  const source = 'float nearest(float x) { float r = x + 12582912.0f; return r - 12582912.0f; }\n'
  const { path } = await compileShared({ name: 'nearest', source })
  assert.equal(loadShared(path).func('float nearest(float)')(2.6), 3)
})

test('checking turns a warning into an error', async () => {
  const source = 'int odd(void) { int never; return never; }\n'
  await compileShared({ name: 'warn', source })
  await assert.rejects(compileShared({ name: 'warn', source, checking: true }), says(/error/, /warn-\w+\.c/))
})

test('sanitized code loads in this process', async () => {
  const { path } = await compileShared({ name: 'add', source: add, sanitize: true })
  assert.equal(loadShared(path).func('double add(double, double)')(1, 1), 2)
})

test('a source the compiler rejects: its first error line, and the source is kept', async () => {
  const broken = compileShared({ name: 'broken', source: 'int f(void) { return undeclared_name; }\n' })
  await assert.rejects(broken, (error: unknown) => {
    says(/undeclared_name/, /broken-\w+\.c/)(error)
    const kept = /expected (\S+\.c) to compile/.exec((error as Error).message)?.[1]
    assert.ok(kept && existsSync(kept))
    return true
  })
})

test('no compiler at CC', async () => {
  process.env['CC'] = '/nonexistent'
  await assert.rejects(findCompiler(), says(/CC=\/nonexistent/, /not found/, /unset it/))
  await assert.rejects(compileShared({ name: 'add', source: add }), says(/not found/))
})

test('no compiler at all: what to install', async () => {
  const path = process.env['PATH']
  delete process.env['CC']
  process.env['PATH'] = folder
  try {
    await assert.rejects(
      findCompiler(),
      says(/gcc: not found/, /apt-get install gcc|xcode-select --install|WSL/),
    )
  } finally {
    setEnvironment('PATH', path)
  }
})

test('a compiler that does not run, and one that answers but cannot compile', async () => {
  process.env['CC'] = script('dead', 'echo "cannot start" >&2; exit 1')
  await assert.rejects(findCompiler(), says(/CC=.*dead/, /exit code 1/, /cannot start/))
  process.env['CC'] = script(
    'half',
    '[ "$1" = --version ] && echo "gcc 99" && exit 0\necho "error: no linker" >&2; exit 1',
  )
  await assert.rejects(compileShared({ name: 'add', source: add }), says(/half/, /error: no linker/, /CC=/))
  process.env['CC'] = script('silent', '[ "$1" = --version ] && echo "clang 99" && exit 0\nexit 3')
  assert.equal((await findCompiler()).kind, 'clang')
  await assert.rejects(compileShared({ name: 'add', source: add }), says(/exit code 3/))
})

test('a library that cannot be loaded says how to get a new one', () => {
  const path = join(folder, 'damaged.so')
  writeFileSync(path, 'not a library')
  assert.throws(() => loadShared(path), says(/damaged\.so/, /delete that file/))
})

test('a cache that cannot be made names ANNEAL_CACHE', () => {
  const kept = process.env['ANNEAL_CACHE']
  const file = join(folder, 'file')
  writeFileSync(file, '')
  process.env['ANNEAL_CACHE'] = join(file, 'cache')
  try {
    assert.throws(cacheDir, says(/file\/cache/, /set ANNEAL_CACHE/))
  } finally {
    setEnvironment('ANNEAL_CACHE', kept)
  }
})

test('the machine is described the same way by the compiler and from the cache', async () => {
  const asked = await machine()
  assert.deepEqual(await machine(), asked)
  assert.ok(asked.cores >= 1 && asked.cpuModel.length > 0)
  const file = readdirSync(cacheDir()).find((name) => name.startsWith('machine-'))
  writeFileSync(join(cacheDir(), file ?? 'none'), '{"torn"')
  assert.deepEqual(await machine(), asked)
})

test('features follow from macros', () => {
  const macros = ['__SSE2__', '__AVX2__', '__FMA__', '__AVX512F__']
    .map((name) => `#define ${name} 1\n`)
    .join('')
  assert.deepEqual(featuresFromMacros(macros), ['avx512f', 'avx2', 'fma'])
  assert.deepEqual(featuresFromMacros('#define __AVX512FP16__ 1\n'), [])
})

test('ANNEAL_OPTIMIZE makes another library, and a level that is none is a mistake', async () => {
  const kept = process.env['ANNEAL_OPTIMIZE']
  try {
    setEnvironment('ANNEAL_OPTIMIZE', undefined)
    const { path } = await compileShared({ name: 'add', source: add })
    setEnvironment('ANNEAL_OPTIMIZE', '1')
    assert.notEqual((await compileShared({ name: 'add', source: add })).path, path)
    setEnvironment('ANNEAL_OPTIMIZE', 'fast')
    await assert.rejects(compileShared({ name: 'add', source: add }), /ANNEAL_OPTIMIZE.*fast.*0, 1, 2 or 3/s)
  } finally {
    setEnvironment('ANNEAL_OPTIMIZE', kept)
  }
})

test('ANNEAL_ISA restricts instructions, and a name it does not know is a mistake', async () => {
  const kept = process.env['ANNEAL_ISA']
  try {
    setEnvironment('ANNEAL_ISA', undefined)
    const all = await machine()
    if (process.arch === 'x64') {
      process.env['ANNEAL_ISA'] = 'sse2'
      const few = await machine()
      assert.equal(few.vectorBytes, 16)
      assert.ok(!few.features.includes('avx2'))
      const { path } = await compileShared({ name: 'add', source: add })
      setEnvironment('ANNEAL_ISA', undefined)
      assert.notEqual((await compileShared({ name: 'add', source: add })).path, path)
    }
    process.env['ANNEAL_ISA'] = 'avx3'
    await assert.rejects(machine(), says(/ANNEAL_ISA/, /avx3/, /unset it/))
    setEnvironment('ANNEAL_ISA', undefined)
    assert.deepEqual(await machine(), all)
  } finally {
    setEnvironment('ANNEAL_ISA', kept)
  }
})

test('instructions for bf16 products follow from features and vendor', () => {
  const amd = 'vendor_id\t: AuthenticAMD'
  const intel = 'vendor_id\t: GenuineIntel'
  const all = ['avx512f', 'avx512_bf16', 'avx512_vnni']
  assert.equal(bf16ProductsOf(all, amd), 'bf16')
  assert.equal(bf16ProductsOf(all, intel), 'i16')
  assert.equal(bf16ProductsOf(['avx512f', 'avx512_vnni'], amd), 'i16')
  assert.equal(bf16ProductsOf(['avx2', 'fma'], amd), undefined)
})
