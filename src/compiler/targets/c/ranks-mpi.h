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

/* What is under way of each collective, and memory for its packed messages: the first to come, the second to go. */
typedef struct {
  MPI_Request request[2 * RANKS];
  int peer[2 * RANKS], count, begun;
  char *memory[2];
} exchange;

static exchange exchanges[COLLECTIVES];

static void begin_receive(const collective *const c, void *const to, const int64_t bytes, const int rank) {
  exchange *const x = &exchanges[c->site];
  x->peer[x->count] = rank;
  MPI_Irecv(to, (int)(bytes / c->element), element_type[c->element], rank, c->site & 0x3fff, world,
            &x->request[x->count++]);
}

static void begin_send(const collective *const c, const void *const from, const int64_t bytes, const int rank) {
  exchange *const x = &exchanges[c->site];
  if (bytes / c->element > INT32_MAX) {
    fprintf(stderr, "error: %s: a message of %lld elements is more than MPI takes\n", c->name,
            (long long)(bytes / c->element));
    MPI_Abort(world, 1);
  }
  traffic[c->site].bytes[world_rank][rank] += bytes;
  x->peer[x->count] = rank;
  MPI_Isend(from, (int)(bytes / c->element), element_type[c->element], rank, c->site & 0x3fff, world,
            &x->request[x->count++]);
}

static void finish_messages(const collective *const c) {
  exchange *const x = &exchanges[c->site];
  const double began = patience > 0 ? wall_clock() : 0;
  for (int64_t tries = 0;; tries++) {
    int done;
    MPI_Testall(x->count, x->request, &done, MPI_STATUSES_IGNORE);
    if (done) break;
    if (tries > 2000) sched_yield();
    if (patience > 0 && tries % 1000 == 999 && wall_clock() - began > patience) {
      for (int i = 0; i < x->count; i++) {
        MPI_Request_get_status(x->request[i], &done, MPI_STATUS_IGNORE);
        if (!done) give_up(c, world_rank, x->peer[i]);
      }
    }
  }
  x->count = 0;
}

/* The same at every call, so made at the first. */
static char *room(const collective *const c, const int which, const int64_t bytes) {
  char **const memory = &exchanges[c->site].memory[which];
  if (!*memory) *memory = malloc((size_t)(bytes + 64));
  if (!*memory) {
    fprintf(stderr, "error: %s: no memory for messages of %lld bytes\n", c->name, (long long)bytes);
    MPI_Abort(world, 1);
  }
  return *memory;
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

/* Where the message from each member lies, one after the other, and how many bytes come and go in all. */
typedef struct {
  int ranks[RANKS], me;
  int64_t from[RANKS], in_bytes, out_bytes;
} route;

static route route_of(const collective *const c) {
  route r = {.me = member_of(c->axes, c->step, world_rank)};
  move m[MAX_MOVES];
  group_ranks(c, world_rank, r.ranks);
  for (int i = 0; i < c->members; i++) {
    r.from[i] = r.in_bytes;
    r.in_bytes += total_bytes(m, moves_between(c, i, r.me, m));
    r.out_bytes += total_bytes(m, moves_between(c, r.me, i, m));
  }
  return r;
}

/* Sends this rank's pieces and asks for those of the others; the operand stays as it is until the end. */
static void begin_collective(const collective *const c, const char *const operand, char *const result) {
  if (c->kind == SHARD) return;
  const route r = route_of(c);
  char *const incoming = room(c, 0, r.in_bytes), *const outgoing = room(c, 1, r.out_bytes);
  move m[MAX_MOVES];
  for (int i = 1; i < c->members; i++) {
    const int s = (r.me + c->members - i) % c->members;
    const int count = moves_between(c, s, r.me, m);
    const int64_t bytes = total_bytes(m, count);
    /* What is not combined and lies in one piece comes straight to its place. */
    if (bytes > 0)
      begin_receive(c, !c->combine && is_run(m, count) ? result + m[0].to : incoming + r.from[s], bytes, r.ranks[s]);
  }
  int64_t at = 0;
  for (int i = 1; i < c->members; i++) {
    const int d = (r.me + i) % c->members; /* not all to the same one at first */
    const int count = moves_between(c, r.me, d, m);
    const int64_t bytes = total_bytes(m, count);
    if (bytes == 0) continue;
    if (!is_run(m, count)) copy_packed(outgoing + at, operand, m, count, 0);
    begin_send(c, is_run(m, count) ? operand + m[0].from : outgoing + at, bytes, r.ranks[d]);
    at += bytes;
  }
  exchanges[c->site].begun = 1;
}

/* Combines all members' copies of this member's part. */
static void combine_own(const collective *const c, const route *const r, const char *const operand, char *const result,
                        const move *const own, const int count) {
  char *const incoming = room(c, 0, r->in_bytes);
  const char *in[RANKS];
  for (int i = 0; i < c->members; i++) in[i] = incoming + r->from[i];
  if (is_run(own, count)) in[r->me] = operand + own[0].from;
  else copy_packed(incoming + r->from[r->me], operand, own, count, 0);
  int64_t at = 0;
  for (int i = 0; i < count; i++) {
    const move one = packed_side(own[i], at, 1);
    combine_move(c, &result, 1, in, &one, 0, move_bytes(&one));
    at += move_bytes(&one);
  }
}

static void collect(const int tid, const collective *const c, const char *const operand, char *const result) {
  if (tid != 0) return;
  traffic[c->site].calls[world_rank]++;
  if (!exchanges[c->site].begun) begin_collective(c, operand, result);
  exchanges[c->site].begun = 0;
  const route r = route_of(c);
  move own[MAX_MOVES], m[MAX_MOVES];
  const int count = moves_between(c, r.me, r.me, own);
  if (!c->combine)
    for (int i = 0; i < count; i++) copy_move(result, operand, &own[i], 0, move_bytes(&own[i]));
  if (c->kind == SHARD) return;
  finish_messages(c);
  if (c->combine) combine_own(c, &r, operand, result, own, count);
  for (int i = 1; i < c->members; i++) {
    const int s = (r.me + i) % c->members;
    if (c->kind == ALL_REDUCE) {
      if (moves_between(c, s, s, m)) begin_receive(c, result + m[0].to, m[0].bytes, r.ranks[s]);
      if (count > 0) begin_send(c, result + own[0].to, own[0].bytes, r.ranks[s]);
    } else if (!c->combine) {
      const int parts = moves_between(c, s, r.me, m);
      if (parts > 0 && !is_run(m, parts)) copy_packed(result, room(c, 0, r.in_bytes) + r.from[s], m, parts, 1);
    }
  }
  finish_messages(c);
}

/* ---- messages between stages ------------------------------------------------------------------------------------ */

/* What this rank sent over a channel and may still be on its way: the sender goes on as soon as it is copied. */
static struct {
  char *copy;
  MPI_Request request;
} letters[CHANNELS];

static void send_value(const collective *const c, const int channel, const int peer, const int64_t bytes, const void *const from) {
  int ranks[RANKS];
  group_ranks(c, world_rank, ranks);
  if (letters[channel].copy) MPI_Wait(&letters[channel].request, MPI_STATUS_IGNORE);
  else letters[channel].copy = malloc((size_t)bytes);
  if (!letters[channel].copy) {
    fprintf(stderr, "error: %s: no memory for a message of %lld bytes\n", c->name, (long long)bytes);
    MPI_Abort(world, 1);
  }
  memcpy(letters[channel].copy, from, (size_t)bytes);
  MPI_Isend(letters[channel].copy, (int)bytes, MPI_BYTE, ranks[peer], 0x4000 + channel, world, &letters[channel].request);
  traffic[c->site].calls[world_rank]++;
  traffic[c->site].bytes[world_rank][ranks[peer]] += bytes;
}

static void receive_value(const collective *const c, const int channel, const int peer, const int64_t bytes, void *const to) {
  int ranks[RANKS];
  group_ranks(c, world_rank, ranks);
  exchange *const x = &exchanges[c->site];
  x->peer[x->count] = ranks[peer];
  MPI_Irecv(to, (int)bytes, MPI_BYTE, ranks[peer], 0x4000 + channel, world, &x->request[x->count++]);
  finish_messages(c);
  traffic[c->site].calls[world_rank]++;
}
