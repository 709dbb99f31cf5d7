/*
 * Ranks as processes, on this host or on several, with MPI. First threads communicate; what goes to one member is one
 * message, packed if it is not contiguous. An all-reduce is a reduce-scatter (each member gets everybody's copy of its
 * chunk and adds them up in the tree of collectives.h) and an all-gather of the chunks: each byte of the value leaves a
 * rank 2 (n - 1) / n times, and the bits are those of ranks as threads.
 */

static MPI_Comm world;
static MPI_Datatype element_type[9]; /* by bytes */
static int world_rank;

INLINE int rank_here(void) { return world_rank; }

static void leave_world(void) {
  int left;
  MPI_Finalized(&left);
  if (left) return;
  /* One that failed does not wait for the others, who may wait for it. */
  if (getenv("ANNEAL_RANK_FAILED")) MPI_Abort(MPI_COMM_WORLD, 1);
  MPI_Finalize();
}

/* Joins the other processes; several programs of a process share MPI, each with messages of its own. */
static int enter_world(void) {
  int here, level, size;
  MPI_Initialized(&here);
  if (!here) {
    MPI_Init_thread(0, 0, MPI_THREAD_SERIALIZED, &level);
    if (level < MPI_THREAD_SERIALIZED) {
      fprintf(stderr, "error: this MPI allows one thread only\n");
      return 0;
    }
    atexit(leave_world);
  }
  MPI_Comm_dup(MPI_COMM_WORLD, &world);
  MPI_Comm_rank(world, &world_rank);
  MPI_Comm_size(world, &size);
  if (size != RANKS) {
    if (world_rank == 0) fprintf(stderr, "error: %d processes, but the program is for %d: mpirun -n %d\n", size, RANKS, RANKS);
    return 0;
  }
  for (int bytes = 1; bytes <= 8; bytes *= 2) {
    MPI_Type_contiguous(bytes, MPI_BYTE, &element_type[bytes]);
    MPI_Type_commit(&element_type[bytes]);
  }
  return 1;
}

/* Everybody's copy of so many words of eight bytes, in rank order. Every process must call it. */
void anneal_exchange(void *const mine, void *const all, const int64_t words) {
  static const collective c = {.name = "an exchange between steps"};
  MPI_Request request[2 * RANKS];
  for (int rank = 0; rank < RANKS; rank++) {
    MPI_Irecv((char *)all + rank * words * 8, (int)words, element_type[8], rank, 0x7fff, world, &request[rank]);
    MPI_Isend(mine, (int)words, element_type[8], rank, 0x7fff, world, &request[RANKS + rank]);
  }
  const double began = wall_clock();
  for (int64_t tries = 0, done = 0; !done; tries++) {
    int all_done;
    MPI_Testall(2 * RANKS, request, &all_done, MPI_STATUSES_IGNORE);
    done = all_done;
    if (tries > 2000) sched_yield();
    if (done || patience <= 0 || tries % 1000 != 999 || wall_clock() - began < patience) continue;
    for (int i = 0; i < 2 * RANKS; i++) {
      int came;
      MPI_Request_get_status(request[i], &came, MPI_STATUS_IGNORE);
      if (!came) give_up(&c, world_rank, i % RANKS);
    }
  }
}

int anneal_rank(void) { return world_rank; }

/* ---- one collective ------------------------------------------------------------------------------------------- */

static struct {
  MPI_Request request[2 * RANKS];
  int peer[2 * RANKS], count;
} pending;

static void begin_receive(const collective *const c, void *const to, const int64_t bytes, const int rank) {
  pending.peer[pending.count] = rank;
  MPI_Irecv(to, (int)(bytes / c->element), element_type[c->element], rank, c->site & 0x7fff, world,
            &pending.request[pending.count++]);
}

static void begin_send(const collective *const c, const void *const from, const int64_t bytes, const int rank) {
  if (bytes / c->element > INT32_MAX) {
    fprintf(stderr, "error: %s: a message of %lld elements is more than MPI takes\n", c->name, (long long)(bytes / c->element));
    MPI_Abort(world, 1);
  }
  traffic[c->site].bytes[world_rank][rank] += bytes;
  pending.peer[pending.count] = rank;
  MPI_Isend(from, (int)(bytes / c->element), element_type[c->element], rank, c->site & 0x7fff, world,
            &pending.request[pending.count++]);
}

static void finish_pending(const collective *const c) {
  const double limit = patience, began = limit > 0 ? wall_clock() : 0;
  for (int64_t tries = 0;; tries++) {
    int done;
    MPI_Testall(pending.count, pending.request, &done, MPI_STATUSES_IGNORE);
    if (done) break;
    if (tries > 2000) sched_yield();
    if (limit > 0 && tries % 1000 == 999 && wall_clock() - began > limit) {
      for (int i = 0; i < pending.count; i++) {
        MPI_Request_get_status(pending.request[i], &done, MPI_STATUS_IGNORE);
        if (!done) give_up(c, world_rank, pending.peer[i]);
      }
    }
  }
  pending.count = 0;
}

/* Memory for packed messages, in and out; it grows to the largest and stays. */
static char *room(const int which, const int64_t bytes) {
  static char *memory[2];
  static int64_t size[2];
  if (size[which] < bytes) {
    free(memory[which]);
    memory[which] = malloc((size_t)(bytes + 64));
    size[which] = bytes;
    if (!memory[which]) {
      fprintf(stderr, "error: no memory for messages of %lld bytes\n", (long long)bytes);
      MPI_Abort(world, 1);
    }
  }
  return memory[which];
}

/* The same move with one side packed from byte `at` on. */
static move packed_side(move m, const int64_t at, const int in) {
  int64_t *const stride = in ? m.in : m.out;
  stride[2] = m.bytes;
  stride[1] = m.bytes * m.count[2];
  stride[0] = stride[1] * m.count[1];
  if (in) m.from = at;
  else m.to = at;
  return m;
}

static int64_t total_bytes(const move *const m, const int count) {
  int64_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += move_bytes(&m[i]);
  return bytes;
}

static int is_run(const move *const m, const int count) { return count == 1 && move_rows(m) == 1; }

/* Moves into a message, or out of one. */
static void copy_packed(char *const out, const char *const in, const move *const m, const int count, const int unpack) {
  int64_t at = 0;
  for (int i = 0; i < count; i++) {
    const move one = packed_side(m[i], at, unpack);
    copy_move(out, in, &one, 0, move_bytes(&one));
    at += move_bytes(&one);
  }
}

static void collect(const int tid, const collective *const c, const char *const operand, char *const result) {
  if (tid != 0) return;
  traffic[c->site].calls[world_rank]++;
  int ranks[RANKS];
  group_ranks(c, world_rank, ranks);
  const int me = member_of(c->axes, c->step, world_rank), n = c->members;
  move mine[MAX_MOVES], m[MAX_MOVES];
  const int own = moves_between(c, me, me, mine);
  int64_t in_bytes = 0, out_bytes = 0;
  if (c->kind != SHARD) {
    for (int i = 0; i < n; i++) {
      in_bytes += total_bytes(m, moves_between(c, i, me, m));
      out_bytes += total_bytes(m, moves_between(c, me, i, m));
    }
  }
  char *const incoming = room(0, in_bytes), *const outgoing = room(1, out_bytes);
  const char *in[RANKS];
  int64_t at = 0;
  for (int s = 0; s < n && c->kind != SHARD; s++) {
    const int count = moves_between(c, s, me, m);
    const int64_t bytes = total_bytes(m, count);
    in[s] = incoming + at;
    if (s == me) {
      if (c->combine && is_run(mine, own)) in[me] = operand + mine[0].from;
      else if (c->combine) copy_packed(incoming + at, operand, mine, own, 0);
    } else if (bytes > 0) {
      const int direct = !c->combine && is_run(m, count);
      begin_receive(c, direct ? result + m[0].to : incoming + at, bytes, ranks[s]);
    }
    at += bytes;
  }
  at = 0;
  for (int i = 1; i < n && c->kind != SHARD; i++) {
    const int d = (me + i) % n; /* not all to the same one at first */
    const int count = moves_between(c, me, d, m);
    const int64_t bytes = total_bytes(m, count);
    if (bytes == 0) continue;
    if (!is_run(m, count)) copy_packed(outgoing + at, operand, m, count, 0);
    begin_send(c, is_run(m, count) ? operand + m[0].from : outgoing + at, bytes, ranks[d]);
    at += bytes;
  }
  if (!c->combine)
    for (int i = 0; i < own; i++) copy_move(result, operand, &mine[i], 0, move_bytes(&mine[i]));
  finish_pending(c);
  if (c->combine) {
    at = 0;
    for (int i = 0; i < own; i++) {
      const move one = packed_side(mine[i], at, 1);
      combine_move(c, &result, 1, in, &one, 0, move_bytes(&one));
      at += move_bytes(&one);
    }
    if (c->kind == ALL_REDUCE) {
      for (int i = 1; i < n; i++) {
        const int other = (me + i) % n;
        if (moves_between(c, other, other, m)) begin_receive(c, result + m[0].to, m[0].bytes, ranks[other]);
        if (own) begin_send(c, result + mine[0].to, mine[0].bytes, ranks[other]);
      }
      finish_pending(c);
    }
  } else if (c->kind != SHARD) {
    for (int s = 0; s < n; s++) {
      const int count = moves_between(c, s, me, m);
      if (s != me && count > 0 && !is_run(m, count)) copy_packed(result, in[s], m, count, 1);
    }
  }
}
