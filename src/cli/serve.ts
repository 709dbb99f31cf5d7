/**
 * `anneal serve <run>`: an OpenAI-compatible server for what a run has learnt. A run that is still training is served
 * too, each checkpoint as it is saved. A folder in the format of Hugging Face is served as it is.
 */
import { badUsage } from '../errors.ts'
import { findRun } from '../runs/index.ts'
import type { Engine, PublicServingOptions } from '../serve/index.ts'
import type { Command, Io } from './command.ts'
import { runHelp, runsOption } from './command.ts'

export const serve: Command = {
  arguments: [`${runHelp}; or a folder with a Hugging Face checkpoint (GPT-2, Llama, SmolLM2, Qwen2)`],
  options: [
    ['--host <address>', 'address to listen on; others than loopback need ANNEAL_API_KEY', '127.0.0.1'],
    ['--port <n>', 'port to listen on; auto: 8080, or any free one', 'auto'],
    ['--slots <n>', 'texts written at once; auto: 16', 'auto'],
    ['--cache <tokens>', 'tokens whose keys and values are kept; auto: a context for each slot', 'auto'],
    ['--context <tokens>', "tokens of a text, of a folder; auto: the model's, at most 4,096", 'auto'],
    ['--threads <n>', 'threads; auto: as the run was trained', 'auto'],
    ['--origin <url>', 'another page that may call, for example http://localhost:3000'],
    runsOption,
  ],
  examples: [
    'anneal serve latest',
    'anneal serve ./SmolLM2-135M-Instruct',
    'ANNEAL_API_KEY=secret anneal serve kq3f --host 0.0.0.0 --port 8080',
  ],
  async run(io, [word = ''], options) {
    const runsDir = String(options['runs'])
    const number = (name: string, high: number): number | undefined => {
      const text = String(options[name])
      if (text === 'auto') return undefined
      const value = Number(text)
      if (Number.isSafeInteger(value) && value >= 1 && value <= high) return value
      throw badUsage({
        where: `--${name}`,
        got: `'${text}'`,
        expected: `auto or a whole number from 1 to ${high}`,
        fix: `leave it out`,
      })
    }
    const [slots, cacheTokens, threads, port, context] = [
      number('slots', 256),
      number('cache', 1e9),
      number('threads', 1024),
      number('port', 65_535),
      number('context', 1e7),
    ]
    const { serveHttp, openaiRoutes, enginesOf } = await import('../serve/index.ts')
    const served = await open(io, word, runsDir, {
      ...(slots ? { slots } : {}),
      ...(cacheTokens ? { cacheTokens } : {}),
      ...(threads ? { threads } : {}),
      ...(context ? { context } : {}),
    })
    const { engine } = served
    const name = engine.served.name
    const report = (error: unknown): void =>
      io.note(error instanceof Error ? (error.stack ?? error.message) : String(error))
    const app = openaiRoutes(enginesOf(engine), { report })
    const key = process.env['ANNEAL_API_KEY']
    const origin = options['origin']
    const listen = (at: number): ReturnType<typeof serveHttp> =>
      serveHttp(app, {
        host: String(options['host']),
        port: at,
        apiKey: key,
        ...(typeof origin === 'string' ? { origins: [origin] } : {}),
      })
    // Of a port that was not asked for, any will do.
    const server = await (port ? listen(port) : listen(8080).catch(() => listen(0))).catch(
      async (error: unknown) => {
        await served.close()
        throw error
      },
    )
    const step = served.step?.()
    const curl = [
      `curl ${server.url}/v1/chat/completions -H 'content-type: application/json'`,
      ...(key ? [`-H "authorization: Bearer $ANNEAL_API_KEY"`] : []),
      `-d '{"model": "${name}", "messages": [{"role": "user", "content": "Hello"}]}'`,
    ].join(' ')
    io.result(
      [
        `${server.url}/v1 answers as ${[name, ...(step === undefined ? [] : [`step ${step}`])].join(', ')}, ${engine.slots} at once, context ${engine.context}`,
        '',
        'try',
        `  ${curl}`,
        '',
        'Ctrl-C ends it once the answers under way are written',
      ].join('\n'),
      {
        url: `${server.url}/v1`,
        model: name,
        ...(step === undefined ? {} : { step }),
        slots: engine.slots,
        context: engine.context,
      },
    )
    await new Promise<void>((resolve) => {
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve())
    })
    io.note('closing')
    await server.close()
    await served.close()
    return 0
  },
}

interface Opened {
  readonly engine: Engine
  /** Of a run: the step of the checkpoint that answers. */
  readonly step?: () => number
  close(): Promise<void>
}

/** A folder with a `config.json` is a checkpoint of others; everything else names a run. */
async function open(
  io: Io,
  word: string,
  runsDir: string,
  { context, ...options }: PublicServingOptions,
): Promise<Opened> {
  const { isPublicFolder, servePublic, serveRun } = await import('../serve/index.ts')
  if (isPublicFolder(word)) {
    io.note(`compiling ${word} for serving`)
    const engine = await servePublic(word, { ...options, ...(context ? { context } : {}) })
    return { engine, close: () => engine.close() }
  }
  if (context) {
    throw badUsage({
      where: '--context',
      got: `${context} for a run`,
      expected: 'the context it was trained with',
      fix: 'leave it out',
    })
  }
  const runId = findRun(runsDir, word)
  io.note(`compiling ${runId} for serving`)
  return serveRun(runId, { runsDir, note: (text) => io.note(text), ...options })
}
