/**
 * `anneal train … --processes`: starts one process for each rank with mpirun and watches over them. When a rank dies, does
 * not come, or has other bits than the others, that rank is named and all of them start again from the last good
 * checkpoint; the work since then is all that is lost. A rank that is lost again and again is left out, where that is
 * allowed, and the run goes on under a plan for those that remain.
 */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { findMpi } from '../compiler/runtime/mpi.ts'
import { failure } from '../errors.ts'
import { readRun, type Run } from '../runs/index.ts'
import { listCheckpoints } from '../train/checkpoint.ts'
import type { Replanned } from '../train/replan.ts'
import { withInterrupt } from './interrupt.ts'
import type { ExitCode, Io } from './command.ts'

export interface Launch {
  readonly ranks: number
  readonly restarts: number
  readonly runsDir: string
  /** What `anneal rank` is given the first time: a recipe or a run, and settings. */
  readonly words: readonly string[]
  /** The plan on fewer ranks, at most so many; only where that is allowed. */
  readonly onFewer?: (run: Run, left: number) => Promise<Replanned | undefined>
}

/** Begins the line by which the first rank says which run it is, and where each rank is. */
export const announcement = 'anneal run: '

/** Trains to the end with as many restarts as are allowed. */
export async function superviseRanks(io: Io, launch: Launch): Promise<ExitCode> {
  const { restarts, runsDir, words, onFewer } = launch
  let { ranks } = launch
  let what = words
  let runId: string | undefined
  for (let restart = 0; ; restart++) {
    const { code, hosts, said, ...known } = await startRanks(io, ranks, [...what, '--runs', runsDir])
    runId = known.runId ?? runId
    if (code === 0 || code === 130) return code
    const run = runId === undefined ? undefined : readRun(runsDir, runId)
    const fault = faultIn(said, hosts, run?.points.at(-1)?.step ?? 0)
    if (!fault) {
      const line = said.findLast((text) => text.startsWith('error: '))
      throw failure({
        where: `mpirun with ${ranks} ranks`,
        got: line?.slice('error: '.length) ?? said.at(-1) ?? `exit code ${code}`,
        expected: 'every rank to finish',
        fix: run ? `see what it printed; anneal resume ${run.meta.id} goes on` : 'see what it printed',
      })
    }
    const fewer = run && restart >= restarts ? await onFewer?.(run, ranks - 1) : undefined
    if (!run || (restart >= restarts && !fewer)) {
      throw failure({
        where: fault.where,
        got: fault.cause,
        expected: `a rank that goes on; ${restart} of ${restarts} restarts are used up`,
        fix: run
          ? `see to that host, then anneal rank ${run.meta.id} under mpirun, or allow parallel.shrink=true`
          : 'see to that host',
      })
    }
    const from = listCheckpoints(run.dir).at(-1)?.step ?? 0
    io.note(`note: ${fault.where}: ${fault.cause}`)
    what = [run.meta.id, ...(fewer?.settings ?? [])]
    if (!fewer) {
      io.note(`note: going on from step ${from} (restart ${restart + 1} of ${restarts})`)
      continue
    }
    const { settings, why } = fewer
    io.note(
      `note: going on from step ${from} with ${fewer.ranks} of ${ranks} ranks: ${settings.join(' ')} (${why})`,
    )
    ranks = fewer.ranks
    restart = -1
  }
}

interface Ended {
  readonly code: number
  readonly runId?: string
  readonly hosts: readonly string[]
  /** Lines on stderr that report something wrong. */
  readonly said: readonly string[]
}

async function startRanks(io: Io, ranks: number, words: readonly string[]): Promise<Ended> {
  const { mpirun } = await findMpi()
  const launcher = fileURLToPath(new URL('../../bin/anneal.js', import.meta.url))
  // More ranks than cores are allowed, and so is a superuser, as in containers.
  // One rank alone has all the cores; mpirun would bind it to one of them.
  const wide = ranks === 1 ? ['--bind-to', 'none'] : []
  const freely = ['--oversubscribe', ...wide, ...(process.getuid?.() === 0 ? ['--allow-run-as-root'] : [])]
  const json = io.json ? ['--json'] : []
  const args = [
    ...freely,
    '-n',
    String(ranks),
    process.execPath,
    launcher,
    'rank',
    ...words,
    '--supervised',
    ...json,
  ]
  // A session of its own: Ctrl-C reaches the ranks as a request that this process passes on.
  const child = spawn(mpirun, args, { detached: true, stdio: ['pipe', 'pipe', 'pipe'] })
  let [runId, hosts]: [string | undefined, readonly string[]] = [undefined, []]
  const said: string[] = []
  eachLine(child.stdout, (line) => {
    if (!line.startsWith(announcement)) return io.out(`${line}\n`)
    ;[runId, ...hosts] = JSON.parse(line.slice(announcement.length)) as [string, ...string[]]
  })
  let own = true
  eachLine(child.stderr, (line) => {
    // From the first error on, it is mpirun and the other ranks who speak of it.
    if (line.startsWith('error: ') || line.startsWith('-----')) own = false
    if (own) io.note(line)
    else said.push(line)
  })
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve(code ?? 1))
  })
  const code = await withInterrupt(
    () => {},
    (signal) => {
      // The rank that reads it stops, and with it all.
      signal.addEventListener('abort', () => child.stdin.end())
      return ended
    },
  )
  return { code, hosts, said, ...(runId === undefined ? {} : { runId }) }
}

function eachLine(stream: NodeJS.ReadableStream, use: (line: string) => void): void {
  let rest = ''
  stream.on('data', (text: Buffer) => {
    const lines = (rest + text.toString()).split('\n')
    rest = lines.pop()!
    lines.forEach(use)
  })
  stream.on('end', () => {
    if (rest !== '') use(rest)
  })
}

/** Which rank is at fault, if one is: killed, missing, or with other bits. */
export function faultIn(
  said: readonly string[],
  hosts: readonly string[],
  step: number,
): { readonly where: string; readonly cause: string } | undefined {
  const text = said.join('\n')
  const differing = /^error: (rank .*): got (other bits [^;]*)/m.exec(text)
  if (differing) return { where: differing[1]!, cause: differing[2]! }
  const missing = /^error: rank \d+ on \S+, step (\d+), (.*): rank (\d+) did not come within (\S+) s/m.exec(
    text,
  )
  if (missing) {
    const [, at, what, rank, seconds] = missing
    const host = hosts[Number(rank)] ?? 'an unknown host'
    return {
      where: `rank ${rank} on ${host}, step ${at}`,
      cause: `did not come to ${what} within ${seconds} s`,
    }
  }
  const killed = /rank\s+(\d+)\s+with\s+PID\s+\d+\s+on\s+node\s+(\S+)\s+exited\s+on\s+signal\s+(\d+)/.exec(
    text,
  )
  if (!killed) return undefined
  const [, rank, host, signal] = killed
  return { where: `rank ${rank} on ${host}, after step ${step}`, cause: `was ended by signal ${signal}` }
}
