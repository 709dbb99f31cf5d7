/**
 * Text to token ids and back. Three kinds share one interface: bytes (256 ids, nothing to learn), chars (nanoGPT's
 * alphabet) and bpe (byte-level byte-pair encoding, Hugging Face compatible).
 * The subtle thing: one token need not be one whole character, so `bytesOf` is the ground truth and text is what the
 * joined bytes spell; printing ids as they arrive goes through `streamDecoder`.
 */
import { failure } from '../../errors.ts'
import { bpeFromHuggingFace } from './huggingface.ts'
import type { HuggingFaceTokenizer } from './huggingface.ts'
import { bytesTokenizer } from './bytes.ts'
import { charsTokenizer } from './chars.ts'

export type TokenizerKind = 'bytes' | 'chars' | 'bpe'

export interface Tokenizer {
  readonly kind: TokenizerKind
  /** Ids are 0 to vocabSize - 1. */
  readonly vocabSize: number
  /** @throws UserError when the text holds something the vocabulary does not (chars only). */
  encode(text: string): Int32Array<ArrayBuffer>
  /** Bytes that spell no character come back as U+FFFD. Throws a UserError for an id outside the vocabulary. */
  decode(ids: ArrayLike<number>): string
  /** The UTF-8 bytes one token stands for, possibly a part of a character. */
  bytesOf(id: number): Uint8Array
  toJSON(): TokenizerJson
}

/** What a run stores as tokenizer.json; `tokenizerFromJSON` reads it back. */
export type TokenizerJson =
  | { readonly kind: 'bytes' }
  /** `characters[id]` is the character of an id. */
  | { readonly kind: 'chars'; readonly characters: readonly string[] }
  /** `huggingFace` is a complete Hugging Face tokenizer.json. */
  | { readonly kind: 'bpe'; readonly huggingFace: HuggingFaceTokenizer }

/**
 * Rebuilds a tokenizer from what `toJSON` gave, or from a plain Hugging Face tokenizer.json.
 *
 * @param where named in errors, usually the file the JSON came from.
 * @throws UserError naming the field that is wrong.
 */
export function tokenizerFromJSON(json: unknown, where = 'tokenizer.json'): Tokenizer {
  if (isRecord(json)) {
    if (json['kind'] === 'bytes') return bytesTokenizer()
    if (json['kind'] === 'chars') return charsTokenizer(characterList(json['characters'], where))
    if (json['kind'] === 'bpe') return bpeFromHuggingFace(json['huggingFace'], where)
    if ('model' in json) return bpeFromHuggingFace(json, where)
  }
  throw failure({
    where,
    got: isRecord(json) ? `kind ${JSON.stringify(json['kind'])}` : describe(json),
    expected: 'a tokenizer of kind bytes, chars or bpe, or a Hugging Face tokenizer.json',
    fix: 'restore the file that was written beside the checkpoint or the token files',
  })
}

function characterList(value: unknown, where: string): readonly string[] {
  const problem = characterListProblem(value)
  if (problem === undefined) return value as readonly string[]
  throw failure({
    where: `${where}: characters`,
    got: problem,
    expected: 'a list of distinct single characters',
    fix: 'restore the file that was written beside the checkpoint or the token files',
  })
}

function characterListProblem(value: unknown): string | undefined {
  if (!Array.isArray(value)) return describe(value)
  if (value.length === 0) return 'an empty list'
  const wrong = value.findIndex((item) => typeof item !== 'string' || Array.from(item).length !== 1)
  if (wrong >= 0) return `${JSON.stringify(value[wrong])} at place ${wrong}`
  const repeated = value.findIndex((item, i) => value.indexOf(item) !== i)
  return repeated >= 0 ? `${JSON.stringify(value[repeated])} twice` : undefined
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const describe = (value: unknown): string =>
  value === null
    ? 'null'
    : Array.isArray(value)
      ? 'a list'
      : typeof value === 'object'
        ? 'an object'
        : `${typeof value}`
