/*
 * The end of every emitted program: arenas, teams, and the exports that whoever runs the program calls. Each of the
 * HOSTED ranks of this process has an arena and a team; the caller is the first thread of the first, the other ranks'
 * first threads wait for a run between runs.
 */

typedef struct {
  char *arena;
  pthread_t thread[THREADS];
  _Atomic int state; /* negative: leave */
} Program;

static Program programs[HOSTED];

/* Another program's arena, where the inputs lie that a rank shares with this one. */
void anneal_borrow(const int rank, char *arena) { lenders[rank] = arena; }

#define ARENA_SIZE (ARENA_BYTES > 0 ? ARENA_BYTES : 64)

#if HOSTED > 1
#define SIT(rank) (seat = (rank))
#else
#define SIT(rank) ((void)(rank))
#endif

/* Every thread but the first of each rank; its number among all. */
static void *worker(void *argument) {
  const int rank = (int)(intptr_t)argument / THREADS, tid = (int)(intptr_t)argument % THREADS;
  SIT(rank);
  for (;;) {
    team_barrier(tid); /* released by run_rank or anneal_close */
    if (atomic_load(&programs[rank].state) < 0) return 0;
    step(tid, programs[rank].arena);
    team_barrier(tid);
  }
}

/* One step of one rank, on its first thread. */
static void run_rank(void) {
  PROFILE_RUN {
    team_barrier(0);
    step(0, programs[seat].arena);
    team_barrier(0);
  }
}

static void dismiss(const int rank) {
  atomic_store(&programs[rank].state, -1);
  team_barrier(0);
  for (int tid = 1; tid < THREADS; tid++) pthread_join(programs[rank].thread[tid], 0);
}

#if HOSTED > 1
static tide started, done[HOSTED];
static uint32_t runs;

static void *leader(void *argument) {
  const int rank = (int)(intptr_t)argument;
  SIT(rank);
  uint32_t run = atomic_load(&done[rank].value);
  for (;;) {
    wait_for(&started, ++run, 0);
    if (atomic_load(&programs[rank].state) < 0) break;
    run_rank();
    raise_to(&done[rank], run);
  }
  dismiss(rank);
  return 0;
}
#endif

/* Memory that begins where a huge page may, if it is larger than one: the offset of two buffers in the cache is then the
 * planned one. Fresh pages are zero and cost nothing until they are touched. */
static char *fresh_pages(const size_t bytes) {
  const size_t huge = 2 << 20, slack = bytes < huge ? 0 : huge;
  char *const from = mmap(0, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (from == MAP_FAILED) return 0;
  if (slack == 0) return from;
  char *const at = (char *)(((uintptr_t)from + huge - 1) / huge * huge);
  if (at > from) munmap(from, at - from);
  char *const end = at + (bytes + 65535) / 65536 * 65536;
  if (from + bytes + slack > end) munmap(end, from + bytes + slack - end);
  return at;
}

#ifdef STATE_BYTES
/* An arena of which a part is a file. */
static char *fresh_arena(void) {
  char *const arena = fresh_pages(ARENA_SIZE);
  if (!arena || map_file(arena)) return arena;
  munmap(arena, ARENA_SIZE);
  return 0;
}
#else
#define STATE_BYTES 0
#define KEPT_AT ARENA_SIZE
#define fresh_arena() fresh_pages(ARENA_SIZE)
#endif

/* Allocates the arenas and starts the teams. Returns the first rank's arena, or 0 when there is not enough memory
 * (or no file to be had). */
void *anneal_open(void) {
  if (programs[0].arena) return programs[0].arena;
  look_often_if_alone();
#if RANKS > 1
  read_patience();
  /* The library may have been open before. */
  memset(traffic, 0, sizeof traffic);
  atomic_store(&steps_run, 0);
#endif
#ifdef ANNEAL_MPI
  if (!enter_world()) return 0;
#endif
  for (int rank = 0; rank < HOSTED; rank++) {
    char *const arena = fresh_arena();
    if (!arena) {
      for (int other = 0; other < rank; other++) munmap(programs[other].arena, ARENA_SIZE);
      programs[0].arena = 0;
      return 0;
    }
#ifdef MADV_HUGEPAGE
    madvise(arena + STATE_BYTES, KEPT_AT - STATE_BYTES, MADV_HUGEPAGE);
#endif
    programs[rank].arena = arena;
    atomic_store(&programs[rank].state, 0);
  }
  for (intptr_t i = 0; i < HOSTED * THREADS; i++) {
    pthread_t *const thread = &programs[i / THREADS].thread[i % THREADS];
    if (i % THREADS > 0) pthread_create(thread, 0, worker, (void *)i);
#if HOSTED > 1
    else if (i > 0) pthread_create(thread, 0, leader, (void *)(i / THREADS));
#endif
  }
  return programs[0].arena;
}

void *anneal_arena(const int rank) { return programs[rank].arena; }

/* Runs one step on all ranks and their teams; the caller is the first thread of the first. */
void anneal_run(void) {
#if HOSTED > 1
  SIT(0);
  raise_to(&started, ++runs);
#endif
#if RANKS > 1
  atomic_fetch_add(&steps_run, 1);
#endif
  run_rank();
#if HOSTED > 1
  for (int rank = 1; rank < HOSTED; rank++) wait_for(&done[rank], runs, 0);
#endif
}

#if RANKS > 1
/* Of what replicas must agree in: eight words side by side, each multiplied by an odd number after every word added. */
uint64_t anneal_hash(const int rank, const int64_t offset, const int64_t bytes) {
  const char *const at = programs[rank].arena + offset;
  uint64_t lane[8] = {1, 2, 3, 4, 5, 6, 7, 8}, hash = (uint64_t)bytes;
  for (int64_t i = 0; i < bytes; i += 64) {
    uint64_t word[8] = {0};
    memcpy(word, at + i, (size_t)(bytes - i < 64 ? bytes - i : 64));
    for (int k = 0; k < 8; k++) lane[k] = ((lane[k] ^ word[k]) * 0x9e3779b97f4a7c15u) ^ (lane[k] >> 29);
  }
  for (int k = 0; k < 8; k++) hash = ((hash ^ lane[k]) * 0x9e3779b97f4a7c15u) ^ (hash >> 31);
  return hash;
}
#endif

int64_t anneal_arena_bytes(void) { return ARENA_BYTES; }

/* FLOPs counted so far by all ranks here; 0 unless compiled with -DANNEAL_COUNT. */
int64_t anneal_flops(void) {
#ifdef ANNEAL_COUNT
  return (int64_t)counted_operations();
#else
  return 0;
#endif
}

void anneal_close(void) {
  if (!programs[0].arena) return;
#if HOSTED > 1
  for (int rank = 1; rank < HOSTED; rank++) atomic_store(&programs[rank].state, -1);
  SIT(0);
  raise_to(&started, ++runs);
  for (int rank = 1; rank < HOSTED; rank++) {
    pthread_join(programs[rank].thread[0], 0);
    atomic_store(&done[rank].value, runs);
  }
#endif
  dismiss(0);
  for (int rank = 0; rank < HOSTED; rank++) {
    munmap(programs[rank].arena, ARENA_SIZE);
    programs[rank].arena = 0;
  }
}
