/**
 * A public checkpoint as a served model: a Hugging Face folder with `config.json`, safetensors and `tokenizer.json`. What
 * else lies there says how to talk to it: the chat template and special tokens in `tokenizer_config.json` (or
 * `chat_template.jinja`), and the tokens that end a text in `generation_config.json`.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { explainRead } from '../data/files.ts'
import { tokenizerFromJSON, type Tokenizer } from '../data/tokenizers/tokenizer.ts'
import { failure } from '../errors.ts'
import { readPublicConfig, type PublicConfig } from '../models/public/config.ts'
import { publicDecodable, writePublicWeights } from '../models/public/decode.ts'
import { architectureOf } from '../models/public/load.ts'
import { specialsOf, templateFor, type ChatTemplate } from './chat-template.ts'
import { Engine, type EngineOptions } from './engine.ts'
import { jinjaTemplate, type SpecialTokens } from './jinja-template.ts'

export interface PublicServingOptions extends EngineOptions {
  /** Most tokens of a text; default the model's context, but at most 4,096. */
  readonly context?: number
}

const usualContext = 4_096
/** The cache is a context for each slot, but no more bytes than this unless asked for. */
const usualCacheBytes = 2 ** 31

type Json = Readonly<Record<string, unknown>>

/** Whether a path is a folder in the format of Hugging Face; folders of runs have a `config.json`, too. */
export const isPublicFolder = (path: string): boolean =>
  existsSync(join(path, 'config.json')) && !existsSync(join(path, 'run.json'))

/** @throws UserError when the folder is incomplete, damaged or of an architecture we do not have. */
export async function servePublic(
  folder: string,
  { context, ...options }: PublicServingOptions = {},
): Promise<Engine> {
  const config = readPublicConfig(folder)
  const tokenizer = readTokenizer(folder, config)
  const about = readJson(join(folder, 'tokenizer_config.json'))
  const template = templateOf(folder, about, tokenizer)
  const model = publicDecodable(config, context ?? Math.min(config.context, usualContext))
  const engine = await Engine.open(
    {
      name: basename(resolve(folder)),
      model,
      tokenizer,
      template,
      stopIds: stopIdsOf(folder, about, tokenizer, template),
      begin: beginOf(tokenizer),
      created: Math.floor(statSync(join(folder, 'config.json')).mtimeMs / 1000),
    },
    { cacheTokens: usualCache(config, model.context, options.slots ?? 16), ...options },
  )
  try {
    await engine.load('', async (program) => writePublicWeights(folder, program))
  } catch (error) {
    await engine.close()
    throw error
  }
  return engine
}

function usualCache(config: PublicConfig, context: number, slots: number): number {
  const { layers, kvHeads, dim } = architectureOf(config).cached
  const bytesPerToken = 2 * 4 * layers * kvHeads * dim
  return Math.min(slots * context, Math.floor(usualCacheBytes / bytesPerToken))
}

function readTokenizer(folder: string, { vocab }: PublicConfig): Tokenizer {
  const path = join(folder, 'tokenizer.json')
  const tokenizer = tokenizerFromJSON(parse(readText(path), path), path)
  if (tokenizer.vocabSize <= vocab) return tokenizer
  throw failure({
    where: path,
    got: `${tokenizer.vocabSize} tokens`,
    expected: `at most ${vocab}, the vocabulary of config.json`,
    fix: 'take both files from the same checkpoint',
  })
}

function templateOf(folder: string, about: Json | undefined, tokenizer: Tokenizer): ChatTemplate {
  const apart = join(folder, 'chat_template.jinja')
  if (existsSync(apart)) return jinjaTemplate(readText(apart), apart, specialTokens(about))
  const given = about?.['chat_template']
  // Some have several by name; the one to talk with is `default`.
  const source = Array.isArray(given)
    ? (given as readonly Json[]).find(({ name }) => name === 'default')?.['template']
    : given
  return typeof source === 'string'
    ? jinjaTemplate(source, `${join(folder, 'tokenizer_config.json')}: chat_template`, specialTokens(about))
    : templateFor(tokenizer)
}

/** `bos_token` and its like; files have them as text or as objects with `content`. */
function specialTokens(about: Json = {}): SpecialTokens {
  const contentOf = (value: unknown): unknown =>
    typeof value === 'object' && value !== null ? (value as Json)['content'] : value
  return Object.fromEntries(
    Object.entries(about)
      .filter(([key]) => key.endsWith('_token'))
      .map(([key, value]) => [key, contentOf(value)] as const)
      .filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  )
}

/** What any of the files or the template says ends a text. */
function stopIdsOf(
  folder: string,
  about: Json | undefined,
  tokenizer: Tokenizer,
  { stopTokens }: ChatTemplate,
): ReadonlySet<number> {
  const specials = specialsOf(tokenizer)
  const named = [...stopTokens, specialTokens(about)['eos_token']].flatMap(
    (mark) => specials.get(mark ?? '') ?? [],
  )
  const numbered = ['generation_config.json', 'config.json'].flatMap((file) =>
    [readJson(join(folder, file))?.['eos_token_id'] ?? []].flat(),
  )
  return new Set([...named, ...numbered.filter((id): id is number => Number.isInteger(id))])
}

/** Tokens the tokenizer puts in front of a text by itself (Llama 3: `<|begin_of_text|>`); chat templates write them. */
function beginOf(tokenizer: Tokenizer): readonly number[] {
  const { post_processor: processor } = (tokenizer.toJSON() as { huggingFace?: Json }).huggingFace ?? {}
  const specials = specialsOf(tokenizer)
  const steps = (value: unknown): readonly Json[] =>
    typeof value !== 'object' || value === null
      ? []
      : [value as Json, ...[(value as Json)['processors'] ?? []].flat().flatMap(steps)]
  const single = steps(processor).find(({ type }) => type === 'TemplateProcessing')?.['single']
  if (!Array.isArray(single)) return []
  const begin: number[] = []
  for (const piece of single as readonly { readonly SpecialToken?: { readonly id: string } }[]) {
    const id = piece.SpecialToken && specials.get(piece.SpecialToken.id)
    if (id === undefined) break
    begin.push(id)
  }
  return begin
}

/** Undefined when there is no such file. */
const readJson = (path: string): Json | undefined =>
  existsSync(path) ? parse(readText(path), path) : undefined

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw explainRead(error, path)
  }
}

function parse(text: string, path: string): Json {
  try {
    const json: unknown = JSON.parse(text)
    if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as Json
    throw new SyntaxError('no object')
  } catch (error) {
    throw failure({
      where: path,
      got: `text that is not JSON (${(error as Error).message})`,
      expected: 'the file of a Hugging Face checkpoint',
      fix: 'download the file again',
    })
  }
}
