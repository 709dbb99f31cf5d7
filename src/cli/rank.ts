/**
 * `mpirun -n 4 anneal rank language mesh.data=4`: one process for each rank of the mesh, on one host or several that see
 * the same folder of runs. The process of rank 0 shows the progress and writes the run; a run that exists goes on.
 */
import { findRun, readRun } from '../runs/index.ts'
import { badUsage } from '../errors.ts'
import type { TrainResult } from '../train/events.ts'
import type { Command } from './command.ts'
import { runsOption } from './command.ts'
import { withInterrupt } from './interrupt.ts'
import { parseOverrides } from './overrides.ts'
import { findRecipe, isRecipe } from './recipes.ts'
import { announcement } from './processes.ts'
import { describeEnd, runTraining, type JobTools } from './training.ts'

export const rank: Command = {
  arguments: ['a recipe, or a run to go on with', 'key=value, with a mesh of as many ranks as processes'],
  options: [runsOption, ['--supervised', 'print which run it is, for anneal train --processes']],
  examples: [
    'mpirun -n 2 anneal rank language mesh.data=2',
    'mpirun -n 4 --host one:2,two:2 anneal rank latest',
  ],
  async run(io, [what = '', ...settings], options) {
    const runsDir = String(options['runs'])
    const known = isRecipe(what)
    const runId = known ? '' : findRun(runsDir, what)
    const recipe = findRecipe(known ? what : readRun(runsDir, runId).meta.recipe)
    const { languageConfigSchema, resolveConfig } = await recipe.config()
    const overrides = parseOverrides(languageConfigSchema, settings)
    const { trainLanguage, resumeLanguage } = await recipe.job()
    const job = (tools: Partial<JobTools>): Promise<TrainResult> => {
      const started = ({ runId, hosts }: { runId: string; hosts: readonly string[] }): void => {
        if (ownRank() === 0 && options['supervised'])
          io.out(`${announcement}${JSON.stringify([runId, ...hosts])}\n`)
      }
      const common = { runsDir, processes: true, started, ...tools }
      return known
        ? trainLanguage(resolveConfig(overrides), common)
        : resumeLanguage(runId, { ...common, overrides })
    }
    const own = ownRank()
    // Says that the others need not be waited for, until all has gone well.
    process.env['ANNEAL_RANK_FAILED'] = '1'
    const result = await (own === 0
      ? runTraining((tools) =>
          job({ ...tools, signal: options['supervised'] ? whenInputEnds(tools.signal) : tools.signal }),
        )
      : withInterrupt(
          () => {},
          (signal) => job({ signal }),
        ))
    delete process.env['ANNEAL_RANK_FAILED']
    // The run's end is told by one.
    if (own !== 0) return 0
    const { text, code } = describeEnd(result, runsDir)
    io.result(text, { what, overrides, result })
    return code
  },
}

/** Which rank mpirun made this process; the native program finds out by itself, but later. */
function ownRank(): number {
  const given = process.env['OMPI_COMM_WORLD_RANK'] ?? process.env['PMI_RANK']
  if (given !== undefined) return Number(given)
  throw badUsage({
    where: 'anneal rank',
    got: 'a process that mpirun did not start',
    expected: 'one process for each rank',
    fix: 'use mpirun -n RANKS anneal rank …, or anneal train for ranks that are threads',
  })
}

/** Aborts when the supervisor closes our input, as it does to stop the run and when it is gone itself; or with `other`. */
function whenInputEnds(other: AbortSignal): AbortSignal {
  const controller = new AbortController()
  process.stdin.on('end', () => controller.abort()).resume()
  return AbortSignal.any([controller.signal, other])
}
