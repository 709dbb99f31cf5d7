/**
 * The emitted program: one readable C file with the prelude, every kernel once, the step (all kernel calls in order, run
 * by the whole team), and a few exports (host.h). The host opens it, writes inputs into the arena, calls `anneal_run`, and
 * reads results from the arena; nothing crosses the border in between.
 */
import { readFileSync } from 'node:fs'
import { InternalError } from '../../../errors.ts'
import { collectivesText, constantOf, hosting } from './collectives.ts'
import type { Argument, Block, KernelStep, LoopStep, Step } from './lower.ts'
import { offloadText, type FileParts, type Releases } from './offload.ts'
import { letGoText } from './kept.ts'
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
  readonly parts: readonly PartText[]
  readonly arenaBytes: number
  /** What of the arena lies in a file, if anything. */
  readonly file: FileParts
  /** How many ranks run the program together. */
  readonly ranks: number
}

/** What the ranks of one pipeline stage run; without a pipeline there is one part. */
export interface PartText {
  readonly block: Block
  readonly releases: Releases
  /** Where the temporaries of the main block start. */
  readonly temporaryOffset: number
  readonly ranks: readonly number[]
}

export function emitProgram(program: ProgramText): string {
  const blocks = program.parts.map(({ block }) => block)
  const sites = numberSites(blocks)
  return [
    '/*',
    ...program.title.map((line) => ` * ${line}`),
    ' */',
    '#define _GNU_SOURCE',
    hosting(program.ranks),
    prelude(program.target),
    support,
    collectivesText(program.ranks, program.library.collectives.length, program.library.channels),
    profileText(blocks, program.target.threads),
    program.library.code,
    `#define ARENA_BYTES ${program.arenaBytes}LL`,
    'static char *lenders[HOSTED];',
    offloadText(program.file),
    '',
    ...program.parts.flatMap(({ block, temporaryOffset, releases }, part) => [
      '/* One step of the program. Every thread of the team runs this. */',
      `static void ${stepName(program.parts, part)}(const int tid, char *const arena) {`,
      '  char *const lender = lenders[seat]; (void)lender;',
      ...emitBlock(block, sites, temporaryOffset, '  ', releases),
      '}',
      '',
    ]),
    ...chosenStep(program.parts, program.ranks),
    '',
    host,
  ].join('\n')
}

const stepName = (parts: readonly PartText[], part: number): string =>
  parts.length === 1 ? 'step' : `step_of_stage_${part}`

/** Each stage of a pipeline has a step of its own. */
function chosenStep(parts: readonly PartText[], ranks: number): string[] {
  if (parts.length === 1) return []
  const stageOf = Array.from({ length: ranks }, (_, rank) =>
    parts.findIndex((part) => part.ranks.includes(rank)),
  )
  return [
    `static const int stage_of[RANKS] = {${stageOf.join(', ')}};`,
    'static void step(const int tid, char *const arena) {',
    '  switch (stage_of[rank_here()]) {',
    ...parts.map((_, part) => `    case ${part}: ${stepName(parts, part)}(tid, arena); break;`),
    '  }',
    '}',
  ]
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
    // Messages are on their way while the other work of the phase is done, and all together.
    const [meeting, others] = [phase.filter(isMeeting), phase.filter((chain) => !isMeeting(chain))]
    if (phase.length > 1) lines.push(...meeting.map((chain) => emitBeginning(chain, base, indent)))
    for (const chain of [...others, ...meeting]) {
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

/** Nothing but a collective, whose operands are there when the phase begins. */
const isMeeting = ({ steps }: Chain): boolean =>
  steps.length === 1 && steps[0]!.kind === 'kernel' && steps[0]!.collective !== undefined

function emitBeginning({ steps }: Chain, base: number, indent: string): string {
  const step = steps[0] as KernelStep
  const [operand, result] = step.args.map((argument) => pointer(argument, base))
  return `${indent}if (tid == 0) begin_collective(&${constantOf(step.collective!)}, ${operand}, ${result});`
}

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
  const args = step.args.map((argument) => pointer(argument, base))
  if (step.takesScratch) args.push(step.scratch ? address(step.scratch, base) : '0')
  return `SITE(${sites.get(step)!}) ${step.name}(${['tid', ...range, ...args].join(', ')});`
}

const pointer = ({ storage, bytes }: Argument, base: number): string =>
  `(void *)(${address(storage, base)}${bytes === 0 ? '' : ` + ${bytes}`})`

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
    ...letGoText(step.letGo, step.length, step.reverse).map((line) => `${body}${line}`),
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

const host = readFileSync(new URL('host.h', import.meta.url), 'utf8')
