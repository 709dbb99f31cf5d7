/*
 * A program that needs no Node: fills its inputs (of every rank the same), runs some steps, and prints for each output
 * of the first rank a hash of its bytes and the largest magnitude. It follows the emitted text, which defines the
 * exports, and the tables `inputs`, `outputs` and `guards`. The address sanitizer sees one arena, so it is told of the gaps between the buffers in it.
 * Usage: PROGRAM [steps]. Exit code 1 when memory is refused or an output is not finite.
 */
#include <stdio.h>
#include <stdlib.h>
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

static double read_element(const char *const at, const int64_t i, const enum element type) {
  switch (type) {
  case F32: return ((const float *)at)[i];
  case F64: return ((const double *)at)[i];
  case BF16: return bf16_to_f32(((const bf16 *)at)[i]);
  case F16: return f16_to_f32(((const f16 *)at)[i]);
  case I32: return ((const int32_t *)at)[i];
  default: return ((const uint8_t *)at)[i];
  }
}

static void write_element(char *const at, const int64_t i, const enum element type, const double value) {
  switch (type) {
  case F32: ((float *)at)[i] = (float)value; break;
  case F64: ((double *)at)[i] = value; break;
  case BF16: ((bf16 *)at)[i] = f32_to_bf16((float)value); break;
  case F16: ((f16 *)at)[i] = f32_to_f16((float)value); break;
  case I32: ((int32_t *)at)[i] = (int32_t)value; break;
  default: ((uint8_t *)at)[i] = (uint8_t)value;
  }
}

static int is_float(const enum element type) { return type == F32 || type == F64 || type == BF16 || type == F16; }

/* Uniform in [low, high): element i of input n is a function of (n, i); whole numbers are rounded down. */
static void fill(char *const arena, const slot *const input, const int number) {
  for (int64_t i = 0; i < input->count; i++) {
    const double value = input->low + (input->high - input->low) * (double)uniform_f32(number, 0, 0, 0, (uint64_t)i);
    write_element(arena + input->offset, i, input->type, is_float(input->type) ? value : floor(value));
  }
}

/* Prints one output; 1 when all of it is finite. */
static int report(const char *const arena, const slot *const output) {
  const char *const at = arena + output->offset;
  uint64_t hash = 14695981039346656037u; /* FNV-1a, a public-domain hash */
  for (int64_t i = 0; i < output->bytes; i++) hash = (hash ^ (uint8_t)at[i]) * 1099511628211u;
  double largest = 0;
  int finite = 1;
  for (int64_t i = 0; i < output->count; i++) {
    const double size = fabs(read_element(at, i, output->type));
    if (!isfinite(size)) finite = 0;
    if (size > largest) largest = size;
  }
  printf("%s %016llx %.9g%s\n", output->path, (unsigned long long)hash, largest, finite ? "" : " not finite");
  return finite;
}

int main(const int count, char **const arguments) {
  const int steps = count > 1 ? atoi(arguments[1]) : 1;
  char *const arena = anneal_open();
  if (!arena) {
    fprintf(stderr, "no memory for %lld bytes\n", (long long)anneal_arena_bytes());
    return 1;
  }
  for (int rank = 0; rank < HOSTED; rank++) {
    char *const own = anneal_arena(rank);
#ifdef __SANITIZE_ADDRESS__
    for (int i = 0; i < GUARDS; i++) __asan_poison_memory_region(own + guards[i].offset, (size_t)guards[i].bytes);
#else
    (void)guards;
#endif
    for (int i = 0; i < INPUTS; i++) fill(own, &inputs[i], i);
  }
  for (int step = 0; step < steps; step++) anneal_run();
  int finite = 1;
  for (int i = 0; i < OUTPUTS; i++) finite &= report(arena, &outputs[i]);
  anneal_close();
  return finite ? 0 : 1;
}
