/**
 * Hugging Face `tokenizer.json` for byte-level BPE: read into a tokenizer, and written for a vocabulary of ours. What a
 * file asks for beyond that (dropout, prefix spaces, other models) is refused by name rather than half obeyed. Encoding
 * adds no begin or end token: a post-processor is kept in the file and left to the caller.
 */
import { failure } from '../../errors.ts'
import type { UserError } from '../../errors.ts'
import { PAIR_BASE, createBpe } from './bpe.ts'
import type { BpeDefinition, BpeTokenizer } from './bpe.ts'
import { GPT2_SPLIT, compileSplit } from './byte-level.ts'

/** A JSON object; the fields read here are checked on reading. */
export type HuggingFaceTokenizer = Readonly<Record<string, unknown>>

type Json = Readonly<Record<string, unknown>>

/** Names a field within a file, for errors. */
interface Place {
  readonly file: string
  readonly field: string
}

/**
 * A tokenizer from a parsed Hugging Face `tokenizer.json`.
 *
 * @param file named in errors.
 * @throws UserError naming the field that is wrong or not supported.
 */
export function bpeFromHuggingFace(json: unknown, file = 'tokenizer.json'): BpeTokenizer {
  const at = (field: string): Place => ({ file, field })
  const source = record(json, at('top level'))
  const model = record(source['model'], at('model'))
  expectValue(model['type'] ?? 'BPE', ['BPE'], at('model.type'))
  expectValue(model['dropout'] ?? 0, [0], at('model.dropout'))
  expectValue(model['continuing_subword_prefix'] ?? '', [''], at('model.continuing_subword_prefix'))
  expectValue(model['end_of_word_suffix'] ?? '', [''], at('model.end_of_word_suffix'))
  expectValue(model['byte_fallback'] ?? false, [false], at('model.byte_fallback'))

  const idOf = vocabulary(model['vocab'], at('model.vocab'))
  const { specials, silent } = addedTokens(source['added_tokens'] ?? [], at('added_tokens'))
  const tokens: (string | undefined)[] = []
  for (const [token, id] of [...idOf, ...specials]) {
    if (tokens[id] !== undefined && tokens[id] !== token) {
      throw wrong(
        at('model.vocab'),
        `id ${id} for both ${quote(tokens[id])} and ${quote(token)}`,
        'one token an id',
      )
    }
    tokens[id] = token
  }
  if (tokens.length === 0) throw wrong(at('model.vocab'), 'no tokens', 'at least one')
  const unknown = model['unk_token']
  return createBpe({
    // Array.from turns holes into undefined.
    tokens: Array.from(tokens),
    merges: mergeTable(model['merges'], idOf, at('model.merges')),
    specials,
    silent,
    patterns: splits(source['pre_tokenizer'], at('pre_tokenizer')).map((split) =>
      compileSplit(split, `${file}: pre_tokenizer`),
    ),
    normalize: normalizer(source['normalizer'], at('normalizer')),
    wholePieces: model['ignore_merges'] === true,
    unknown: typeof unknown === 'string' ? idOf.get(unknown) : undefined,
    source,
  })
}

/**
 * The `tokenizer.json` of a vocabulary learned here, field for field as the Hugging Face library writes it.
 *
 * @param tokens id -> vocabulary entry in byte characters, specials included.
 */
export function byteLevelJson({
  tokens,
  merges,
  specials,
}: {
  readonly tokens: readonly string[]
  readonly merges: readonly (readonly [string, string])[]
  readonly specials: readonly string[]
}): HuggingFaceTokenizer {
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  }
}

function vocabulary(value: unknown, place: Place): ReadonlyMap<string, number> {
  const entries = Object.entries(record(value, place))
  for (const [token, id] of entries) checkId(id, token, place)
  return new Map(entries as [string, number][])
}

function addedTokens(value: unknown, place: Place): Pick<BpeDefinition, 'specials' | 'silent'> {
  const specials = new Map<string, number>()
  const silent = new Set<number>()
  for (const item of list(value, place)) {
    const { content, id, lstrip, rstrip, single_word, special } = record(item, place)
    if (typeof content !== 'string' || content === '')
      throw wrong(place, `content ${quote(content)}`, 'some text')
    checkId(id, content, place)
    if (lstrip === true || rstrip === true || single_word === true) {
      throw wrong(
        place,
        `${quote(content)} with lstrip, rstrip or single_word`,
        'tokens matched exactly as written',
      )
    }
    specials.set(content, id)
    if (special !== false) silent.add(id)
  }
  return { specials, silent }
}

function checkId(id: unknown, token: string, place: Place): asserts id is number {
  if (Number.isInteger(id) && (id as number) >= 0 && (id as number) < PAIR_BASE) return
  throw wrong(place, `id ${quote(id)} for ${quote(token)}`, `an integer from 0 to ${PAIR_BASE - 1}`)
}

/** Merges come as ["a", "b"] or, in older files, as "a b". */
function mergeTable(
  value: unknown,
  idOf: ReadonlyMap<string, number>,
  place: Place,
): BpeDefinition['merges'] {
  return list(value, place).map((item, rank) => {
    const parts: readonly unknown[] =
      typeof item === 'string' ? item.split(' ') : Array.isArray(item) ? item : []
    const [left, right] = parts
    if (parts.length !== 2 || typeof left !== 'string' || typeof right !== 'string') {
      throw wrong(place, `${quote(item)} at place ${rank}`, 'a pair of tokens')
    }
    const id = (token: string): number => {
      const found = idOf.get(token)
      if (found === undefined)
        throw wrong(place, `${quote(token)}, not in the vocabulary, at place ${rank}`, 'a known token')
      return found
    }
    return { left: id(left), right: id(right), merged: id(left + right) }
  })
}

/** The split expressions a pre-tokenizer applies, one after the other. */
function splits(value: unknown, place: Place): readonly string[] {
  const step = record(value, place)
  switch (step['type']) {
    case 'Sequence':
      return list(step['pretokenizers'], place).flatMap((item) => splits(item, place))
    case 'ByteLevel':
      expectValue(step['add_prefix_space'] ?? false, [false], {
        ...place,
        field: `${place.field}.add_prefix_space`,
      })
      return step['use_regex'] === false ? [] : [GPT2_SPLIT]
    case 'Digits':
      return [step['individual_digits'] === true ? String.raw`\p{N}` : String.raw`\p{N}+`]
    case 'Split': {
      const pattern = record(step['pattern'], place)
      expectValue(step['behavior'], ['Isolated'], { ...place, field: `${place.field}.behavior` })
      if (typeof pattern['Regex'] === 'string') return [pattern['Regex']]
      throw wrong(place, `a pattern ${quote(pattern)}`, 'a Regex pattern')
    }
    default:
      throw wrong(place, `type ${quote(step['type'])}`, 'ByteLevel, Digits, Split or a Sequence of them')
  }
}

function normalizer(value: unknown, place: Place): (text: string) => string {
  if (value === null || value === undefined) return (text) => text
  expectValue(record(value, place)['type'], ['NFC'], { ...place, field: `${place.field}.type` })
  return (text) => text.normalize('NFC')
}

function record(value: unknown, place: Place): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json
  throw wrong(place, quote(value), 'an object')
}

function list(value: unknown, place: Place): readonly unknown[] {
  if (Array.isArray(value)) return value as unknown[]
  throw wrong(place, quote(value), 'a list')
}

function expectValue(value: unknown, allowed: readonly unknown[], place: Place): void {
  if (!allowed.includes(value)) throw wrong(place, quote(value), allowed.map(quote).join(' or '))
}

/** JSON of a value, cut to a length that fits an error line. */
function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
}

function wrong({ file, field }: Place, got: string, expected: string): UserError {
  return failure({
    where: `${file}: ${field}`,
    got,
    expected,
    fix: 'use a byte-level BPE tokenizer.json (GPT-2, Llama 3, Qwen2, SmolLM2) as published',
  })
}
