/**
 * For the tests of this folder: compiles C text as an emitted program is compiled, with every warning an error, and runs
 * a kernel on a team of threads.
 */
import { compileShared, loadShared } from '../../runtime/toolchain.ts'

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
