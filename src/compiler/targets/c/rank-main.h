/*
 * A program over several ranks that needs no Node: `PROGRAM FOLDER STEPS`. It follows the emitted text and the tables
 * `inputs` and `outputs`. With MPI each process is a rank, else all ranks are here.
 * Rank r reads FOLDER/rank-r.in: all inputs, one after the other as they lie in memory; then, for every further step,
 * those that are not state. It writes FOLDER/rank-r.out: for every step all outputs that are not state; in the end those
 * that are; FOLDER/rank-r.traffic: calls of each collective, and the bytes sent to each rank, as 64-bit integers.
 */
#include <errno.h>

static FILE *open_file(const char *const folder, const int rank, const char *const ending, const char *const mode) {
  char path[4096];
  snprintf(path, sizeof path, "%s/rank-%d.%s", folder, rank, ending);
  FILE *const file = fopen(path, mode);
  if (!file) fprintf(stderr, "error: %s: %s\n", path, strerror(errno));
  return file;
}

/* State or everything else, or both, between a file and the arena. */
static int transfer(FILE *const file, char *const arena, const slot *const slots, const int count, const int state,
                    const int reading) {
  for (int i = 0; i < count; i++) {
    if (state >= 0 && slots[i].state != state) continue;
    char *const at = arena + slots[i].offset;
    const size_t bytes = (size_t)slots[i].bytes;
    if ((reading ? fread(at, 1, bytes, file) : fwrite(at, 1, bytes, file)) == bytes) continue;
    fprintf(stderr, "error: %s '%s': the file ends early\n", reading ? "input" : "output", slots[i].path);
    return 0;
  }
  return 1;
}

int main(const int count, char **const arguments) {
  if (count < 3) {
    fprintf(stderr, "usage: %s FOLDER STEPS\n", arguments[0]);
    return 2;
  }
  const char *const folder = arguments[1];
  const int steps = atoi(arguments[2]);
  if (!anneal_open()) {
    fprintf(stderr, "error: no memory for %lld bytes\n", (long long)anneal_arena_bytes());
    return 1;
  }
  FILE *in[HOSTED], *out[HOSTED];
  for (int i = 0; i < HOSTED; i++) {
    const int rank = HOSTED == 1 ? rank_here() : i;
    in[i] = open_file(folder, rank, "in", "rb");
    out[i] = open_file(folder, rank, "out", "wb");
    if (!in[i] || !out[i] || !transfer(in[i], anneal_arena(i), inputs, INPUTS, -1, 1)) return 1;
  }
  const double began = wall_clock();
  for (int step = 0; step < steps; step++) {
    for (int i = 0; i < HOSTED && step > 0; i++)
      if (!transfer(in[i], anneal_arena(i), inputs, INPUTS, 0, 1)) return 1;
    anneal_run();
    for (int i = 0; i < HOSTED; i++)
      if (!transfer(out[i], anneal_arena(i), outputs, OUTPUTS, 0, 0)) return 1;
  }
  const double seconds = wall_clock() - began;
  for (int i = 0; i < HOSTED; i++) {
    const int rank = HOSTED == 1 ? rank_here() : i;
    FILE *const sent = open_file(folder, rank, "traffic", "wb");
    if (!sent || !transfer(out[i], anneal_arena(i), outputs, OUTPUTS, 1, 0)) return 1;
    for (int site = 0; site < COLLECTIVES; site++) {
      fwrite(&traffic[site].calls[rank], 8, 1, sent);
      fwrite(traffic[site].bytes[rank], 8, RANKS, sent);
    }
    if (fclose(sent) != 0 || fclose(out[i]) != 0) return 1;
    fclose(in[i]);
    if (rank == 0) printf("%d steps, %.3f ms a step\n", steps, 1e3 * seconds / (steps > 0 ? steps : 1));
  }
  anneal_close();
  return 0;
}
