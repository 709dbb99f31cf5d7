/**
 * Finds MPI: the compiler wrapper says how to compile and link with it, `mpirun` starts one process a rank. Only programs
 * whose ranks are processes need it.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { failure, UserError } from '../../errors.ts'
import { loadShared } from './toolchain.ts'

const run = promisify(execFile)

export interface Mpi {
  /** First line of `mpirun --version`. */
  readonly version: string
  readonly mpirun: string
  /** For the C compiler: where mpi.h is, what to link with. */
  readonly flags: readonly string[]
  /** Folders of its libraries. */
  readonly folders: readonly string[]
}

let found: Promise<Mpi> | undefined

/**
 * MPI on this machine; asked once per process.
 *
 * @throws UserError saying what to install when it is not there.
 */
export const findMpi = (): Promise<Mpi> => (found ??= probe())

async function probe(): Promise<Mpi> {
  try {
    const [{ stdout: version }, { stdout: compile }, { stdout: link }, { stdout: libraries }] =
      await Promise.all([
        run('mpirun', ['--version']),
        run('mpicc', ['--showme:compile']),
        run('mpicc', ['--showme:link']),
        run('mpicc', ['--showme:libdirs']),
      ])
    const words = (text: string): string[] => text.trim().split(/\s+/)
    return {
      version: version.split('\n')[0]!.trim(),
      mpirun: 'mpirun',
      // Some linkers drop a library that nothing before it has asked for.
      flags: [
        '-DANNEAL_MPI',
        ...words(compile),
        '-Wl,--no-as-needed',
        ...words(link),
        ...words(libraries).map((folder) => `-Wl,-rpath,${folder}`),
      ],
      folders: words(libraries),
    }
  } catch (error) {
    throw failure({
      where: 'MPI',
      got: error instanceof Error ? error.message.split('\n')[0]! : String(error),
      expected: 'Open MPI: mpirun and mpicc, for ranks that are processes',
      fix: 'apt-get install libopenmpi-dev openmpi-bin (or dnf install openmpi-devel, brew install open-mpi)',
    })
  }
}

/** Makes MPI's functions known to the plug-ins that MPI itself loads; before the first program that uses it. */
export async function loadMpi(): Promise<void> {
  const { folders } = await findMpi()
  const path = folders.map((folder) => join(folder, 'libmpi.so')).find((path) => existsSync(path))
  if (path !== undefined) loadShared(path, { global: true })
}

/** For tests: why there is no MPI, or false. */
export async function withoutMpi(): Promise<string | false> {
  try {
    await findMpi()
    return false
  } catch (error) {
    if (error instanceof UserError) return error.message
    throw error
  }
}

/**
 * Starts a program once for each rank on this machine and waits for it; returns what it printed.
 *
 * @throws UserError with the last line it printed when a rank fails.
 */
export async function runMpi(
  ranks: number,
  command: readonly string[],
  options: readonly string[] = [],
): Promise<string> {
  const { mpirun } = await findMpi()
  // More ranks than cores are allowed, a rank is a team and not bound to one core, and a superuser may, as in containers.
  const freely = [
    '--oversubscribe',
    '--bind-to',
    'none',
    ...(process.getuid?.() === 0 ? ['--allow-run-as-root'] : []),
  ]
  try {
    const { stdout } = await run(mpirun, [...freely, '-n', String(ranks), ...options, ...command], {
      maxBuffer: 1 << 26,
    })
    return stdout
  } catch (error) {
    const { stderr = '', stdout = '' } = error as { readonly stderr?: string; readonly stdout?: string }
    const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => line.startsWith('error:'))
    throw failure({
      where: `mpirun -n ${ranks} ${command[0]}`,
      got: lines.at(-1)?.slice('error: '.length) ?? (stderr.trim().split('\n')[0] || String(error)),
      expected: 'every rank to finish',
      fix: 'see what that rank printed',
    })
  }
}
