// What this machine can do at best, all threads at once: f32 fused multiply-adds per second (and dot products
// of bf16 where there is an instruction for them) from registers alone, and
// bytes copied per second between buffers of a given size. Compiled by peak.ts with -DVECTOR_BYTES=16|32|64.
// Every slice lasts SLICE seconds and all threads start it together; the best slice counts, since other programs on the
// machine can only slow one down.
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));

enum {
  SLICES = 9,
  // Two FMA units of latency 4 or 5 need 8 to 10 chains; with the two operands 14 registers, fitting the 16 of AVX2.
  CHAINS = 12,
  ROUNDS = 4096,
  COPY_CHUNK = 1 << 20,
};
static const double SLICE = 0.03;

typedef struct Team Team;
// Work done in one slice of a thread, per second; `memory` of so many bytes is the thread's own.
typedef double Slice(char *memory, size_t bytes);

struct Team {
  int threads;
  Slice *slice;
  size_t memory;
  atomic_int arrived;
  atomic_int failed;
};

typedef struct {
  Team *team;
  double rate[SLICES];
} Worker;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

// Waits for the whole team, the n-th time (from 1). Yields, so that more threads than cores still get on.
static void meet(Team *team, int n) {
  atomic_fetch_add(&team->arrived, 1);
  while (atomic_load(&team->arrived) < n * team->threads) sched_yield();
}

static double multiplyAdd(char *memory, size_t bytes) {
  (void)bytes;
  Vector chain[CHAINS], scale, shift;
  // Through volatile, or the compiler would do the sums itself; near 1, since subnormals would be slow.
  volatile float one = 0.999f, small = 0.001f;
  for (int i = 0; i < CHAINS; i++) chain[i] = (Vector){0} + one + (float)i;
  scale = (Vector){0} + one;
  shift = (Vector){0} + small;
  double start = now(), seconds;
  long rounds = 0;
  do {
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 16
      for (int i = 0; i < CHAINS; i++) chain[i] = chain[i] * scale + shift;
    }
    rounds += ROUNDS;
    seconds = now() - start;
  } while (seconds < SLICE);
  Vector sum = {0};
  for (int i = 0; i < CHAINS; i++) sum += chain[i];
  memcpy(memory, &sum, sizeof sum);
  return 2.0 * (VECTOR_BYTES / sizeof(float)) * CHAINS * rounds / seconds;
}

#ifdef __AVX512BF16__
// One instruction multiplies 32 pairs of bf16 and adds them to 16 sums in f32.
static double dotProducts(char *memory, size_t bytes) {
  (void)bytes;
  __m512 chain[CHAINS];
  volatile float one = 0.999f;
  for (int i = 0; i < CHAINS; i++) chain[i] = _mm512_set1_ps((float)i);
  const __m512bh left = _mm512_cvtne2ps_pbh(_mm512_set1_ps(one), _mm512_set1_ps(-one));
  const __m512bh right = _mm512_cvtne2ps_pbh(_mm512_set1_ps(one), _mm512_set1_ps(one));
  double start = now(), seconds;
  long rounds = 0;
  do {
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 16
      for (int i = 0; i < CHAINS; i++) chain[i] = _mm512_dpbf16_ps(chain[i], left, right);
    }
    rounds += ROUNDS;
    seconds = now() - start;
  } while (seconds < SLICE);
  __m512 sum = _mm512_setzero_ps();
  for (int i = 0; i < CHAINS; i++) sum = _mm512_add_ps(sum, chain[i]);
  memcpy(memory, &sum, sizeof sum);
  return 2.0 * 32 * CHAINS * rounds / seconds;
}
#endif

// From the first half to the second, around and around.
static double copy(char *memory, size_t bytes) {
  double start = now(), seconds, copied = 0;
  size_t half = bytes / 2;
  static _Thread_local size_t at = 0;
  do {
    memcpy(memory + half + at, memory + at, COPY_CHUNK);
    at = (at + COPY_CHUNK) % half;
    copied += COPY_CHUNK;
    seconds = now() - start;
  } while (seconds < SLICE);
  return copied / seconds;
}

static void *work(void *argument) {
  Worker *worker = argument;
  Team *team = worker->team;
  char *memory = malloc(team->memory);
  if (memory) memset(memory, 1, team->memory);
  else atomic_store(&team->failed, 1);
  for (int s = 0; s < SLICES; s++) {
    meet(team, s + 1);
    worker->rate[s] = atomic_load(&team->failed) ? 0 : team->slice(memory, team->memory);
  }
  free(memory);
  return NULL;
}

// The best slice's sum over all threads, or -1 when threads or memory were refused.
static double best(int threads, Slice *slice, size_t memory) {
  Team team = {.threads = threads, .slice = slice, .memory = memory};
  Worker *workers = calloc(threads, sizeof *workers);
  pthread_t *ids = calloc(threads, sizeof *ids);
  if (!workers || !ids) {
    free(workers);
    free(ids);
    return -1;
  }
  int started = 0;
  for (; started < threads; started++) {
    workers[started].team = &team;
    if (pthread_create(&ids[started], NULL, work, &workers[started])) break;
  }
  if (started < threads) {
    atomic_store(&team.failed, 1);
    // The missing members arrive at every meeting at once, and the others leave.
    atomic_fetch_add(&team.arrived, SLICES * (threads - started));
  }
  for (int t = 0; t < started; t++) pthread_join(ids[t], NULL);
  double most = -1;
  for (int s = 0; s < SLICES && !atomic_load(&team.failed); s++) {
    double sum = 0;
    for (int t = 0; t < threads; t++) sum += workers[t].rate[s];
    if (sum > most) most = sum;
  }
  free(workers);
  free(ids);
  return most;
}

double anneal_peak_flops(int threads) { return best(threads, multiplyAdd, VECTOR_BYTES); }

#ifdef __AVX512BF16__
int anneal_has_bf16(void) { return 1; }
double anneal_peak_bf16(int threads) { return best(threads, dotProducts, 64); }
#else
int anneal_has_bf16(void) { return 0; }
double anneal_peak_bf16(int threads) { return (void)threads, -1; }
#endif

// `megabytes` (2^20 bytes) are the source of one thread.
double anneal_peak_copy(int threads, int megabytes) { return best(threads, copy, 2 * (size_t)megabytes << 20); }
