/*
 * Ranks as threads of one process. Each has its arena and its team; a collective reads and writes the others' arenas.
 * A rank *announces* where its operand and its result lie, once the operand is there; then its whole team takes its part
 * of the work; and it goes on when every member is *finished*, for only then nobody reads its operand any more. All ranks
 * come by the same collectives in the same order, so a count of calls says which one is meant. Small collectives are done
 * by first threads alone and counted apart.
 */

/* A number that only grows; those who wait for a value spin, then yield, then sleep. */
typedef struct {
  _Alignas(64) _Atomic uint32_t value;
  _Atomic uint32_t asleep;
} tide;

static void raise_to(tide *const t, const uint32_t value) {
  atomic_store(&t->value, value);
#ifdef __linux__
  if (atomic_load(&t->asleep) > 0) syscall(SYS_futex, &t->value, FUTEX_WAKE_PRIVATE, INT32_MAX, 0, 0, 0);
#endif
}

INLINE int reached(tide *const t, const uint32_t value) {
  return (int32_t)(atomic_load_explicit(&t->value, memory_order_acquire) - value) >= 0;
}

/* Whether it came: 0 when patience, in seconds, ended first. */
static int wait_for(tide *const t, const uint32_t value, const double seconds) {
  for (int i = 0; i < looks; i++) {
    if (reached(t, value)) return 1;
    relax();
  }
  for (int i = 0; i < 50; i++) {
    if (reached(t, value)) return 1;
    sched_yield();
  }
  const double began = seconds > 0 ? wall_clock() : 0;
  int came = 1;
  atomic_fetch_add(&t->asleep, 1);
  for (;;) {
    const uint32_t seen = atomic_load(&t->value);
    if ((int32_t)(seen - value) >= 0) break;
    if (seconds > 0 && wall_clock() - began > seconds) {
      came = 0;
      break;
    }
#ifdef __linux__
    const struct timespec nap = {0, 100000000};
    syscall(SYS_futex, &t->value, FUTEX_WAIT_PRIVATE, seen, seconds > 0 ? &nap : 0, 0, 0);
#else
    sched_yield();
#endif
  }
  atomic_fetch_sub(&t->asleep, 1);
  return came;
}

/* What a rank shows to the others, for collectives of the team and for those of first threads. */
typedef struct {
  const char *in;
  char *out;
  tide announced, finished;
  _Alignas(64) _Atomic int arrived; /* threads of this rank that have done their part */
} post;

static post posts[2][RANKS];
static struct {
  _Alignas(64) uint32_t count[2];
} calls[RANKS][THREADS];

INLINE int rank_here(void) { return seat; }

static void await_rank(tide *const t, const uint32_t call, const collective *const c, const int rank) {
  if (!wait_for(t, call, patience)) give_up(c, seat, rank);
}

/* Bytes of a move that this thread takes, in multiples of 64 elements. */
#define PART(m, c)                                                                                                     \
  const int64_t elements = move_bytes(m) / (c)->element;                                                               \
  const int64_t begin = ((c)->alone ? 0 : share(elements, 64, tid)) * (c)->element;                                    \
  const int64_t end = ((c)->alone ? elements : share(elements, 64, tid + 1)) * (c)->element;

/* Nothing travels: the cores that would copy are those that calculate. */
#define begin_collective(c, operand, result) ((void)(c), (void)(operand), (void)(result))

/* Every thread of every rank calls this, or every first thread. */
static void collect(const int tid, const collective *const c, const char *const operand, char *const result) {
  int ranks[RANKS];
  group_ranks(c, seat, ranks);
  const int me = member_of(c->axes, c->step, seat);
  move m[MAX_MOVES];
  if (c->kind == SHARD) {
    const int count = moves_between(c, me, me, m);
    for (int i = 0; i < count; i++) {
      PART(&m[i], c)
      copy_move(result, operand, &m[i], begin, end);
    }
    if (tid == 0) traffic[c->site].calls[seat]++;
    return;
  }
  const int kind = c->alone ? 0 : 1;
  post *const post_of = posts[kind], *const mine = &post_of[seat];
  const uint32_t call = ++calls[seat][tid].count[kind];
  if (tid == 0) {
    mine->in = operand;
    mine->out = result;
    raise_to(&mine->announced, call);
  }
  const char *in[RANKS];
  char *out[RANKS];
  for (int i = 0; i < c->members; i++) {
    await_rank(&post_of[ranks[i]].announced, call, c, ranks[i]);
    in[i] = post_of[ranks[i]].in;
    out[i] = post_of[ranks[i]].out;
  }
  if (c->combine) {
    /* This member's part of the value, of all members; an all-reduce brings it to all of them. */
    const int count = moves_between(c, me, me, m);
    for (int i = 0; i < count; i++) {
      PART(&m[i], c)
      if (c->kind == ALL_REDUCE) combine_move(c, out, c->members, in, &m[i], begin, end);
      else combine_move(c, &result, 1, in, &m[i], begin, end);
    }
  } else {
    for (int s = 0; s < c->members; s++) {
      const int count = moves_between(c, s, me, m);
      for (int i = 0; i < count; i++) {
        PART(&m[i], c)
        copy_move(result, in[s], &m[i], begin, end);
      }
    }
  }
  if (c->alone || atomic_fetch_add(&mine->arrived, 1) == THREADS - 1) {
    atomic_store(&mine->arrived, 0);
    raise_to(&mine->finished, call);
  }
  if (tid != 0) return;
  traffic[c->site].calls[seat]++;
  for (int d = 0; d < c->members; d++) {
    if (d == me) continue;
    const int count = moves_between(c, me, d, m);
    for (int i = 0; i < count; i++) traffic[c->site].bytes[seat][ranks[d]] += move_bytes(&m[i]);
    if (c->kind == ALL_REDUCE && moves_between(c, me, me, m)) traffic[c->site].bytes[seat][ranks[d]] += m[0].bytes;
  }
  for (int i = 0; i < c->members; i++) await_rank(&post_of[ranks[i]].finished, call, c, ranks[i]);
}

/* ---- messages between stages ------------------------------------------------------------------------------------ */

/* A value on its way. The sender goes on as soon as it is copied; the next one waits until this one was taken. */
typedef struct {
  char *copy;
  tide sent, taken;
} letter;

/* By channel and sender. */
static letter letters[CHANNELS][RANKS];

static void send_value(const collective *const c, const int channel, const int peer, const int64_t bytes, const void *const from) {
  int ranks[RANKS];
  group_ranks(c, seat, ranks);
  letter *const l = &letters[channel][seat];
  const uint32_t before = atomic_load(&l->sent.value);
  await_rank(&l->taken, before, c, ranks[peer]);
  if (!l->copy) l->copy = malloc((size_t)bytes);
  if (!l->copy) {
    fprintf(stderr, "error: no memory for a message of %lld bytes\n", (long long)bytes);
    _exit(1);
  }
  memcpy(l->copy, from, (size_t)bytes);
  raise_to(&l->sent, before + 1);
  traffic[c->site].calls[seat]++;
  traffic[c->site].bytes[seat][ranks[peer]] += bytes;
}

static void receive_value(const collective *const c, const int channel, const int peer, const int64_t bytes, void *const to) {
  int ranks[RANKS];
  group_ranks(c, seat, ranks);
  letter *const l = &letters[channel][ranks[peer]];
  const uint32_t next = atomic_load(&l->taken.value) + 1;
  await_rank(&l->sent, next, c, ranks[peer]);
  memcpy(to, l->copy, (size_t)bytes);
  raise_to(&l->taken, next);
  traffic[c->site].calls[seat]++;
}
