/**
 * `anneal up`: the shortest way to a trained model. Opens the lab, trains the default recipe unless a finished run is
 * there, goes on with it when it was interrupted, and serves until Ctrl-C. With `--terminal` there is no page: it trains,
 * lets the model write and names the next commands.
 *
 * Subtle: beside the lab, training is a process of its own, so that pages stay quick while it steps, and so that it goes
 * on when the server is killed. Ctrl-C ends both, training after a checkpoint.
 */
import { spawn } from 'node:child_process'
import { isDeepStrictEqual } from 'node:util'
import { listRuns, readRun } from '../runs/index.ts'
import { badUsage, UserError } from '../errors.ts'
import type { HttpServer } from '../serve/index.ts'
import type { Command, ExitCode, Io, Options } from './command.ts'
import { runsOption, self } from './command.ts'
import { defaultRecipe, findRecipe } from './recipes.ts'
import { describeEnd, runTraining } from './training.ts'

/** Tokens written to show what the model has learnt. */
const sampleTokens = 300

export const up: Command = {
  arguments: [],
  options: [
    ['--port <n>', 'port of the lab; default the first free one from 4242 on'],
    ['--host <address>', 'address to listen on; any but this machine needs ANNEAL_API_KEY', '127.0.0.1'],
    ['--idle', 'open the lab without training anything'],
    ['--terminal', 'no lab: train, let the model write, end'],
    runsOption,
  ],
  examples: ['anneal up', 'anneal up --terminal', 'anneal up --idle --runs /tmp/runs'],
  async run(io, _args, options) {
    // A document on stdout is for programs, which look at no page.
    return options['terminal'] || io.json ? upInTerminal(io, options) : upWithLab(io, options)
  },
}

const firstPort = 4242

async function upWithLab(io: Io, options: Options): Promise<ExitCode> {
  const runsDir = String(options['runs'])
  const lab = await openSomewhere(io, options)
  io.out(`lab      ${lab.url}\n`)
  const words = options['idle'] ? undefined : await whatToTrain(io, runsDir)
  const interrupt = new AbortController()
  const stop = (): void => interrupt.abort()
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of signals) process.on(name, stop)
  const { command } = await import('./lab.ts')
  const [program, launcher] = command
  // On the same terminal: its status line is the one people know.
  const trainer =
    words && spawn(program, [launcher, ...words, '--runs', runsDir], { stdio: ['ignore', 2, 2] })
  const ended = new Promise<void>((resolve) => {
    if (!trainer) return resolve()
    trainer.on('exit', () => resolve())
    trainer.on('error', () => resolve())
  })
  const interrupted = new Promise<void>((resolve) => {
    interrupt.signal.addEventListener('abort', () => resolve())
  })
  await Promise.race([ended, interrupted])
  const wasTraining = trainer?.exitCode === null && trainer.signalCode === null
  if (!interrupt.signal.aborted) io.note(`the lab stays open at ${lab.url} until Ctrl-C`)
  await interrupted
  // The terminal tells the trainer too; to it, two signals at once are one.
  if (wasTraining) trainer?.kill('SIGINT')
  await Promise.all([ended, lab.close()])
  for (const name of signals) process.off(name, stop)
  return wasTraining ? 130 : 0
}

/** The port that was asked for, or the first free one of a few, so that its address stays the same from day to day. */
async function openSomewhere(io: Io, options: Options): Promise<HttpServer> {
  const { openLab } = await import('./lab.ts')
  const host = String(options['host'])
  const open = (port: number): Promise<HttpServer> =>
    openLab({ runsDir: String(options['runs']), host, port, note: (text) => io.note(text) })
  const asked = options['port']
  if (asked !== undefined) {
    const port = Number(asked)
    if (Number.isSafeInteger(port) && port >= 0 && port < 65_536) return open(port)
    throw badUsage({
      where: '--port',
      got: `'${String(asked)}'`,
      expected: 'a number from 0 to 65535; 0 is any free port',
      fix: 'leave it out',
    })
  }
  for (let port = firstPort; port < firstPort + 10; port++) {
    try {
      return await open(port)
    } catch (error) {
      if (!(error instanceof UserError) || !error.complaint.got.includes('in use')) throw error
    }
  }
  return open(0)
}

/** The command that trains the default recipe; undefined when there is nothing to train. */
async function whatToTrain(io: Io, runsDir: string): Promise<string[] | undefined> {
  const { resolveConfig } = await findRecipe(defaultRecipe).config()
  const known = listRuns(runsDir).runs.filter((run) => run.recipe === defaultRecipe)
  const there = known.find(({ status }) => status === 'finished' || status === 'running')
  if (there !== undefined) {
    const what = there.status === 'running' ? 'a model is being trained' : 'a trained model is there'
    io.note(`${what} already: ${there.id} (train another in the lab)`)
    return undefined
  }
  const config = resolveConfig()
  const stopped = known.find((run) => run.status === 'interrupted' && canContinue(runsDir, run.id, config))
  if (stopped === undefined) return ['train', defaultRecipe]
  io.note(`going on with ${stopped.id}, which was interrupted at step ${stopped.step}`)
  return ['resume', stopped.id]
}

async function upInTerminal(io: Io, options: Options): Promise<ExitCode> {
  const runsDir = String(options['runs'])
  const recipe = findRecipe(defaultRecipe)
  const { resolveConfig } = await recipe.config()
  const { trainLanguage, resumeLanguage, sampleRun } = await recipe.job()
  const config = resolveConfig()
  const known = listRuns(runsDir).runs.filter((run) => run.recipe === defaultRecipe)
  let runId = known.find((run) => run.status === 'finished')?.id
  const trained = runId !== undefined
  if (runId === undefined) {
    const stopped = known.find((run) => run.status === 'interrupted' && canContinue(runsDir, run.id, config))
    if (stopped !== undefined)
      io.note(`going on with ${stopped.id}, which was interrupted at step ${stopped.step}`)
    const result = await runTraining((tools) =>
      stopped === undefined
        ? trainLanguage(config, { runsDir, ...tools })
        : resumeLanguage(stopped.id, { runsDir, ...tools }),
    )
    const { text, code } = describeEnd(result, runsDir)
    if (code !== 0) {
      io.result(text, { run: result.runId, result })
      return code
    }
    io.note(text)
    runId = result.runId
  } else {
    io.note(`a trained model is there already: ${runId} (train another with ${self} train ${defaultRecipe})`)
  }
  const prompt = config.sample.prompt
  if (!io.json) io.out(`\n${prompt}`)
  const { text } = await sampleRun(runId, {
    runsDir,
    prompt,
    tokens: sampleTokens,
    temperature: config.sample.temperature,
    topK: 0,
    seed: 1,
    onToken: (piece: string) => {
      if (!io.json) io.out(piece)
    },
  })
  const next = [`${self} sample ${runId} --prompt "ROMEO:"`, `${self} show ${runId}`]
  io.result(`\n\nnext\n${next.map((line) => `  ${line}`).join('\n')}`, {
    run: runId,
    trained,
    prompt,
    sample: text,
    next,
  })
  return 0
}

/** Whether a run is the default one, with a checkpoint to start from. */
function canContinue(runsDir: string, id: string, config: object): boolean {
  const run = readRun(runsDir, id)
  return run.checkpoints.some(({ present }) => present) && isDeepStrictEqual(run.config, config)
}
