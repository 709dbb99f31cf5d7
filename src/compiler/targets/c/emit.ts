/**
 * The emitted program: one readable C file with the prelude, every kernel once, the step (all kernel calls in order, run
 * by the whole team), and six exports. The host opens it, writes inputs into the arena, calls `anneal_run`, and reads
 * results from the arena; nothing crosses the border in between.
 */
import { InternalError } from '../../../errors.ts'
import type { Block, KernelStep, LoopStep, Step } from './lower.ts'
import { offloadText, type Releases } from './offload.ts'
import type { KernelLibrary } from './kernels.ts'
import { prelude, type VectorTarget } from './prelude.ts'
import { numberSites, profileText, type SiteNumbers } from './profile.ts'
import type { Chain, Phase } from './schedule.ts'
import type { Storage } from './storage.ts'
import { describeWork } from './work.ts'

export interface ProgramText {
  readonly title: readonly string[]
  readonly target: VectorTarget
  readonly library: KernelLibrary
  readonly block: Block
  readonly arenaBytes: number
  /** At the beginning of the arena, in a file. */
  readonly offloadedBytes: number
  readonly releases: Releases
  /** Where the temporaries of the main block start. */
  readonly temporaryOffset: number
}

export function emitProgram(program: ProgramText): string {
  const sites = numberSites(program.block)
  const body = emitBlock(program.block, sites, program.temporaryOffset, '  ', program.releases)
  const offloads = program.offloadedBytes > 0
  return [
    '/*',
    ...program.title.map((line) => ` * ${line}`),
    ' */',
    '#define _GNU_SOURCE',
    prelude(program.target),
    support,
    profileText(program.block, program.target.threads),
    program.library.code,
    `#define ARENA_BYTES ${program.arenaBytes}LL`,
    'static char *lender;',
    ...(offloads ? [`#define OFFLOADED_BYTES ${program.offloadedBytes}LL`, offloadText] : []),
    '',
    '/* One step of the program. Every thread of the team runs this. */',
    'static void step(const int tid, char *const arena) {',
    ...body,
    '}',
    '',
    host,
  ].join('\n')
}

function emitBlock(
  block: Block,
  sites: SiteNumbers,
  base: number,
  indent: string,
  releases: Releases = new Map(),
): string[] {
  const lines: string[] = []
  block.phases.forEach((phase, i) => {
    for (const chain of phase) {
      lines.push(...emitChain(chain, sites, base, indent))
      for (const release of releases.get(chain) ?? []) lines.push(`${indent}${release}`)
    }
    // Consecutive phases of the first thread alone need no barrier between them.
    const next = block.phases[i + 1]
    if (!(isSerial(phase) && next && isSerial(next))) lines.push(`${indent}team_barrier(tid);`)
  })
  return lines
}

const isSerial = (phase: Phase): boolean => phase.every((chain) => chain.kind === 'serial')

/** The steps of a chain; several row kernels take the thread's rows a block at a time. */
function emitChain(
  { kind, rows, unit, block, steps }: Chain,
  sites: SiteNumbers,
  base: number,
  indent: string,
): string[] {
  const ends = ['tid', 'tid + 1'].map((part) => `share(${rows}, ${unit}, ${part})`)
  if (kind !== 'rows' || steps.length === 1) {
    return steps.flatMap((step) => {
      if (step.kind === 'loop')
        return [`${indent}/* ${comment(step)} */`, ...emitLoop(step, sites, base, indent)]
      const call = emitCall(step, sites, kind === 'rows' ? ends : [], base)
      return [
        `${indent}/* ${comment(step)} */`,
        `${indent}${kind === 'serial' ? 'if (tid == 0) ' : ''}${call}`,
      ]
    })
  }
  return [
    `${indent}for (int64_t from = ${ends[0]}, end = ${ends[1]}; from < end; from += ${block}) {`,
    `${indent}  const int64_t to = from + ${block} < end ? from + ${block} : end;`,
    ...steps.flatMap((step) => {
      if (step.kind !== 'kernel' || step.nature.kind !== 'rows') throw new InternalError('not a row kernel')
      const factor = step.nature.rows / rows
      const range = ['from', 'to'].map((end) => (factor === 1 ? end : `${end} * ${factor}`))
      return [`${indent}  /* ${comment(step)} */`, `${indent}  ${emitCall(step, sites, range, base)}`]
    }),
    `${indent}}`,
  ]
}

const comment = (step: Step): string =>
  (step.kind === 'loop' ? step.comment : describeWork(step.work)).replaceAll('*/', '* /')

function emitCall(step: KernelStep, sites: SiteNumbers, range: readonly string[], base: number): string {
  const args = step.args.map(
    ({ storage, bytes }) => `(void *)(${address(storage, base)}${bytes === 0 ? '' : ` + ${bytes}`})`,
  )
  if (step.takesScratch) args.push(step.scratch ? address(step.scratch, base) : '0')
  return `SITE(${sites.get(step)!}) ${step.name}(${['tid', ...range, ...args].join(', ')});`
}

function emitLoop(step: LoopStep, sites: SiteNumbers, base: number, indent: string): string[] {
  const inner = `${indent}  `
  const body = `${inner}  `
  const before: string[] = []
  const perStep: string[] = []
  const after: string[] = []
  for (const binding of step.bindings) {
    const from = address(binding.storage, base)
    if (binding.kind === 'whole') before.push(`${inner}char *const ${binding.variable} = ${from};`)
    else if (binding.kind === 'slice')
      perStep.push(`${body}char *const ${binding.variable} = ${from} + i * ${binding.bytes}LL;`)
    else {
      before.push(
        `${inner}char *${binding.variable} = ${from};`,
        `${inner}char *${binding.next} = ${address(binding.other, base)};`,
      )
      after.push(
        `${body}{ char *const swap = ${binding.variable}; ${binding.variable} = ${binding.next}; ${binding.next} = swap; }`,
      )
    }
  }
  const used = before.map((line) => /char \*(?:const )?(\w+)/.exec(line)![1]!)
  const slices = perStep.map((line) => /char \*const (\w+)/.exec(line)![1]!)
  return [
    `${indent}{`,
    ...before,
    `${inner}${used.map((name) => `(void)${name};`).join(' ')}`,
    `${inner}for (int64_t s = 0; s < ${step.length}; s++) {`,
    `${body}const int64_t i = ${step.reverse ? `${step.length - 1} - s` : 's'}; (void)i;`,
    ...perStep,
    `${body}${slices.map((name) => `(void)${name};`).join(' ')}`,
    ...emitBlock(step.block, sites, base + offsetOf(step.region), body),
    ...after,
    `${inner}}`,
    `${indent}}`,
  ]
}

const offsetOf = (storage: Storage): number => storage.root.offset

function address(storage: Storage, base: number): string {
  const { root } = storage
  return root.outside ?? `arena + ${base + Math.max(root.offset, 0)}`
}

const support = `
#include <pthread.h>
#include <sys/mman.h>
#define PRAGMA(text) _Pragma(#text)
/* Kept apart, so that a profiler names them and the compiler never sees one huge function. */
#define KERNEL static __attribute__((noinline)) void
#ifdef ANNEAL_COUNT /* counting writes to memory in every iteration, which a vector loop must not */
#define SIMD_LOOP(...)
#else
#define SIMD_LOOP(...) PRAGMA(omp simd __VA_ARGS__)
#endif
/* This thread's share [begin, end) of n items, in multiples of unit. The C compiler must not see how it follows from
 * THREADS: knowing a trip count it would vectorise a reduction in another order, and bits would depend on the team. */
#define OPAQUE(begin, end) __asm__("" : "+r"(begin), "+r"(end));
#define RANGE(n, unit)                                                                                                 \\
  int64_t begin = share((n), (unit), tid), end = share((n), (unit), tid + 1);                                          \\
  OPAQUE(begin, end)
INLINE int64_t share(const int64_t n, const int64_t unit, const int64_t part) {
  const int64_t units = (n + unit - 1) / unit, at = units * part / THREADS * unit;
  return at < n ? at : n;
}
/* condition ? a : b, with both read first. gcc 12 (-O3, AVX2 and up) turns reads under a condition into masked ones and,
 * where several vectors cover a row, gives one vector the mask of another. */
#define SELECT(name, type)                                                                                             \\
  INLINE type name(const int condition, const type a, const type b) { return condition ? a : b; }
SELECT(select_f32, float)
SELECT(select_f64, double)
SELECT(select_i32, int32_t)
SELECT(select_u8, uint8_t)
SELECT(select_bool, int)
INLINE int64_t clamp_index(const int64_t i, const int64_t rows) { return i < 0 ? 0 : i < rows ? i : rows - 1; }
`

const host = `
/* ---- the team and the six exports ------------------------------------------------------------------------------ */

typedef struct {
  char *arena;
  pthread_t thread[THREADS];
  _Atomic int state; /* raised by one for every step to run; negative: leave */
} Program;

static Program program;

/* Another program's arena, where the inputs lie that it shares with this one. */
void anneal_borrow(char *arena) { lender = arena; }

#define ARENA_SIZE (ARENA_BYTES > 0 ? ARENA_BYTES : 64)

static void *worker(void *argument) {
  const int tid = (int)(intptr_t)argument;
  for (;;) {
    team_barrier(tid); /* released by anneal_run or anneal_close */
    if (atomic_load(&program.state) < 0) return 0;
    step(tid, program.arena);
    team_barrier(tid);
  }
}

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

/* Allocates the arena and starts the team. Returns the arena, or 0 when there is not enough memory. */
void *anneal_open(void) {
  if (program.arena) return program.arena;
  char *const arena = fresh_pages(ARENA_SIZE);
  if (!arena) return 0;
#ifdef OFFLOADED_BYTES
  if (!map_file(arena)) return 0;
#else
#define OFFLOADED_BYTES 0
#endif
#ifdef MADV_HUGEPAGE
  madvise(arena + OFFLOADED_BYTES, ARENA_SIZE - OFFLOADED_BYTES, MADV_HUGEPAGE);
#endif
  program.arena = arena;
  atomic_store(&program.state, 0);
  for (intptr_t tid = 1; tid < THREADS; tid++) pthread_create(&program.thread[tid], 0, worker, (void *)tid);
  return program.arena;
}

/* Runs one step on the whole team; the caller is thread 0. */
void anneal_run(void) {
  PROFILE_RUN {
    team_barrier(0);
    step(0, program.arena);
    team_barrier(0);
  }
}

int64_t anneal_arena_bytes(void) { return ARENA_BYTES; }

/* FLOPs counted so far; 0 unless compiled with -DANNEAL_COUNT. */
int64_t anneal_flops(void) {
#ifdef ANNEAL_COUNT
  return (int64_t)counted_operations();
#else
  return 0;
#endif
}

void anneal_close(void) {
  if (!program.arena) return;
  atomic_store(&program.state, -1);
  team_barrier(0);
  for (int tid = 1; tid < THREADS; tid++) pthread_join(program.thread[tid], 0);
  munmap(program.arena, ARENA_SIZE);
  program.arena = 0;
}
`
