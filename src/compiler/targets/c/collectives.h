/*
 * Collectives: what has to go from which member of a group to which other, and how partial results are combined. Nothing
 * here knows how values travel: ranks-threads.h and ranks-mpi.h do, with the same pieces and the same order of sums, so
 * that both give the same bits. RANKS, COLLECTIVES and what `emit.ts` puts before are defined above.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum collective_kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, ALL_TO_ALL, SHIFT, SHARD };

#define MAX_AXES 6

/* Combines `count` elements of all members into each of several places. */
typedef void combination(char *const *out, int outs, const char *const *in, int members, int64_t count);

typedef struct {
  int site; /* its number in the program */
  enum collective_kind kind;
  const char *name;            /* for messages: what, over which axes, from which line */
  int members;                 /* of a group */
  int axes, step[MAX_AXES][2]; /* size and rank distance of each mesh axis, outermost first */
  int rounds;                  /* pieces i, i + n, i + 2n, ... of each member; ZIGZAG: i and 2n-1-i */
  int by;                      /* SHIFT */
  int alone;                   /* small: the first thread of each rank does it by itself */
  int64_t element;             /* bytes */
  combination *combine;
  int64_t elements; /* ALL_REDUCE and SHIFT: of the value */
  /* The others: the value with nothing cut, as outer, one dimension, between, another dimension, inner. The first of the
   * two is cut where there is one only. ALL_TO_ALL: is the joined dimension the first? */
  int64_t outer, first, between, second, inner;
  int joinedFirst;
} collective;

/* Rows of `bytes` each, as three loops around them; strides and offsets in bytes. */
typedef struct {
  int64_t count[3], in[3], out[3], from, to, bytes;
} move;

INLINE int64_t move_rows(const move *const m) { return m->count[0] * m->count[1] * m->count[2]; }
INLINE int64_t move_bytes(const move *const m) { return move_rows(m) * m->bytes; }

/* ---- groups --------------------------------------------------------------------------------------------------- */

static int member_of(const int axes, const int (*const step)[2], const int rank) {
  int member = 0;
  for (int i = 0; i < axes; i++) member = member * step[i][0] + rank / step[i][1] % step[i][0];
  return member;
}

/* The ranks of the group of `rank`, in member order. */
static void group_ranks(const collective *const c, const int rank, int *const ranks) {
  int base = rank;
  for (int i = 0; i < c->axes; i++) base -= rank / c->step[i][1] % c->step[i][0] * c->step[i][1];
  for (int member = 0; member < c->members; member++) {
    int rest = member;
    ranks[member] = base;
    for (int i = c->axes - 1; i >= 0; i--) {
      ranks[member] += rest % c->step[i][0] * c->step[i][1];
      rest /= c->step[i][0];
    }
  }
}

/* ---- what goes from member s to member d ------------------------------------------------------------------------ */

#define ZIGZAG 0
#define MAX_OWNED 8
#define MAX_MOVES (MAX_OWNED * MAX_OWNED)

typedef struct {
  int parts, owned, own[MAX_OWNED];
} cut;

static cut cut_of(const collective *const c, const int member) {
  const int n = c->members;
  if (c->rounds == ZIGZAG) return (cut){2 * n, 2, {member, 2 * n - 1 - member}};
  cut pieces = {c->rounds * n, c->rounds, {0}};
  for (int i = 0; i < c->rounds; i++) pieces.own[i] = member + i * n;
  return pieces;
}

/* One dimension is whole on one side and cut on the other; the pieces are those of `member`. */
static int moves_along(const collective *const c, const int member, const int joining, move *const m) {
  const cut pieces = cut_of(c, member);
  const int64_t row = c->first / pieces.parts * c->inner * c->element;
  for (int i = 0; i < pieces.owned; i++) {
    const int64_t whole = pieces.own[i] * row, piece = i * row;
    const int64_t stride = pieces.parts * row, short_stride = pieces.owned * row;
    m[i] = (move){.count = {c->outer, 1, 1},
                  .in = {joining ? short_stride : stride},
                  .out = {joining ? stride : short_stride},
                  .from = joining ? piece : whole,
                  .to = joining ? whole : piece,
                  .bytes = row};
  }
  return pieces.owned;
}

/* Member s holds the joined dimension cut, member d wants the other one cut. */
static int moves_across(const collective *const c, const int s, const int d, move *const m) {
  const cut held = cut_of(c, s), wanted = cut_of(c, d);
  const int64_t joined = c->joinedFirst ? c->first : c->second, split = c->joinedFirst ? c->second : c->first;
  const int64_t j = joined / held.parts, k = split / wanted.parts; /* extents of one piece */
  int count = 0;
  for (int w = 0; w < wanted.owned; w++) {
    for (int h = 0; h < held.owned; h++) {
      /* Extents of both arrays along the two dimensions, where the piece starts in each, and how far it reaches. */
      const int64_t in_first = c->joinedFirst ? held.owned * j : split, in_second = c->joinedFirst ? split : held.owned * j;
      const int64_t out_first = c->joinedFirst ? joined : wanted.owned * k;
      const int64_t out_second = c->joinedFirst ? wanted.owned * k : joined;
      const int64_t in_at[2] = {c->joinedFirst ? h * j : wanted.own[w] * k, c->joinedFirst ? wanted.own[w] * k : h * j};
      const int64_t out_at[2] = {c->joinedFirst ? held.own[h] * j : w * k, c->joinedFirst ? w * k : held.own[h] * j};
      const int64_t rows = c->joinedFirst ? j : k, columns = c->joinedFirst ? k : j, unit = c->inner * c->element;
      const int64_t in_row = c->between * in_second * unit, out_row = c->between * out_second * unit;
      m[count++] = (move){.count = {c->outer, rows, c->between},
                          .in = {in_first * in_row, in_row, in_second * unit},
                          .out = {out_first * out_row, out_row, out_second * unit},
                          .from = in_at[0] * in_row + in_at[1] * unit,
                          .to = out_at[0] * out_row + out_at[1] * unit,
                          .bytes = columns * unit};
    }
  }
  return count;
}

/* Elements of an all-reduce that a member combines: as even as they can be, any size. */
static int64_t chunk_start(const collective *const c, const int member) { return c->elements * member / c->members; }

/* The pieces of s's operand that d needs; their number. */
static int moves_between(const collective *const c, const int s, const int d, move *const m) {
  const int64_t whole = c->elements * c->element;
  switch (c->kind) {
  case ALL_REDUCE: {
    const int64_t from = chunk_start(c, d) * c->element, to = chunk_start(c, d + 1) * c->element;
    m[0] = (move){.count = {1, 1, 1}, .from = from, .to = from, .bytes = to - from};
    return to > from;
  }
  case SHIFT:
    m[0] = (move){.count = {1, 1, 1}, .bytes = whole};
    return ((s + c->by) % c->members + c->members) % c->members == d && whole > 0;
  case ALL_GATHER: return moves_along(c, s, 1, m);
  case REDUCE_SCATTER: return moves_along(c, d, 0, m);
  case SHARD: return s == d ? moves_along(c, d, 0, m) : 0;
  default: return moves_across(c, s, d, m);
  }
}

/* ---- copying and combining, any part of a move ------------------------------------------------------------------ */

INLINE void row_offsets(const move *const m, const int64_t row, int64_t *const in, int64_t *const out) {
  const int64_t c = row % m->count[2], b = row / m->count[2] % m->count[1], a = row / m->count[2] / m->count[1];
  *in = m->from + a * m->in[0] + b * m->in[1] + c * m->in[2];
  *out = m->to + a * m->out[0] + b * m->out[1] + c * m->out[2];
}

/* Bytes [begin, end) of the move, counted as if it were contiguous. */
static void copy_move(char *const out, const char *const in, const move *const m, const int64_t begin, const int64_t end) {
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / m->bytes, within = at % m->bytes;
    const int64_t n = m->bytes - within < end - at ? m->bytes - within : end - at;
    int64_t from, to;
    row_offsets(m, row, &from, &to);
    memcpy(out + to + within, in + from + within, (size_t)n);
    at += n;
  }
}

static void combine_move(const collective *const c, char *const *const out, const int outs, const char *const *const in,
                         const move *const m, const int64_t begin, const int64_t end) {
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / m->bytes, within = at % m->bytes;
    const int64_t n = m->bytes - within < end - at ? m->bytes - within : end - at;
    int64_t from, to;
    row_offsets(m, row, &from, &to);
    const char *ins[RANKS];
    char *places[RANKS];
    for (int i = 0; i < c->members; i++) ins[i] = in[i] + from + within;
    for (int i = 0; i < outs; i++) places[i] = out[i] + to + within;
    c->combine(places, outs, ins, c->members, n / c->element);
    at += n;
  }
}

/*
 * Sums and maxima in a fixed binary tree, neighbours first: ((0 1) (2 3)) ((4 5) (6 7)); an odd one out goes up as it is.
 * `level` is the stack of what is combined so far: after member i, as many pairs close as i + 1 has factors of two.
 * bf16 and f16 are added up in f32 and rounded once.
 */
#define TREE_LEVELS 20
#define TREE_BLOCK 256
#define COMBINATION(NAME, STORED, WIDE, LOAD, STORE, OP)                                                               \
  static void NAME(char *const *const out, const int outs, const char *const *const in, const int members,             \
                   const int64_t count) {                                                                              \
    WIDE level[TREE_LEVELS][TREE_BLOCK];                                                                               \
    for (int64_t at = 0; at < count; at += TREE_BLOCK) {                                                               \
      const int n = count - at < TREE_BLOCK ? (int)(count - at) : TREE_BLOCK;                                          \
      int depth = 0;                                                                                                   \
      for (int member = 0; member < members; member++) {                                                               \
        const STORED *const x = (const STORED *)in[member] + at;                                                       \
        WIDE *const top = level[depth++];                                                                              \
        SIMD_LOOP() for (int i = 0; i < n; i++) top[i] = LOAD(x[i]);                                                   \
        for (int closed = member + 1; closed % 2 == 0 || (member == members - 1 && depth > 1); closed /= 2) {          \
          WIDE *const a = level[depth - 2];                                                                            \
          const WIDE *const b = level[--depth];                                                                        \
          SIMD_LOOP() for (int i = 0; i < n; i++) a[i] = OP(a[i], b[i]);                                               \
          if (depth == 1) break;                                                                                       \
        }                                                                                                              \
      }                                                                                                                \
      for (int place = 0; place < outs; place++) {                                                                     \
        STORED *const y = (STORED *)out[place] + at;                                                                   \
        SIMD_LOOP() for (int i = 0; i < n; i++) y[i] = (STORED)STORE(level[0][i]);                                     \
      }                                                                                                                \
    }                                                                                                                  \
  }
#define SAME(x) (x)
#define COMBINATIONS(NAME, STORED, WIDE, LOAD, STORE)                                                                  \
  COMBINATION(sum_##NAME, STORED, WIDE, LOAD, STORE, PLUS)                                                             \
  COMBINATION(max_##NAME, STORED, WIDE, LOAD, STORE, MAXIMUM)
COMBINATIONS(f32, float, float, SAME, SAME)
COMBINATIONS(f64, double, double, SAME, SAME)
COMBINATIONS(bf16, bf16, float, bf16_to_f32, f32_to_bf16)
COMBINATIONS(f16, f16, float, f16_to_f32, f32_to_f16)
COMBINATIONS(u8, uint8_t, uint8_t, SAME, SAME)
COMBINATION(sum_i32, uint32_t, uint32_t, SAME, SAME, PLUS)
COMBINATION(max_i32, int32_t, int32_t, SAME, SAME, MAXIMUM)

/* ---- what travelled ------------------------------------------------------------------------------------------- */

/* By collective: how often each rank came by, and the bytes that each rank sent to each other one. */
static struct {
  int64_t calls[RANKS], bytes[RANKS][RANKS];
} traffic[COLLECTIVES];

void *anneal_traffic(void) { return traffic; }

/* ---- waiting -------------------------------------------------------------------------------------------------- */

/* Seconds after which a wait for another rank ends the program; 0: never. Read once, when the program is opened. */
static double patience;

static void read_patience(void) {
  const char *const given = getenv("ANNEAL_PATIENCE");
  patience = given ? atof(given) : 0;
}

static double wall_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static _Atomic int64_t steps_run;

/* The steps that a message about this run counts from: those of a run that goes on, and no trials. */
void anneal_count_from(const int64_t step) { atomic_store(&steps_run, step); }

/* The last line printed: who did not come, where. */
static void give_up(const collective *const c, const int rank, const int missing) {
  char host[256] = "?";
  gethostname(host, sizeof host - 1);
  fprintf(stderr, "error: rank %d on %s, step %lld, %s: rank %d did not come within %g seconds\n", rank, host,
          (long long)atomic_load(&steps_run), c->name, missing, patience);
  fflush(stderr);
  _exit(1);
}
