/**
 * Programs under the compiler's sanitizers, which end a process at its first wrong address, undefined operation or data
 * race and say where. For the tests of emitted code.
 * Subtle: the thread sanitizer needs an address space without much randomness (with 32 random bits the library of gcc 12
 * stops at once), so such a program is started by a few lines of C that switch it off.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { failure, UserError } from '../../errors.ts'
import { compileExecutable } from './toolchain.ts'

const run = promisify(execFile)

/** Address and undefined behaviour go together; races need a build of their own. */
export type Sanitizer = 'address,undefined' | 'thread'

const sanitizerFlags = (sanitizer: Sanitizer): string[] => [
  // Little optimisation: faster to compile, and lines in reports are those of the text.
  '-O1',
  '-g',
  '-fno-omit-frame-pointer',
  `-fsanitize=${sanitizer}`,
  '-fno-sanitize-recover=all',
]

const unrandomised = `#define _GNU_SOURCE
#include <unistd.h>
#ifdef __linux__
#include <sys/personality.h>
#endif
int main(int count, char **arguments) {
#ifdef __linux__
  personality(personality(0xffffffff) | ADDR_NO_RANDOMIZE); /* where this is refused, the program may still run */
#endif
  return count > 1 ? execv(arguments[1], arguments + 1) : 2;
}
`

const available = new Map<Sanitizer, Promise<unknown>>()

/** A program as small as can be, because a missing library must not look like a defect of the program under test. */
async function requireSanitizer(sanitizer: Sanitizer): Promise<void> {
  const known = available.get(sanitizer)
  const check =
    known ??
    runSanitized('sanitizer-probe', 'int main(void) { return 0; }\n', sanitizer, [], { probing: true })
  available.set(sanitizer, check)
  try {
    await check
  } catch (error) {
    throw failure({
      where: `the ${sanitizer} sanitizer`,
      got: error instanceof UserError ? error.complaint.got : String(error),
      expected: 'an empty program to compile and run under it',
      fix: 'install the sanitizer libraries of the compiler (libasan, libubsan and libtsan for gcc, compiler-rt for clang)',
    })
  }
}

/**
 * Compiles a C program with a sanitizer, runs it, and returns what it printed.
 *
 * @throws UserError when the sanitizer is not installed, or with its report when it found something.
 */
export async function runSanitized(
  name: string,
  source: string,
  sanitizer: Sanitizer,
  args: readonly string[] = [],
  { probing = false }: { readonly probing?: boolean } = {},
): Promise<string> {
  if (!probing) await requireSanitizer(sanitizer)
  const [{ path }, launcher] = await Promise.all([
    compileExecutable({
      name: `${name}-${sanitizer.split(',')[0]}`,
      source,
      flags: sanitizerFlags(sanitizer),
    }),
    compileExecutable({ name: 'unrandomised', source: unrandomised }),
  ])
  try {
    const { stdout } = await run(launcher.path, [path, ...args], { maxBuffer: 1 << 24 })
    return stdout
  } catch (error) {
    const { stderr = '', stdout = '' } = error as { readonly stderr?: string; readonly stdout?: string }
    throw failure({
      where: `${name} under the ${sanitizer} sanitizer`,
      got: `${stdout}\n${stderr}`.trim() || String(error),
      expected: 'a run without a finding',
      fix: `the program is ${path}, its text beside it`,
    })
  }
}
