/**
 * The library surface for training: `text`, `gpt`, `train` and `openRun`, a thin layer over the language recipe. The
 * command line and the library share everything below this file, so a run made by one is resumed, shown and sampled by
 * the other. Mistakes in settings are reported where they are made: in `gpt(...)` and `text(...)`, before training.
 */
import { loadText, type LoadedText } from '../data/text.ts'
import { resolveConfig, type LanguageConfig, type LanguageOverrides } from '../models/language/config.ts'
import { findRun, readRun, type Run } from '../runs/index.ts'
import type { TrainObserver, TrainResult } from './events.ts'
import { resumeLanguage, sampleRun, trainLanguage } from './language.ts'

export type ModelSettings = NonNullable<LanguageOverrides['model']>

/** A model to train: settings only, no memory. */
export interface Model {
  readonly kind: 'language'
  readonly settings: ModelSettings
}

/** Text to train on: a path and how to cut it into tokens. */
export interface Data {
  readonly path: string
  readonly tokenizer: LanguageConfig['tokenizer']
  /** Size of the vocabulary that a `bpe` tokenizer learns. */
  readonly vocab?: number
  readonly documents: number
  /** UTF-8 bytes of all documents. */
  readonly bytes: number
  /** Files that hold no text, and why. */
  readonly skipped: LoadedText['skipped']
}

/** Every setting of the recipe except what `gpt` and `text` say. */
export type TrainSettings = Omit<LanguageOverrides, 'data' | 'tokenizer' | 'vocab' | 'model'>

export interface RunOptions {
  /** Folder of runs; default `runs`. */
  readonly runsDir?: string
  /** Told about the plan, every step, evaluations, samples and checkpoints. */
  readonly observer?: TrainObserver
  /** Aborting finishes the step under way, saves a checkpoint and returns. */
  readonly signal?: AbortSignal
}

export interface WriteOptions {
  /** Default 200. */
  readonly tokens?: number
  /** Default 0.8; 0 takes the likeliest token every time. */
  readonly temperature?: number
  /** Choose among this many likeliest tokens; default 0: all. */
  readonly topK?: number
  /** The same seed writes the same text. Default 1. */
  readonly seed?: number
  /** Called with each piece of text as it is written. */
  readonly onToken?: (text: string) => void
}

/** A run on disk. */
export interface TrainedRun {
  readonly id: string
  readonly dir: string
  /** The last completed step. */
  readonly step: number
  readonly status: Run['status']
  /** Mean nats per token on the text held out; null when nothing was evaluated. */
  readonly validationLoss: number | null
  /** Everything the run logged, read from disk. */
  read(): Run
  /** Continues a prompt with the newest checkpoint; returns what was written after the prompt. */
  sample(prompt: string, options?: WriteOptions): Promise<string>
  /** Goes on from the newest checkpoint, for example with more steps. */
  resume(settings?: TrainSettings, options?: Omit<RunOptions, 'runsDir'>): Promise<TrainedRun>
}

/**
 * A decoder-only transformer. Everything is optional: `size` is the one dial, and what is not given follows from it.
 *
 * @throws UserError (exit code 2) for settings that do not fit together.
 * @example
 * gpt({ size: 'micro' })
 * gpt({ layers: 6, heads: 6, width: 384, context: 256, block: 'gpt2' })
 */
export function gpt(settings: ModelSettings = {}): Model {
  resolveConfig({ model: settings })
  return { kind: 'language', settings }
}

/**
 * Text from a file, a JSONL file (field `text` or `content`) or a folder of both.
 *
 * @throws UserError when nothing is there, or it holds no UTF-8 text.
 * @example
 * const notes = await text('./my-notes', { tokenizer: 'bpe', vocab: 4096 })
 * console.log(notes.documents, notes.skipped)
 */
export async function text(
  path: string,
  { tokenizer = 'bytes', vocab }: { readonly tokenizer?: Data['tokenizer']; readonly vocab?: number } = {},
): Promise<Data> {
  const choice = { tokenizer, ...(vocab === undefined ? {} : { vocab }) }
  const { data } = resolveConfig({ data: path, ...choice })
  const { documents, bytes, skipped } = await loadText(data)
  return { path: data, ...choice, documents: documents.length, bytes, skipped }
}

/**
 * Trains a new run and returns it. Without `data` it trains on the bundled Shakespeare, one token a character.
 *
 * @throws UserError for settings that cannot be meant, unreadable data, a missing C compiler, a full disk, or a loss that
 *   is no longer finite.
 * @example
 * const data = await text('./my-notes', { tokenizer: 'bytes' })
 * const run = await train(gpt({ size: 'micro' }), { data, steps: 500, optim: { name: 'adamw' } })
 * console.log(await run.sample('Once upon'))
 */
export async function train(
  model: Model,
  {
    data,
    runsDir = 'runs',
    observer,
    signal,
    ...settings
  }: TrainSettings & RunOptions & { readonly data?: Data } = {},
): Promise<TrainedRun> {
  const chosen = data && {
    data: data.path,
    tokenizer: data.tokenizer,
    ...(data.vocab === undefined ? {} : { vocab: data.vocab }),
  }
  const config = resolveConfig({ ...settings, ...chosen, model: model.settings })
  return trainedRun(await trainLanguage(config, jobOptions(runsDir, { observer, signal })), runsDir)
}

/**
 * A run that was trained earlier, by this library or by the command line.
 *
 * @param word an id, the beginning of one, its last four letters, or `latest`.
 * @throws UserError when it names no run or several.
 * @example
 * const run = openRun('latest')
 * console.log(run.read().points.at(-1), await run.sample('The '))
 */
export function openRun(word: string, { runsDir = 'runs' }: Pick<RunOptions, 'runsDir'> = {}): TrainedRun {
  const run = readRun(runsDir, findRun(runsDir, word))
  const evaluated = run.points.findLast(({ metrics }) => 'validationLoss' in metrics)
  return handle(runsDir, {
    id: run.meta.id,
    dir: run.dir,
    step: run.points.at(-1)?.step ?? 0,
    status: run.status,
    validationLoss: evaluated?.metrics['validationLoss'] ?? null,
  })
}

type Facts = Pick<TrainedRun, 'id' | 'dir' | 'step' | 'status' | 'validationLoss'>

const trainedRun = (
  { runId, runDir, step, status, validationLoss }: TrainResult,
  runsDir: string,
): TrainedRun => handle(runsDir, { id: runId, dir: runDir, step, status, validationLoss })

function handle(runsDir: string, facts: Facts): TrainedRun {
  return {
    ...facts,
    read: () => readRun(runsDir, facts.id),
    async sample(prompt, options = {}) {
      const defaults = { tokens: 200, temperature: 0.8, topK: 0, seed: 1 }
      return (await sampleRun(facts.id, { ...defaults, ...options, prompt, runsDir })).text
    },
    async resume(overrides = {}, options = {}) {
      return trainedRun(
        await resumeLanguage(facts.id, { ...jobOptions(runsDir, options), overrides }),
        runsDir,
      )
    },
  }
}

interface Watchers {
  readonly observer?: TrainObserver | undefined
  readonly signal?: AbortSignal | undefined
}

/** Leaves out what was not given, as exact optional properties ask for. */
const jobOptions = (runsDir: string, { observer, signal }: Watchers) => ({
  runsDir,
  ...(observer ? { observer } : {}),
  ...(signal ? { signal } : {}),
})
