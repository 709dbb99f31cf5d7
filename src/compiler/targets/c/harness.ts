/**
 * For the tests of this folder and for benchmarks of single kernels: compiles C text as an emitted program is compiled,
 * with every warning an error, and runs a kernel on a team of threads.
 */
import { compileShared, loadShared } from '../../runtime/toolchain.ts'
import type { EmittedKernel } from './gemm.ts'

/** Loads the compiled text; operations are counted. */
export async function compileC(source: string): Promise<ReturnType<typeof loadShared>> {
  const { path } = await compileShared({ name: 'kernels', source, flags: ['-DANNEAL_COUNT'], checking: true })
  return loadShared(path)
}

/** C text of `void NAME(POINTERS…)`, which runs `kernel` on all THREADS threads and waits for them. */
export function onTeam(name: string, kernel: string, pointers: number): string {
  const parameters = Array.from({ length: pointers }, (_, i) => `void *p${i}`)
  const members = Array.from({ length: pointers }, (_, i) => `arguments[${i}]`)
  return `
static void *${name}_pointers[${pointers}];
static void *${name}_thread(void *tid) {
  void *const *arguments = ${name}_pointers;
  ${kernel}(${['(int)(intptr_t)tid', ...members].join(', ')});
  return 0;
}
void ${name}(${parameters.join(', ')}) {
  ${parameters.map((_, i) => `${name}_pointers[${i}] = p${i};`).join(' ')}
  pthread_t thread[THREADS];
  for (intptr_t i = 1; i < THREADS; i++) pthread_create(&thread[i], 0, ${name}_thread, (void *)i);
  ${name}_thread(0);
  for (int i = 1; i < THREADS; i++) pthread_join(thread[i], 0);
}
`
}

/** C text of `NAME_team`, which runs a product as the step of a program does: packing first, then each thread's rows. */
export function asTeam(name: string, { nature, packed }: EmittedKernel): string {
  const b = packed ? 'scratch' : 'b'
  const rest = packed ? `(char *)scratch + ${packed.bytes}` : 'scratch'
  const call =
    nature?.kind === 'rows'
      ? `const long units = (${nature.rows} + ${nature.unit - 1}) / ${nature.unit};
  const long begin = units * tid / THREADS * ${nature.unit}, end = units * (tid + 1) / THREADS * ${nature.unit};
  ${name}(tid, begin, end < ${nature.rows} ? end : ${nature.rows}, a, ${b}, out, ${rest});`
      : `${name}(tid, a, ${b}, out, ${rest});`
  return `
static void ${name}_team(const int tid, const void *a, const void *b, void *out, void *scratch) {
  ${packed ? `${packed.name}(tid, b, scratch); team_barrier(tid);` : ''}
  ${call}
}
`
}

/** Bytes that `NAME_team` needs. */
export const scratchOf = ({ scratchBytes, packed }: EmittedKernel): number =>
  scratchBytes + (packed?.bytes ?? 0)
