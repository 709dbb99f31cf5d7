/**
 * For the tests of this folder: compiles C text to a shared library and runs a kernel on a team of threads, the way an
 * emitted program does. Kept apart from the toolchain so that kernels are tested without its cache.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import koffi from 'koffi'

const flags =
  '-O3 -march=native -fno-math-errno -fno-trapping-math -ffp-contract=fast -std=gnu11 -fPIC -shared -pthread'

/** Loads the compiled text; the file is gone once loaded. */
export function compileC(source: string, extraFlags: readonly string[] = []): ReturnType<typeof koffi.load> {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-kernel-'))
  try {
    const [text, library] = [join(folder, 'kernel.c'), join(folder, 'kernel.so')]
    writeFileSync(text, source)
    execFileSync('cc', [...flags.split(' '), ...extraFlags, '-Wall', '-o', library, text, '-lm'])
    return koffi.load(library)
  } finally {
    rmSync(folder, { recursive: true })
  }
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
