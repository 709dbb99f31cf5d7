/**
 * From a path to two streams of token ids, training and validation, cached on disk under a hash of everything that
 * decides them, so preparing the same text again is only a look-up.
 * The subtle thing is the split: the first 90 % of characters train and the rest validate, as in nanoGPT, and nothing is
 * learned from the validation part (except that chars lists its characters, again as nanoGPT does).
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { UserError, badUsage, failure } from '../errors.ts'
import { explainRead, makeFolder, writeTextAtomically } from './files.ts'
import { loadText } from './text.ts'
import type { LoadedText } from './text.ts'
import { openTokens, tokenizerHash, writeTokens } from './token-file.ts'
import type { TokenFile } from './token-file.ts'
import { trainBpe } from './tokenizers/bpe-train.ts'
import type { BpeTokenizer } from './tokenizers/bpe.ts'
import { bytesTokenizer } from './tokenizers/bytes.ts'
import { charsTokenizer, distinctCharacters } from './tokenizers/chars.ts'
import { tokenizerFromJSON } from './tokenizers/tokenizer.ts'
import type { Tokenizer, TokenizerKind } from './tokenizers/tokenizer.ts'

export { openTokens, tokenizerHash, writeTokens } from './token-file.ts'
export type { TokenFile } from './token-file.ts'

export interface PrepareOptions {
  /** A file or folder, see `loadText`. */
  readonly path: string
  /** A kind to build from the text, or a finished tokenizer, such as that of a checkpoint to be tuned. */
  readonly tokenizer: TokenizerKind | Tokenizer
  /** Size of a vocabulary to learn, 1024 when not given; used by kind `bpe` only. */
  readonly vocab?: number | undefined
  /** Part of the characters kept for validation, 0.1 when not given. */
  readonly validationFraction?: number | undefined
  /** Created when missing. */
  readonly cacheDir: string
  /** Refuse a part with fewer tokens; 2 when not given. Training needs context + 1. */
  readonly minTokens?: number | undefined
}

export interface PreparedTokens {
  readonly tokenizer: Tokenizer
  readonly train: TokenFile
  readonly validation: TokenFile
  /** UTF-8 bytes of all documents. */
  readonly textBytes: number
  /** UTF-8 bytes and characters (code points) the validation tokens spell: the divisors of bits per byte and character. */
  readonly validationBytes: number
  readonly validationChars: number
  readonly skipped: LoadedText['skipped']
  /** Names of the documents, in order. */
  readonly sources: readonly string[]
  /** Folder of the cached files. Its name identifies text, tokenizer and split. */
  readonly folder: string
}

/** Counts that are cached with the tokens. */
interface Counts {
  readonly validationBytes: number
  readonly validationChars: number
}

/**
 * Loads the text, builds or trains the tokenizer, and writes or finds the token files.
 *
 * @throws UserError when the text cannot be loaded, a part is shorter than `minTokens`, or the cache cannot be written.
 */
export async function prepareTokens(options: PrepareOptions): Promise<PreparedTokens> {
  const { path, cacheDir, validationFraction = 0.1, minTokens = 2 } = options
  if (!(validationFraction > 0 && validationFraction < 1)) {
    throw badUsage({
      where: 'validation fraction',
      got: `${validationFraction}`,
      expected: 'a number between 0 and 1',
      fix: 'try 0.1',
    })
  }
  const loaded = await loadText(path)
  const folder = join(cacheDir, cacheKey(loaded, options, validationFraction))
  const prepared = openCache(folder) ?? fillCache(folder, loaded, options, validationFraction)
  const { train, validation } = prepared
  for (const [part, { length }] of [['training', train] as const, ['validation', validation] as const]) {
    if (length >= minTokens) continue
    train.close()
    validation.close()
    throw failure({
      where: path,
      got: `a ${part} part of ${length} tokens`,
      expected: `at least ${minTokens} (one context and the token after it)`,
      fix: 'add text, choose a smaller context, or change the validation fraction',
    })
  }
  const sources = loaded.documents.map(({ name }) => name)
  return { ...prepared, textBytes: loaded.bytes, skipped: loaded.skipped, sources, folder }
}

type Cached = Pick<PreparedTokens, 'tokenizer' | 'train' | 'validation' | keyof Counts>

/** Changes when the meaning of cached files does. */
const CACHE_VERSION = 1

function cacheKey({ documents }: LoadedText, options: PrepareOptions, validationFraction: number): string {
  const { tokenizer } = options
  const kind = typeof tokenizer === 'string' ? tokenizer : tokenizerHash(tokenizer)
  const vocab = kind === 'bpe' ? vocabOf(options) : null
  const hash = createHash('sha256').update(JSON.stringify([CACHE_VERSION, kind, vocab, validationFraction]))
  for (const { text } of documents) hash.update(`\0${Buffer.byteLength(text)}\0`).update(text)
  return hash.digest('hex').slice(0, 16)
}

const vocabOf = ({ vocab = 1024 }: PrepareOptions): number => vocab

const FILES = {
  train: 'train.tokens',
  validation: 'validation.tokens',
  tokenizer: 'tokenizer.json',
  counts: 'counts.json',
}

/** The finished cache at `folder`; undefined when there is none or it is damaged, and it is then made again. */
function openCache(folder: string): Cached | undefined {
  // Written last: its presence says that the others are complete.
  if (!existsSync(join(folder, FILES.counts))) return undefined
  const opened: TokenFile[] = []
  const open = (name: string, hash: string): TokenFile => {
    const file = openTokens(join(folder, name))
    opened.push(file)
    file.verify()
    if (file.tokenizerHash !== hash) throw new StaleCache()
    return file
  }
  try {
    const tokenizer = tokenizerFromJSON(readJson(join(folder, FILES.tokenizer)))
    const counts = readCounts(join(folder, FILES.counts))
    const hash = tokenizerHash(tokenizer)
    return { tokenizer, train: open(FILES.train, hash), validation: open(FILES.validation, hash), ...counts }
  } catch (error) {
    for (const file of opened) file.close()
    if (error instanceof UserError || error instanceof StaleCache) return undefined
    throw error
  }
}

/** Cached files that do not belong together, or do not parse: never seen outside, they are made again. */
class StaleCache extends Error {}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) throw new StaleCache(path)
    throw explainRead(error, path)
  }
}

function readCounts(path: string): Counts {
  const { validationBytes, validationChars } = (readJson(path) ?? {}) as Partial<Counts>
  if (typeof validationBytes !== 'number' || typeof validationChars !== 'number') throw new StaleCache(path)
  return { validationBytes, validationChars }
}

function fillCache(
  folder: string,
  loaded: LoadedText,
  options: PrepareOptions,
  validationFraction: number,
): Cached {
  const parts = joinDocuments(loaded, options.tokenizer)
  const split = splitCharacters(parts, validationFraction)
  const tokenizer = buildTokenizer(parts, split.train, options)
  const hash = tokenizerHash(tokenizer)
  makeFolder(folder)
  const write = (name: string, part: readonly string[]): TokenFile => {
    const path = join(folder, name)
    writeTokens(path, encodeParts(part, tokenizer), { vocabSize: tokenizer.vocabSize, tokenizerHash: hash })
    return openTokens(path)
  }
  const counts: Counts = {
    validationBytes: split.validation.reduce((sum, part) => sum + Buffer.byteLength(part), 0),
    validationChars: split.validationChars,
  }
  writeTextAtomically(join(folder, FILES.tokenizer), JSON.stringify(tokenizer))
  const train = write(FILES.train, split.train)
  const validation = write(FILES.validation, split.validation)
  writeTextAtomically(join(folder, FILES.counts), JSON.stringify(counts))
  return { tokenizer, train, validation, ...counts }
}

/** Documents as parts to encode one by one: with a newline between them, unless the tokenizer has a separator of its own. */
function joinDocuments({ documents }: LoadedText, tokenizer: TokenizerKind | Tokenizer): readonly string[] {
  const separate =
    tokenizer === 'bpe' || (typeof tokenizer === 'object' && endOfText(tokenizer) !== undefined)
  return documents.flatMap(({ text }, i) => (i === 0 || separate ? [text] : ['\n', text]))
}

function endOfText(tokenizer: Tokenizer): number | undefined {
  return tokenizer.kind === 'bpe' ? (tokenizer as BpeTokenizer).endOfText : undefined
}

function* encodeParts(parts: readonly string[], tokenizer: Tokenizer): Generator<Int32Array> {
  const separator = endOfText(tokenizer)
  for (const [i, part] of parts.entries()) {
    if (i > 0 && separator !== undefined) yield Int32Array.of(separator)
    yield tokenizer.encode(part)
  }
}

function buildTokenizer(
  parts: readonly string[],
  train: readonly string[],
  options: PrepareOptions,
): Tokenizer {
  switch (options.tokenizer) {
    case 'bytes':
      return bytesTokenizer()
    case 'chars':
      return charsTokenizer(distinctCharacters(parts))
    case 'bpe':
      return trainBpe(train, { vocabSize: vocabOf(options) })
    default:
      return options.tokenizer
  }
}

interface Split {
  readonly train: readonly string[]
  readonly validation: readonly string[]
  readonly validationChars: number
}

/** The first characters (code points) of the joined parts for training, the last `fraction` of them for validation. */
function splitCharacters(parts: readonly string[], fraction: number): Split {
  const lengths = parts.map(countCharacters)
  const total = lengths.reduce((a, b) => a + b, 0)
  const trainChars = Math.floor(total * (1 - fraction))
  const train: string[] = []
  const validation: string[] = []
  let left = trainChars
  for (const [i, part] of parts.entries()) {
    const here = Math.min(left, lengths[i]!)
    const cut = characterOffset(part, here)
    if (cut > 0) train.push(part.slice(0, cut))
    if (cut < part.length) validation.push(part.slice(cut))
    left -= here
  }
  return { train, validation, validationChars: total - trainChars }
}

function countCharacters(text: string): number {
  let count = text.length
  for (let i = 0; i < text.length; i++) if (isLowSurrogate(text, i)) count--
  return count
}

/** The string index after the first `characters` code points. */
function characterOffset(text: string, characters: number): number {
  let offset = 0
  for (let i = 0; i < characters; i++) offset += isLowSurrogate(text, offset + 1) ? 2 : 1
  return offset
}

/** Texts are well formed here, so every low surrogate ends a pair. */
function isLowSurrogate(text: string, i: number): boolean {
  return (text.charCodeAt(i) & 0xfc00) === 0xdc00
}
