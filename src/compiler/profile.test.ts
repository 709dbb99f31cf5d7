/**
 * The profile against what is known without it: bytes of a small program counted by hand, FLOPs of every program as the
 * graph declares them, kernel time within the wall clock, one lane of the trace for each thread, and machine code that a
 * build without the profile shares with a program that has no instrumentation at all.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { UserError } from '../errors.ts'
import { compile } from './compile.ts'
import type { Program } from './program.ts'
import { attention } from './composites/attention.ts'
import { rmsNorm } from './composites/norm.ts'
import { valueType, type ValueType } from './graph/types.ts'
import { chromeTrace, judge, memoryRate, type Profile } from './profile.ts'
import { findCompiler } from './runtime/compiler.ts'
import { baseFlags } from './runtime/toolchain.ts'
import { grad, scan } from './trace/functions.ts'
import type { Tensor } from './trace/tensor.ts'

const f32 = (...shape: number[]): ValueType => valueType('f32', shape)
const i32 = (...shape: number[]): ValueType => valueType('i32', shape)

/** A program with every kind of step: products, rows, table lookups, attention, a loop there and back. */
function everything(threads: number, profile = true): Promise<Program> {
  const inputs = {
    tokens: i32(2, 24),
    table: f32(50, 32),
    layers: { w: f32(3, 32, 96) },
    out: f32(32, 50),
  }
  return compile(
    ({ tokens, table, layers, out }) => {
      const x = table.take(tokens)
      const [last] = scan({ x }, layers, ({ x }, { w }) => {
        const qkv = rmsNorm(x as Tensor)
          .matmul(w as Tensor)
          .reshape([2, 24, 3, 4, 8])
        const [q, k, v] = [0, 1, 2].map((i) => qkv.slice(2, i, 1).reshape([2, 24, 4, 8]))
        const y = attention(q!, k!, v!, { causal: true }).reshape([2, 24, 32])
        return [{ x: (x as Tensor).add(y) }, {}]
      })
      const loss = (last['x'] as Tensor).matmul(out).square().mean()
      return { loss, gradients: grad(loss, { table, layers, out }) }
    },
    inputs,
    { threads, profile, name: 'everything' },
  )
}

const total = (numbers: readonly number[]): number => numbers.reduce((sum, x) => sum + x, 0)

async function profiled(program: Program, runs: number): Promise<Profile> {
  try {
    await program.run()
    program.profile()
    for (let i = 0; i < runs; i++) await program.run()
    return program.profile()
  } finally {
    program.close()
  }
}

for (const threads of [1, 2, 3]) {
  test(`FLOPs, calls and times of every kernel, ${threads} threads`, async () => {
    const program = await everything(threads)
    const profile = await profiled(program, 4)
    assert.equal(profile.runs, 4)
    assert.equal(total(profile.sites.map((site) => site.totalFlops)), 4 * program.flops)
    for (const { calls, callsPerRun, seconds } of profile.sites) {
      assert.equal(calls, 4 * callsPerRun)
      assert.ok(seconds > 0)
    }
    assert.ok(
      profile.sites.some(({ callsPerRun }) => callsPerRun === 3),
      'the loop runs three times',
    )
    const kernels = total(profile.sites.map(({ seconds }) => seconds))
    assert.ok(kernels <= profile.seconds, `${kernels} s in kernels, ${profile.seconds} s in all`)
    assert.ok(Math.abs(kernels + profile.waitingSeconds - profile.seconds) < 1e-9)
  })
}

test('the trace: valid JSON, a lane a thread, calls within the run and one after the other', async () => {
  const profile = await profiled(await everything(2), 2)
  interface TraceEvent {
    readonly ph: string
    readonly name: string
    readonly tid?: number
    readonly ts: number
    readonly dur: number
    readonly args: { readonly name?: string; readonly source?: string; readonly flops?: number }
  }
  const text = JSON.stringify(chromeTrace('everything', profile))
  const { traceEvents } = JSON.parse(text) as { readonly traceEvents: readonly TraceEvent[] }
  const names = traceEvents.filter(({ ph, name }) => ph === 'M' && name === 'thread_name')
  assert.deepEqual(
    names.map(({ args }) => args.name),
    ['thread 0', 'thread 1'],
  )
  for (const thread of [0, 1]) {
    const calls = traceEvents.filter(({ ph, tid }) => ph === 'X' && tid === thread)
    let end = 0
    for (const { ts, dur } of calls) {
      assert.ok(dur >= 0 && ts >= end - 1e-6, `${ts} begins before ${end}`)
      end = ts + dur
    }
    assert.ok(end <= profile.lastRun.seconds * 1e6 + 1e-6)
    assert.ok(calls.length > 0)
  }
  profile.sites.forEach(({ callsPerRun, pieces, kernel }, site) => {
    for (const thread of [0, 1]) {
      const events = profile.lastRun.events.filter((event) => event.site === site && event.thread === thread)
      assert.ok(events.length <= callsPerRun * pieces, `${kernel}: ${events.length} pieces`)
    }
    assert.ok(profile.lastRun.events.some((event) => event.site === site))
  })
  assert.equal(profile.lastRun.unrecorded, 0)
})

test('bytes of a small program, counted by hand', async () => {
  const program = await compile(
    ({ x, w, bias, tokens, table }) => ({
      product: x.matmul(w).add(bias).tanh(),
      rows: table.take(tokens).mul(2),
      corner: x
        .slice(0, 0, 16)
        .slice(1, 0, 4)
        .mul(x.slice(0, 0, 16).slice(1, 4, 4)),
    }),
    { x: f32(64, 128), w: f32(128, 256), bias: f32(256), tokens: i32(40), table: f32(1000, 64) },
    { threads: 2, profile: true, name: 'bytes' },
  )
  const { sites } = await profiled(program, 1)
  const bytesOf = (pattern: RegExp): number => {
    const found = sites.filter(({ ops }) => pattern.test(ops))
    assert.equal(found.length, 1, `${pattern}: ${sites.map(({ ops }) => ops).join(', ')}`)
    return found[0]!.bytes
  }
  assert.equal(bytesOf(/^dot/), 4 * (64 * 128 + 128 * 256 + 64 * 256))
  assert.equal(bytesOf(/tanh/), 4 * (64 * 256 + 256 + 64 * 256))
  // Forty rows of the table, not the table.
  assert.equal(bytesOf(/gather/), 4 * (40 + 40 * 64 + 40 * 64))
  assert.equal(bytesOf(/^mul$/), 4 * (2 * 16 * 4 + 16 * 4))
})

test('which limit of the machine a kernel is held against', () => {
  const peak = { flopsF32: 100e9, flopsBf16: 200e9, copyBytesPerSecond: 10e9, threads: 2 }
  assert.equal(memoryRate(peak), 20e9)
  const site = { kernel: 'dot_0', ops: 'dot', source: '', callsPerRun: 1, pieces: 1, calls: 10, seconds: 1 }
  const at = (flops: number, bytes: number, precision: 'f32' | 'f64' | 'bf16') =>
    judge({ ...site, flops, bytes, precision }, peak)
  assert.deepEqual(at(5e9, 1e6, 'f32'), { limit: 'f32', share: 0.5 })
  assert.deepEqual(at(5e9, 1e6, 'f64'), { limit: 'f64', share: 1 })
  assert.deepEqual(at(5e9, 1e6, 'bf16'), { limit: 'bf16', share: 0.25 })
  assert.deepEqual(at(1e6, 1e9, 'f32'), { limit: 'memory', share: 0.5 })
  const slow = { ...peak, flopsBf16: 50e9 }
  assert.deepEqual(judge({ ...site, flops: 5e9, bytes: 1e6, precision: 'bf16' }, slow), {
    limit: 'f32',
    share: 0.5,
  })
})

test('the text is the same with and without; results too', async () => {
  const [plain, timed] = [await everything(2, false), await everything(2)]
  try {
    assert.equal(timed.source, plain.source)
    for (const program of [plain, timed]) {
      program.write(
        'table',
        Float32Array.from({ length: 50 * 32 }, (_, i) => Math.sin(i)),
      )
      program.write(
        'layers.w',
        Float32Array.from({ length: 3 * 32 * 96 }, (_, i) => Math.cos(i)),
      )
      program.write(
        'out',
        Float32Array.from({ length: 32 * 50 }, (_, i) => Math.sin(3 * i)),
      )
      await program.run({ tokens: Int32Array.from({ length: 48 }, (_, i) => i) })
    }
    assert.deepEqual(timed.view('gradients.layers.w'), plain.view('gradients.layers.w'))
  } finally {
    plain.close()
    timed.close()
  }
})

test('without the flag, the machine code of a text that has no instrumentation', async () => {
  const program = await everything(2, false)
  program.close()
  const folder = mkdtempSync(join(tmpdir(), 'anneal-profile-'))
  const { path, args } = await findCompiler()
  const assembled = (source: string): string => {
    writeFileSync(join(folder, 'program.c'), source)
    const flags = baseFlags.filter((flag) => flag !== '-shared' && !flag.startsWith('-Wl'))
    execFileSync(path, [...args, ...flags, '-O1', '-S', '-o', 'program.s', 'program.c'], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'ignore'],
    })
    return readFileSync(join(folder, 'program.s'), 'utf8')
  }
  try {
    const bare = program.source
      .replaceAll(/\bSITE\(\d+\) /g, '')
      .replace('PROFILE_RUN {', '{')
      .replace(/#ifdef ANNEAL_PROFILE[^]*?#endif\n/, '')
    assert.ok(/\bSITE\(\d/.test(program.source) && !/\bSITE\(|#ifdef ANNEAL_PROFILE|PROFILE_RUN/.test(bare))
    assert.equal(assembled(bare), assembled(program.source))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('a program that was not compiled for it says how', async () => {
  const program = await compile(({ x }) => ({ y: x.mul(2) }), { x: f32(4) }, { name: 'plain' })
  try {
    assert.throws(
      () => program.profile(),
      (error) =>
        error instanceof UserError && /plain/.test(error.message) && /profile: true/.test(error.message),
    )
  } finally {
    program.close()
  }
})
