/*
 * Prelude of every emitted program: types, vector helpers, scalar mathematics, 16-bit floats, random numbers, the team barrier
 * and the operation counter. THREADS and VECTOR_BYTES are defined above it. The f32 functions have no data-dependent
 * branch and call no library, so that loops over them vectorise; compile without -ffast-math, which would re-associate
 * the roundings they rely on (adding and subtracting 1.5 * 2^23 rounds to the nearest integer).
 */
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if VECTOR_BYTES == 64 && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512") /* GCC 12 would vectorise loops by halves of a register */
#endif
#pragma GCC diagnostic ignored "-Wunused-function"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Waggressive-loop-optimizations" /* false alarms once a driver's plan is inlined */
#endif

#define INLINE static inline __attribute__((always_inline))

/* ---- vectors -------------------------------------------------------------------------------------------------- */

typedef uint16_t bf16, f16;
typedef float vf32 __attribute__((vector_size(VECTOR_BYTES)));
typedef double vf64 __attribute__((vector_size(VECTOR_BYTES)));
/* The same at any address. */
typedef float vf32u __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef double vf64u __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
#define LANES_f32 (VECTOR_BYTES / 4)
#define LANES_f64 (VECTOR_BYTES / 8)

/* GCC's C has no ?: on vectors: lanes are chosen by bits, and a comparison gives all ones or zeros. */
typedef int32_t vmask_f32 __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t vmask_f64 __attribute__((vector_size(VECTOR_BYTES)));
#define LANEWISE(DTYPE)                                                                                                \
  INLINE v##DTYPE vselect_##DTYPE(const vmask_##DTYPE where, const v##DTYPE yes, const v##DTYPE no) {                  \
    return (v##DTYPE)((where & (vmask_##DTYPE)yes) | (~where & (vmask_##DTYPE)no));                                    \
  }                                                                                                                    \
  INLINE v##DTYPE vmax_##DTYPE(const v##DTYPE a, const v##DTYPE b) {                                                   \
    return vselect_##DTYPE((vmask_##DTYPE)(a < b), b, a);                                                              \
  }
LANEWISE(f32)
LANEWISE(f64)

/* Horizontal sum and maximum: halves are combined until one lane is left, always in this order. */
#define QUARTER_f32(x, i) __builtin_shufflevector(x, x, 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3)
#define QUARTER_f64(x, i) __builtin_shufflevector(x, x, 2 * (i), 2 * (i) + 1)
#if VECTOR_BYTES == 64
#define FOLD(DTYPE, OP, x) OP(OP(QUARTER_##DTYPE(x, 0), QUARTER_##DTYPE(x, 2)), OP(QUARTER_##DTYPE(x, 1), QUARTER_##DTYPE(x, 3)))
#elif VECTOR_BYTES == 32
#define FOLD(DTYPE, OP, x) OP(QUARTER_##DTYPE(x, 0), QUARTER_##DTYPE(x, 1))
#else
#define FOLD(DTYPE, OP, x) (x)
#endif
#define PLUS(a, b) ((a) + (b))
#define MAXIMUM(a, b) ((a) < (b) ? (b) : (a))
typedef float quarter_f32 __attribute__((vector_size(16)));
typedef double quarter_f64 __attribute__((vector_size(16)));
INLINE float hsum_f32(const vf32 x) {
  const quarter_f32 y = FOLD(f32, PLUS, x);
  return (y[0] + y[2]) + (y[1] + y[3]);
}
INLINE double hsum_f64(const vf64 x) {
  const quarter_f64 y = FOLD(f64, PLUS, x);
  return y[0] + y[1];
}
INLINE quarter_f32 maximum_f32(const quarter_f32 a, const quarter_f32 b) {
  typedef int32_t bits __attribute__((vector_size(16)));
  const bits less = (bits)(a < b);
  return (quarter_f32)((less & (bits)b) | (~less & (bits)a));
}
INLINE quarter_f64 maximum_f64(const quarter_f64 a, const quarter_f64 b) {
  typedef int64_t bits __attribute__((vector_size(16)));
  const bits less = (bits)(a < b);
  return (quarter_f64)((less & (bits)b) | (~less & (bits)a));
}
INLINE float hmax_f32(const vf32 x) {
  const quarter_f32 y = FOLD(f32, maximum_f32, x);
  return MAXIMUM(MAXIMUM(y[0], y[2]), MAXIMUM(y[1], y[3]));
}
INLINE double hmax_f64(const vf64 x) {
  const quarter_f64 y = FOLD(f64, maximum_f64, x);
  return MAXIMUM(y[0], y[1]);
}

/* ---- bits and 16-bit floats ----------------------------------------------------------------------------------- */

INLINE uint32_t bits_of(const float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
INLINE float float_of(const uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

INLINE float bf16_to_f32(const bf16 x) { return float_of((uint32_t)x << 16); }

/* Round to nearest, ties to even; a NaN stays a (quiet) NaN. */
INLINE bf16 f32_to_bf16(const float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (bf16)(x != x ? (bits >> 16) | 0x40u : rounded);
}
INLINE float round_bf16(const float x) { return bf16_to_f32(f32_to_bf16(x)); }
/* Of a value that round_bf16 gave. */
INLINE bf16 bf16_of_rounded(const float x) { return (bf16)(bits_of(x) >> 16); }

/*
 * f16 without branches, so that loops over it vectorise: GCC does not vectorise the conversion instructions, one of which
 * takes longer than its share of this arithmetic. The same values as theirs: nearest, ties to even, infinity from 65,520
 * on, numbers below 2^-14 as multiples of 2^-24, a NaN stays a NaN.
 */
INLINE float f16_to_f32(const f16 x) {
  const uint32_t size = x & 0x7fffu;
  const uint32_t normal = (size << 13) + (size < 0x7c00u ? 112u << 23 : 224u << 23);
  const uint32_t small = bits_of((float)(int32_t)size * 0x1p-24f);
  return float_of((size < 0x400u ? small : normal) | (uint32_t)(x & 0x8000u) << 16);
}
INLINE f16 f32_to_f16(const float x) {
  const uint32_t bits = bits_of(x), size = bits & 0x7fffffffu;
  const uint32_t normal = (size - (112u << 23) + 0xfffu + ((size >> 13) & 1u)) >> 13;
  const uint32_t small = bits_of(float_of(size) + 0.5f) - bits_of(0.5f); /* the unit of 0.5 is 2^-24 */
  const uint32_t large = size > 0x7f800000u ? 0x7e00u | ((size >> 13) & 0x3ffu) : 0x7c00u;
  const uint32_t finite = size < 0x38800000u ? small : normal;
  return (f16)((size < 0x477ff000u ? finite : large) | ((bits >> 16) & 0x8000u));
}
INLINE float round_f16(const float x) { return f16_to_f32(f32_to_f16(x)); }
#define f16_of_rounded f32_to_f16

/* ---- f32 functions -------------------------------------------------------------------------------------------- */

#define ROUNDING_MAGIC 12582912.0f /* 1.5 * 2^23 */

/*
 * (e^r - 1) / r for |r| <= ln2 / 2, off by at most 1.4e-8. Summed by halves, not from one end: loops over such functions
 * are bound by how long one operation waits for another.
 */
INLINE float exp_quotient(const float r) {
  const float square = r * r;
  const float low = 0.5f * r + 1.0f;
  const float middle = 4.16662805e-2f * r + 1.66665420e-1f;
  const float high = 1.39465544e-3f * r + 8.36664438e-3f;
  return (high * square + middle) * square + low;
}

/*
 * e^x = 2^n e^r with x = n ln2 + r. The rounded bits of x / ln2 hold n in their lowest places: shifted by 23, which drops
 * the rest, they are added to the exponent of e^r, which reaches 2^128 e^r where that is a float, though 2^128 is not.
 * Results below the smallest normal number become 0 (denormals are slow).
 */
INLINE float exp_f32(const float x) {
  const float low = -87.336544f, high = 88.722839f;
  const float shifted = x * 1.44269504f + ROUNDING_MAGIC;
  const float whole = shifted - ROUNDING_MAGIC;
  const float r = (x - whole * 0.693145751953125f) - whole * 1.42860682e-6f;
  const float value = float_of(bits_of(exp_quotient(r) * r + 1.0f) + (bits_of(shifted) << 23));
  const float above = x <= high ? value : x + INFINITY; /* infinity or NaN */
  return x < low ? 0.0f : above;
}

/* log x = n ln2 + log m with sqrt(1/2) <= m < sqrt(2); the polynomial is that of Cephes logf. */
INLINE float log_f32(const float x) {
  const int tiny = x < 1.17549435e-38f;
  const float y = tiny ? x * 8388608.0f : x;
  const uint32_t bits = bits_of(y);
  const uint32_t offset = bits - 0x3f3504f3u; /* sqrt(1/2) */
  const int32_t n = ((int32_t)offset >> 23) - (tiny ? 23 : 0);
  const float m = float_of((offset & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  const float square = m * m, whole = (float)n;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float tail = m * square * p + whole * -2.12194440e-4f - 0.5f * square;
  float value = m + tail + whole * 0.693359375f;
  value = x == 0.0f ? -INFINITY : value;
  value = x < 0.0f ? NAN : value;
  return x < INFINITY ? value : x; /* infinity and NaN */
}

/* Sine of x + quarter * pi/2: Cody-Waite reduction in three parts, exact products for |x| <= 1e4. */
INLINE float sine(const float x, const uint32_t quarter) {
  const float shifted = x * 0.636619772f + ROUNDING_MAGIC;
  const float whole = shifted - ROUNDING_MAGIC;
  const uint32_t quadrant = bits_of(shifted) + quarter;
  const float r = ((x - whole * 1.5703125f) - whole * 4.837512969970703e-4f) - whole * 7.54978995489e-8f;
  const float square = r * r;
  float s = -1.9515295891e-4f;
  s = s * square + 8.3321608736e-3f;
  s = s * square - 1.6666654611e-1f;
  s = s * square * r + r;
  float c = 2.443315711809948e-5f;
  c = c * square - 1.388731625493765e-3f;
  c = c * square + 4.166664568298827e-2f;
  c = c * square * square - 0.5f * square + 1.0f;
  const float value = quadrant & 1u ? c : s;
  return quadrant & 2u ? -value : value;
}
INLINE float sin_f32(const float x) { return sine(x, 0); }
INLINE float cos_f32(const float x) { return sine(x, 1); }

/*
 * (e^2x - 1) / (e^2x + 1) with 2x = n ln2 + r, where e^2x - 1 = 2^n (e^r - 1) + (2^n - 1) keeps its relative accuracy
 * near 0. 1 from |x| = 10 on.
 */
INLINE float tanh_f32(const float x) {
  const float size = fabsf(x);
  const float y = size > 10.0f ? 10.0f : size;
  const float shifted = y * 2.88539008f + ROUNDING_MAGIC;
  const float whole = shifted - ROUNDING_MAGIC;
  const float r = (y + y) - whole * 0.693147182f; /* the rounding of ln2 matters less than tanh flattens */
  const float power = float_of((bits_of(shifted) << 23) + 0x3f800000u);
  const float less = exp_quotient(r) * r * power + (power - 1.0f);
  return copysignf(less / (less + 2.0f), x);
}

/* Odd polynomial near 0, 1 - e^poly beyond; 1 from |x| = 4 on. */
INLINE float erf_f32(const float x) {
  const float size = fabsf(x), square = x * x;
  float p = -5.96761703e-4f;
  p = p * square + 4.99119423e-3f;
  p = p * square - 2.67681349e-2f;
  p = p * square + 1.12819925e-1f;
  p = p * square - 3.76125336e-1f;
  p = p * square + 1.28379166e-1f;
  const float near = p * x + x;
  const float t = size > 4.0f ? 4.0f : size;
  float q = -1.72853470e-5f;
  q = q * t + 3.83197126e-4f;
  q = q * t - 3.88396438e-3f;
  q = q * t + 2.42546219e-2f;
  q = q * t - 1.06777877e-1f;
  q = q * t - 6.34846687e-1f;
  q = q * t - 1.28717512e-1f;
  q = q * t - t;
  const float far = copysignf(1.0f - exp_f32(q), x);
  return size > 0.927734375f ? far : near;
}

/* Nearest number of an 8-bit format: adding 1.5 * 2^(23 - digits) times the power of two of x rounds x to its digits. */
INLINE float round_fp8_f32(const float x, const float largest, const float smallest, const float magic) {
  const float low = x < -largest ? -largest : x;
  const float y = low > largest ? largest : low;
  const uint32_t power = bits_of(y) & 0x7f800000u, least = bits_of(smallest);
  const float shift = float_of(power < least ? least : power) * magic;
  return float_of(bits_of((y + shift) - shift) | (bits_of(x) & 0x80000000u));
}
INLINE float power_floor_f32(const float x) { return x != x ? x : float_of(bits_of(x) & 0x7f800000u); }

/*
 * a * b, rounded. Contraction would let a sum take an unrounded product in, but only where both are in one kernel, so that
 * bits would depend on what is fused. A multiply-add of -0 is the product in every case, and nothing more goes into it.
 */
#if defined(__clang__) || !(defined(__FMA__) || defined(__ARM_FEATURE_FMA))
INLINE float product_f32(const float a, const float b) { return a * b; }
INLINE double product_f64(const double a, const double b) { return a * b; }
#else
INLINE float product_f32(const float a, const float b) { return __builtin_fmaf(a, b, -0.0f); }
INLINE double product_f64(const double a, const double b) { return __builtin_fma(a, b, -0.0); }
#endif

INLINE float sqrt_f32(const float x) { return __builtin_sqrtf(x); }
INLINE float floor_f32(const float x) { return __builtin_floorf(x); }

/* ---- f64 functions: the C library's ---------------------------------------------------------------------------- */

INLINE double exp_f64(const double x) { return exp(x); }
INLINE double log_f64(const double x) { return log(x); }
INLINE double sin_f64(const double x) { return sin(x); }
INLINE double cos_f64(const double x) { return cos(x); }
INLINE double tanh_f64(const double x) { return tanh(x); }
INLINE double erf_f64(const double x) { return erf(x); }
INLINE double sqrt_f64(const double x) { return __builtin_sqrt(x); }
INLINE double floor_f64(const double x) { return __builtin_floor(x); }

INLINE uint64_t bits_of_f64(const double x) {
  uint64_t bits;
  memcpy(&bits, &x, 8);
  return bits;
}
INLINE double f64_of(const uint64_t bits) {
  double x;
  memcpy(&x, &bits, 8);
  return x;
}
INLINE double round_fp8_f64(const double x, const double largest, const double smallest, const double magic) {
  const double low = x < -largest ? -largest : x;
  const double y = low > largest ? largest : low;
  const uint64_t power = bits_of_f64(y) & 0x7ff0000000000000u, least = bits_of_f64(smallest);
  const double shift = f64_of(power < least ? least : power) * magic;
  return f64_of(bits_of_f64((y + shift) - shift) | (bits_of_f64(x) & 0x8000000000000000u));
}
INLINE double power_floor_f64(const double x) { return x != x ? x : f64_of(bits_of_f64(x) & 0x7ff0000000000000u); }

/* e^x of every lane; the loop becomes straight vector code. */
INLINE vf32 vexp_f32(vf32 x) {
  float lane[LANES_f32];
  memcpy(lane, &x, sizeof x);
  for (int i = 0; i < LANES_f32; i++) lane[i] = exp_f32(lane[i]);
  memcpy(&x, lane, sizeof x);
  return x;
}
INLINE vf64 vexp_f64(vf64 x) {
  for (int i = 0; i < LANES_f64; i++) x[i] = exp_f64(x[i]);
  return x;
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

/*
 * Copies to memory that nothing reads soon: past the caches, which need not fetch the lines it fills. Other threads see
 * it after STREAMED.
 */
INLINE void stream(void *const to, const void *const from, const int64_t bytes) {
#if defined(__x86_64__)
  char *const out = to;
  const char *const in = from;
  const int64_t apart = -(int64_t)((uintptr_t)to & (VECTOR_BYTES - 1)) & (VECTOR_BYTES - 1);
  int64_t at = apart < bytes ? apart : bytes;
  memcpy(out, in, (size_t)at);
  for (; at + VECTOR_BYTES <= bytes; at += VECTOR_BYTES) {
    const vf32 value = *(const vf32u *)(in + at);
#if defined(__clang__)
    __builtin_nontemporal_store(value, (vf32 *)(out + at));
#elif VECTOR_BYTES == 64
    __builtin_ia32_movntps512((float *)(out + at), value);
#elif VECTOR_BYTES == 32
    __builtin_ia32_movntps256((float *)(out + at), value);
#else
    __builtin_ia32_movntps((float *)(out + at), value);
#endif
  }
  memcpy(out + at, in + at, (size_t)(bytes - at));
#else
  memcpy(to, from, (size_t)bytes);
#endif
}
#if defined(__x86_64__)
#define STREAMED __builtin_ia32_sfence();
#else
#define STREAMED
#endif

/* ---- random numbers ------------------------------------------------------------------------------------------- */

/*
 * Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3). Word index % 4 of the block with
 * counter = (index / 4 low, index / 4 high, stream low, stream high) and key = (seed low, seed high).
 */
INLINE uint32_t philox_u32(const uint64_t seed, const uint64_t stream, const uint64_t index) {
  uint32_t c0 = (uint32_t)(index >> 2), c1 = (uint32_t)(index >> 34);
  uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  _Pragma("GCC unroll 10") for (int round = 0; round < 10; round++) {
    const uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const uint32_t low = index & 1u ? c1 : c0, high = index & 1u ? c3 : c2;
  return index & 2u ? high : low;
}

/* Uniform in [0, 1) with 24 bits: element `index` of use `stream` at (seed, step, salt). */
INLINE float uniform_f32(const int32_t seed, const int32_t step, const uint32_t stream, const int32_t salt,
                         const uint64_t index) {
  const uint64_t key = (uint64_t)(uint32_t)step << 32 | (uint32_t)seed;
  const uint64_t use = (uint64_t)(uint32_t)salt << 32 | stream;
  return (float)(int32_t)(philox_u32(key, use, index) >> 8) * 0x1p-24f;
}

/* ---- the team ------------------------------------------------------------------------------------------------- */

/* Ranks of a mesh may be teams of one process: HOSTED of them, and a thread knows by its seat which is its own. */
#ifndef HOSTED
#define HOSTED 1
#endif
#if HOSTED == 1
#define seat 0
#else
static __thread int seat;
#endif

/* Operations really done, one padded cell a thread; only with -DANNEAL_COUNT, and then outside inner loops. */
#ifdef ANNEAL_COUNT
static struct {
  _Alignas(64) uint64_t operations;
} team_count[HOSTED][THREADS];
#define COUNT(n) (team_count[seat][tid].operations += (uint64_t)(n))
static uint64_t counted_operations(void) {
  uint64_t total = 0;
  for (int i = 0; i < HOSTED * THREADS; i++) total += team_count[i / THREADS][i % THREADS].operations;
  return total;
}
#else
#define COUNT(n) ((void)0)
#endif

typedef struct {
  _Alignas(64) _Atomic uint32_t arrived;
  _Alignas(64) _Atomic uint32_t generation;
  _Alignas(64) _Atomic uint32_t asleep;
} team_state;
static team_state teams[HOSTED];

INLINE void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* How often a waiter looks before it yields its core: a pause is 100 cycles or more, so not where others wait for that core. */
static int looks = 2000;

static void look_often_if_alone(void) {
#ifdef __linux__
  looks = HOSTED * THREADS > sysconf(_SC_NPROCESSORS_ONLN) ? 10 : 2000;
#endif
}

/*
 * Waits until all THREADS threads are here. A waiter spins, then yields its core, then sleeps, so that a team larger
 * than the free cores makes progress too. `asleep` is raised before the kernel compares `generation`, and read after
 * `generation` is raised: one side always sees the other.
 */
static void team_barrier(const int tid) {
  (void)tid;
  if (THREADS == 1) return;
  team_state *const team = &teams[seat];
  const uint32_t generation = atomic_load_explicit(&team->generation, memory_order_acquire);
  if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == THREADS - 1) {
    atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
    atomic_store(&team->generation, generation + 1);
#ifdef __linux__
    if (atomic_load(&team->asleep) > 0) syscall(SYS_futex, &team->generation, FUTEX_WAKE_PRIVATE, INT32_MAX, 0, 0, 0);
#endif
    return;
  }
  for (int i = 0; i < looks; i++) {
    if (atomic_load_explicit(&team->generation, memory_order_acquire) != generation) return;
    relax();
  }
  for (int i = 0; i < 50; i++) {
    if (atomic_load_explicit(&team->generation, memory_order_acquire) != generation) return;
    sched_yield();
  }
#ifdef __linux__
  atomic_fetch_add(&team->asleep, 1);
  while (atomic_load(&team->generation) == generation)
    syscall(SYS_futex, &team->generation, FUTEX_WAIT_PRIVATE, generation, 0, 0, 0);
  atomic_fetch_sub(&team->asleep, 1);
#else
  while (atomic_load_explicit(&team->generation, memory_order_acquire) == generation) sched_yield();
#endif
}
