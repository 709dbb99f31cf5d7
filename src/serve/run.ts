/**
 * A run of our own as a served model, also while it trains: the newest intact checkpoint answers, and each one saved
 * later takes its place between two answers.
 */
import { join } from 'node:path'
import { failure } from '../errors.ts'
import { openCheckpoint } from '../data/checkpoints.ts'
import { tokenizerFromJSON, type Tokenizer } from '../data/tokenizers/tokenizer.ts'
import { parseStoredConfig } from '../models/language/config.ts'
import { decodable } from '../models/language/decode.ts'
import { readRun } from '../runs/index.ts'
import { loadCheckpoint, useNewest, type CheckpointFile } from '../train/checkpoint.ts'
import { specialsOf, templateFor } from './chat-template.ts'
import { Engine, type EngineOptions, type Served } from './engine.ts'

export interface ServedRun {
  readonly engine: Engine
  /** Step of the checkpoint that answers. */
  readonly step: () => number
  close(): Promise<void>
}

export interface RunServingOptions extends EngineOptions {
  readonly runsDir: string
  readonly note: (text: string) => void
  /** How often to look for a newer checkpoint. */
  readonly everyMs?: number
}

/** @throws UserError when the run has no checkpoint. */
export async function serveRun(
  runId: string,
  { runsDir, note, everyMs = 1_000, ...options }: RunServingOptions,
): Promise<ServedRun> {
  const { dir, config: stored, meta } = readRun(runsDir, runId)
  const config = parseStoredConfig(stored, dir)
  const newest = (quiet = false): ReturnType<typeof useNewest<Tokenizer>> =>
    useNewest(dir, readTokenizer, quiet ? () => undefined : note)
  const found = await newest()
  if (!found) {
    throw failure({
      where: dir,
      got: 'no checkpoint',
      expected: 'at least one',
      fix: `let it train first: anneal resume ${runId}`,
    })
  }
  const tokenizer = found.value
  const template = templateFor(tokenizer)
  const specials = specialsOf(tokenizer)
  const served: Served = {
    name: meta.id,
    model: decodable({ ...config.model, dropout: 0, vocab: tokenizer.vocabSize }),
    tokenizer,
    template,
    stopIds: new Set(template.stopTokens.flatMap((mark) => specials.get(mark) ?? [])),
    created: Math.floor(Date.now() / 1000),
  }
  const engine = await Engine.open(served, { threads: config.threads, ...options })
  let current = 0
  const load = async ({ step, file }: CheckpointFile): Promise<void> => {
    await engine.load(`step-${step}`, async (program) => {
      const isParameter = (name: string): boolean => name.startsWith('params.')
      const into = (name: string): string | undefined => (isParameter(name) ? name : undefined)
      await loadCheckpoint(join(dir, file), program, into, isParameter)
    })
    current = step
  }
  await load(found.checkpoint)
  const look = async (): Promise<void> => {
    // Names are looked at first: reading all of a checkpoint to find that it is the same would cost.
    const latest = readRun(runsDir, runId).checkpoints.findLast(({ present }) => present)
    if (!latest || latest.step <= current) return
    const next = await newest(true)
    if (closed || !next || next.checkpoint.step <= current) return
    await load(next.checkpoint)
    note(`now answering with step ${current}`)
  }
  let closed = false
  let looking: Promise<void> | undefined
  const timer = setInterval(() => {
    looking ??= look()
      .catch((error: unknown) => {
        if (closed) return
        const why = error instanceof Error ? error.message : String(error)
        note(`a newer checkpoint could not be loaded: ${why}`)
      })
      .finally(() => (looking = undefined))
  }, everyMs)
  return {
    engine,
    step: () => current,
    async close() {
      closed = true
      clearInterval(timer)
      // An exchange that waits for its turn ends with the engine, and the look with it.
      await engine.close()
      await looking
    },
  }
}

/** The tokenizer a checkpoint was trained with. Checks all of it. */
async function readTokenizer(path: string): Promise<Tokenizer> {
  const checkpoint = openCheckpoint(path)
  try {
    checkpoint.verify()
    return tokenizerFromJSON(JSON.parse(checkpoint.metadata['tokenizer'] ?? 'null'), path)
  } finally {
    checkpoint.close()
  }
}
