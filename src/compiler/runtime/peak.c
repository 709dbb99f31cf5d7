/* What this machine can do: independent fused multiply-add chains on all threads, and a copy of memory beyond the caches. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));
#define CHAINS 12 /* more than latency times ports */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

typedef struct {
  double seconds, operations;
} Slice;

static void *multiply_add(void *argument) {
  Slice *const slice = argument;
  vector x[CHAINS];
  for (int i = 0; i < CHAINS; i++)
    for (int j = 0; j < (int)(VECTOR_BYTES / 4); j++) x[i][j] = 1.0f + i + j;
  vector a = x[0] * 0.0f + 0.999f, b = x[0] * 0.0f + 0.001f;
  const double start = now();
  int64_t rounds = 0;
  do {
    for (int k = 0; k < 20000; k++)
      _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) x[i] = x[i] * a + b;
    __asm__ volatile("" : "+m"(x));
    rounds += 20000;
  } while (now() - start < 0.03);
  slice->seconds = now() - start;
  slice->operations = 2.0 * rounds * CHAINS * (VECTOR_BYTES / 4);
  return 0;
}

/* Best of several slices, FLOP/s over all threads together. */
double peak_flops(const int threads, const int slices) {
  double best = 0;
  pthread_t thread[256];
  Slice result[256];
  for (int s = 0; s < slices; s++) {
    for (int i = 0; i < threads; i++) pthread_create(&thread[i], 0, multiply_add, &result[i]);
    double rate = 0;
    for (int i = 0; i < threads; i++) {
      pthread_join(thread[i], 0);
      rate += result[i].operations / result[i].seconds;
    }
    if (rate > best) best = rate;
  }
  return best;
}

typedef struct {
  char *from, *to;
  size_t bytes;
} Part;

static void *copy(void *argument) {
  Part *const part = argument;
  memcpy(part->to, part->from, part->bytes);
  return 0;
}

/* Bytes read plus bytes written a second, best of several copies. */
double copy_bandwidth(const int threads, const int64_t bytes, const int slices) {
  char *const from = malloc(bytes), *const to = malloc(bytes);
  if (!from || !to) return 0;
  memset(from, 1, bytes);
  memset(to, 2, bytes);
  double best = 0;
  pthread_t thread[256];
  Part part[256];
  for (int s = 0; s < slices; s++) {
    const double start = now();
    for (int i = 0; i < threads; i++) {
      const size_t share = bytes / threads;
      part[i] = (Part){from + i * share, to + i * share, share};
      pthread_create(&thread[i], 0, copy, &part[i]);
    }
    for (int i = 0; i < threads; i++) pthread_join(thread[i], 0);
    const double rate = 2.0 * bytes / (now() - start);
    if (rate > best) best = rate;
  }
  free(from);
  free(to);
  return best;
}
