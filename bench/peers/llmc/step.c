// llm.c's CPU trainer behind the protocol of our peers: `run K` takes K training steps (forward, zero gradients,
// backward, AdamW update, as in the loop of its own main) and answers {"seconds", "steps", "loss"}; `quit` ends it.
// Built by install.sh from a checkout of llm.c with that project's own compiler flags; its source is included from there,
// not copied. The weights are random, written in its checkpoint format to a temporary file that it reads as any other.
#define TESTING
#include "train_gpt2.c"

static uint64_t state = 42;

// About normal: the sum of four uniforms, scaled; a benchmark needs plausible sizes, not a distribution.
static float normal(float deviation) {
  float sum = 0;
  for (int i = 0; i < 4; i++) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    sum += (float)(state >> 40) / (float)(1 << 24) - 0.5f;
  }
  return sum * 1.732f * deviation;
}

static void write_checkpoint(const char *path, GPT2Config config) {
  FILE *file = fopenCheck(path, "wb");
  int header[256] = {20240326, 3, config.max_seq_len, config.vocab_size, config.num_layers,
                     config.num_heads, config.channels, config.padded_vocab_size};
  fwrite(header, sizeof(int), 256, file);
  size_t sizes[NUM_PARAMETER_TENSORS];
  fill_in_parameter_sizes(sizes, config);
  for (int tensor = 0; tensor < NUM_PARAMETER_TENSORS; tensor++) {
    // Norm scales start at one, biases at zero, everything else random: see the list at ParameterTensors.
    const int scale = tensor == 2 || tensor == 8 || tensor == 14;
    const int bias = tensor == 3 || tensor == 5 || tensor == 7 || tensor == 9 || tensor == 11 || tensor == 13 || tensor == 15;
    for (size_t i = 0; i < sizes[tensor]; i++) {
      const float value = scale ? 1.0f : bias ? 0.0f : normal(0.02f);
      fwrite(&value, sizeof value, 1, file);
    }
  }
  fcloseCheck(file);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int count, char **arguments) {
  if (count != 8) {
    fprintf(stderr, "usage: %s layers width heads maxContext vocab batch context\n", arguments[0]);
    return 2;
  }
  const int vocab = atoi(arguments[5]), B = atoi(arguments[6]), T = atoi(arguments[7]);
  const GPT2Config config = {.num_layers = atoi(arguments[1]), .channels = atoi(arguments[2]),
                             .num_heads = atoi(arguments[3]), .max_seq_len = atoi(arguments[4]),
                             .vocab_size = vocab, .padded_vocab_size = (vocab + 127) / 128 * 128};
  char path[] = "/tmp/llmc-checkpoint-XXXXXX";
  const int descriptor = mkstemp(path);
  if (descriptor < 0) {
    perror(path);
    return 1;
  }
  close(descriptor);
  write_checkpoint(path, config);
  GPT2 model;
  gpt2_build_from_checkpoint(&model, path);
  unlink(path);
  int *tokens = malloc((B * T + 1) * sizeof(int));
  for (int i = 0; i <= B * T; i++) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    tokens[i] = (int)((state >> 33) % vocab);
  }
  int threads = 1;
#ifdef OMP
#pragma omp parallel
#pragma omp single
  threads = omp_get_num_threads();
#endif
  printf("{\"ready\": true, \"version\": \"%s\", \"threads\": %d, \"parameters\": %zu}\n", LLMC_COMMIT, threads,
         model.num_parameters);
  fflush(stdout);
  char line[256];
  int steps = 0, wanted;
  while (fgets(line, sizeof line, stdin) && sscanf(line, "run %d", &wanted) == 1) {
    const double start = now();
    for (int i = 0; i < wanted; i++) {
      gpt2_forward(&model, tokens, tokens + 1, B, T);
      gpt2_zero_grad(&model);
      gpt2_backward(&model);
      gpt2_update(&model, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f, ++steps);
    }
    printf("{\"seconds\": %.6f, \"steps\": %d, \"loss\": %.6f}\n", now() - start, wanted, model.mean_loss);
    fflush(stdout);
  }
  gpt2_free(&model);
  free(tokens);
  return 0;
}
