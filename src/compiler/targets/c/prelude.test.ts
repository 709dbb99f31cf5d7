/** The prelude's functions against Math.* in float64, 16-bit floats over all codes, Philox against TypeScript, the barrier. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { philoxUniform, philoxWord } from '../../graph/philox.ts'
import { roundF16 } from '../../graph/round.ts'
import { compileC, onTeam } from './harness.ts'
import { prelude, uniqueSupport } from './prelude.ts'

const threads = 3
const functions = ['exp', 'log', 'sin', 'cos', 'tanh', 'erf', 'sqrt', 'floor'] as const
const library = await compileC(
  `
${prelude({ threads, vectorBytes: 32, registers: 16 })}
#include <pthread.h>
${functions.map((name) => `void map_${name}(long n, const float *x, float *y) { for (long i = 0; i < n; i++) y[i] = ${name}_f32(x[i]); }`).join('\n')}
void narrow(long n, const float *x, bf16 *y) { for (long i = 0; i < n; i++) y[i] = f32_to_bf16(x[i]); }
void widen(long n, const bf16 *x, float *y) { for (long i = 0; i < n; i++) y[i] = bf16_to_f32(x[i]); }
void narrow_half(long n, const float *x, f16 *y) { for (long i = 0; i < n; i++) y[i] = f32_to_f16(x[i]); }
void widen_half(long n, const f16 *x, float *y) { for (long i = 0; i < n; i++) y[i] = f16_to_f32(x[i]); }
void words(double seed, double stream, double from, long n, uint32_t *y) {
  for (long i = 0; i < n; i++) y[i] = philox_u32((uint64_t)seed, (uint64_t)stream, (uint64_t)from + (uint64_t)i);
}
void uniforms(int seed, int step, int stream, int salt, long n, float *y) {
  for (long i = 0; i < n; i++) y[i] = uniform_f32(seed, step, (uint32_t)stream, salt, (uint64_t)i);
}
void horizontal(const float *x, const double *z, float *y, double *w) {
  y[0] = hsum_f32(*(const vf32u *)x), y[1] = hmax_f32(*(const vf32u *)x);
  w[0] = hsum_f64(*(const vf64u *)z), w[1] = hmax_f64(*(const vf64u *)z);
}
/* Each round, a thread checks that it sees what its neighbour wrote before the barrier. */
static void rounds(const int tid, int32_t *cells, int32_t *wrong) {
  for (int32_t round = 1; round <= 2000; round++) {
    cells[tid * 16] = round;
    team_barrier(tid);
    if (cells[(tid + 1) % THREADS * 16] != round) wrong[tid]++;
    team_barrier(tid);
    COUNT(2);
  }
}
${onTeam('meet', 'rounds', 2)}
double counted(void) { return (double)counted_operations(); }
`,
)

const map = (name: string, x: Float32Array): Float32Array => {
  const y = new Float32Array(x.length)
  library.func(`void map_${name}(long n, const float *x, _Out_ float *y)`)(x.length, x, y)
  return y
}

/** Largest error of an f32 function over [low, high], relative to max(|exact|, floor). */
function worst(name: string, exact: (x: number) => number, low: number, high: number, floor = 0): number {
  const x = Float32Array.from({ length: 200_000 }, (_, i) => low + ((high - low) * i) / 199_999)
  const y = map(name, x)
  let error = 0
  for (let i = 0; i < x.length; i++) {
    const want = exact(x[i]!)
    if (want !== y[i]!) error = Math.max(error, Math.abs(y[i]! - want) / Math.max(Math.abs(want), floor))
  }
  return error
}

/** erf by its Maclaurin series, and by a continued fraction of erfc in the tail; good to 1e-15. */
function erf(x: number): number {
  const size = Math.abs(x)
  if (size < 3) {
    let [term, sum] = [x, x]
    for (let n = 1; n < 120; n++) {
      term *= (-x * x) / n
      sum += term / (2 * n + 1)
    }
    return (2 / Math.sqrt(Math.PI)) * sum
  }
  let fraction = size
  for (let n = 60; n > 0; n--) fraction = size + n / 2 / fraction
  return Math.sign(x) * (1 - Math.exp(-size * size) / (fraction * Math.sqrt(Math.PI)))
}

test('f32 functions are accurate over their range', () => {
  const bound = 3e-7
  const cases: [string, (x: number) => number, number, number, number?][] = [
    ['exp', Math.exp, -87.3, 88.72],
    ['exp', Math.exp, -1, 1],
    ['exp', Math.exp, -1e-3, 1e-3],
    ['log', Math.log, 1e-6, 4],
    ['log', Math.log, 0.9, 1.1],
    ['log', Math.log, 1, 3e38],
    ['log', Math.log, 1e-45, 1e-37],
    ['sin', Math.sin, -3, 3],
    ['sin', Math.sin, -1e4, 1e4, 1],
    ['cos', Math.cos, -1.5, 1.5],
    ['cos', Math.cos, -1e4, 1e4, 1],
    ['tanh', Math.tanh, -10, 10],
    ['tanh', Math.tanh, -1e-3, 1e-3],
    ['erf', erf, -5, 5],
    ['erf', erf, -1e-3, 1e-3],
    ['sqrt', Math.sqrt, 0, 1e10],
    ['floor', Math.floor, -1000, 1000],
  ]
  for (const [name, exact, low, high, floor] of cases) {
    const error = worst(name, exact, low, high, floor)
    assert.ok(error <= bound, `${name} on [${low}, ${high}]: error ${error}`)
  }
})

test('f32 functions at the special values', () => {
  const special = Float32Array.of(0, -0, Infinity, -Infinity, NaN, 1e30, -1e30, -1, 89, -88)
  const expected: Record<string, number[]> = {
    exp: [1, 1, Infinity, 0, NaN, Infinity, 0, Math.fround(Math.exp(-1)), Infinity, 0],
    log: [
      -Infinity,
      -Infinity,
      Infinity,
      NaN,
      NaN,
      Math.fround(Math.log(1e30)),
      NaN,
      NaN,
      Math.fround(Math.log(89)),
      NaN,
    ],
    tanh: [0, -0, 1, -1, NaN, 1, -1, Math.fround(Math.tanh(-1)), 1, -1],
    erf: [0, -0, 1, -1, NaN, 1, -1, Math.fround(erf(-1)), 1, -1],
  }
  for (const [name, values] of Object.entries(expected)) {
    const got = map(name, special)
    values.forEach((value, i) => {
      const gap = Math.abs(got[i]! - value)
      const close = Number.isNaN(value)
        ? Number.isNaN(got[i]!)
        : got[i] === value || gap < 3e-7 * Math.abs(value)
      assert.ok(close, `${name}(${special[i]}) = ${got[i]}, expected ${value}`)
    })
  }
  assert.deepEqual([...map('sin', Float32Array.of(0, NaN))], [0, NaN])
  assert.deepEqual([...map('cos', Float32Array.of(0, NaN))], [1, NaN])
})

test('bf16 rounds to nearest even and keeps NaN, over all codes', () => {
  const codes = Uint16Array.from({ length: 65536 }, (_, i) => i)
  const wide = new Float32Array(65536)
  library.func('void widen(long n, const uint16_t *x, _Out_ float *y)')(65536, codes, wide)
  const narrow = library.func('void narrow(long n, const float *x, _Out_ uint16_t *y)')
  const back = new Uint16Array(65536)
  narrow(65536, wide, back)
  for (let i = 0; i < 65536; i++) assert.equal(back[i], Number.isNaN(wide[i]!) ? i | 0x40 : i)
  // Halfway points go to the even neighbour, and a little more goes up.
  const rounded = new Uint16Array(4)
  narrow(4, Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, 3.4e38), rounded)
  assert.deepEqual([...rounded], [0x3f80, 0x3f82, 0x3f81, 0x7f80])
})

/** The number a code of IEEE half precision stands for, from the format's definition. */
function halfOf(code: number): number {
  const [sign, exponent, fraction] = [code & 0x8000 ? -1 : 1, (code >> 10) & 31, code & 0x3ff]
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

test('f16 is exact over all codes both ways, and rounds to nearest even between any two neighbours', () => {
  const widen = library.func('void widen_half(long n, const uint16_t *x, _Out_ float *y)')
  const narrow = library.func('void narrow_half(long n, const float *x, _Out_ uint16_t *y)')
  const codes = Uint16Array.from({ length: 65536 }, (_, i) => i)
  const [wide, back] = [new Float32Array(65536), new Uint16Array(65536)]
  widen(65536, codes, wide)
  narrow(65536, wide, back)
  codes.forEach((code) => {
    assert.ok(Object.is(wide[code], halfOf(code)), `${code} widens to ${wide[code]}`)
    assert.equal(back[code], Number.isNaN(wide[code]!) ? code | 0x200 : code)
    assert.ok(Object.is(roundF16(wide[code]!), wide[code]))
  })
  // Between two neighbours: the midpoint goes to the even code, the next f32 on either side to the nearer one.
  const bits = new Uint32Array(1)
  const float = new Float32Array(bits.buffer)
  const beside = (x: number, by: number): number => {
    float[0] = x
    bits[0]! += by
    return float[0]
  }
  for (const sign of [0, 0x8000]) {
    // The neighbour of the largest number is 65,536, where infinity has its code.
    const size = (code: number): number => (code === 0x7c00 ? 65536 : halfOf(code))
    const inputs: number[] = []
    const want: number[] = []
    for (let code = 0; code < 0x7c00; code++) {
      const middle = (size(code) + size(code + 1)) / 2
      inputs.push(middle, beside(middle, -1), beside(middle, 1))
      want.push(code + (code % 2), code, code + 1)
    }
    const signed = Float32Array.from(inputs, (x) => (sign ? -x : x))
    const got = new Uint16Array(signed.length)
    narrow(signed.length, signed, got)
    want.forEach((code, i) => {
      assert.equal(got[i], code | sign, `${signed[i]}`)
      assert.ok(Object.is(roundF16(signed[i]!), halfOf(code | sign)), `reference: ${signed[i]}`)
    })
  }
  const special = new Uint16Array(5)
  narrow(5, Float32Array.of(Infinity, -Infinity, 3e38, 1e-45, NaN), special)
  assert.deepEqual([...special.subarray(0, 4)], [0x7c00, 0xfc00, 0x7c00, 0])
  assert.ok(Number.isNaN(halfOf(special[4]!)))
})

test('Philox in C gives the words of Philox in TypeScript', () => {
  const words = new Uint32Array(9)
  const call = library.func('void words(double seed, double stream, double from, long n, _Out_ uint32_t *y)')
  const seed = 0x3_0000_1234
  const stream = 0x5_89ab_cdef
  for (const from of [0, 2 ** 34 - 3]) {
    call(seed, stream, from, 9, words)
    const use = { seed: 0x1234, step: 3, stream: 0x89abcdef, salt: 5 }
    assert.deepEqual(
      [...words],
      Array.from({ length: 9 }, (_, i) => philoxWord(use, from + i)),
    )
  }
  const uniforms = new Float32Array(7)
  library.func('void uniforms(int seed, int step, int stream, int salt, long n, _Out_ float *y)')(
    -5,
    3,
    11,
    2,
    7,
    uniforms,
  )
  const use = { seed: -5, step: 3, stream: 11, salt: 2 }
  assert.deepEqual(
    [...uniforms],
    Array.from({ length: 7 }, (_, i) => philoxUniform(use, i)),
  )
})

test('horizontal sum and maximum', () => {
  const [y, w] = [new Float32Array(2), new Float64Array(2)]
  library.func('void horizontal(const float *x, const double *z, _Out_ float *y, _Out_ double *w)')(
    Float32Array.of(1, 2, 3, 40, 5, 6, 7, 8),
    Float64Array.of(-1, -2, -30, -4),
    y,
    w,
  )
  assert.deepEqual([...y, ...w], [72, 40, -37, -1])
})

test('the barrier orders writes on more threads than cores, and operations are counted', () => {
  const [cells, wrong] = [new Int32Array(16 * threads), new Int32Array(threads)]
  library.func('void meet(int32_t *cells, _Inout_ int32_t *wrong)')(cells, wrong)
  assert.deepEqual([...wrong], [0, 0, 0])
  assert.equal(library.func('double counted(void)')(), threads * 2000 * 2)
})

test('shared pieces are emitted once, in order of first use', () => {
  const pieces = ['b', 'a', 'b'].map((name) => ({ name, code: `/* ${name} */` }))
  assert.equal(uniqueSupport(pieces), '/* b */\n/* a */')
})
