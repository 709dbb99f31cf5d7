/**
 * Calls of tools inside of an answer, read while they are written: the name as soon as it is known, then the arguments
 * piece by piece, as OpenAI streams them. Until its name is known a call may turn out to be plain text, and then it is
 * given as text; afterwards it is a call, whatever follows.
 */
import type { CallFormat } from './chat-template.ts'
import type { Token } from './generation.ts'

/** A piece of a call. The first of a call has its name, and no arguments yet. */
export interface CallPiece {
  /** Which call of the answer. */
  readonly index: number
  readonly name?: string
  /** More of the arguments, which together are JSON. */
  readonly arguments: string
}

/** A piece of an answer. */
export interface Piece {
  readonly text: string
  readonly tokens: readonly Token[]
  readonly call?: CallPiece
}

interface Told {
  readonly name?: string
  readonly arguments: string
}

type Place = 'start' | 'key' | 'colon' | 'value' | 'next' | 'done' | 'broken'

/** One call, `{"name": …, "arguments": …}`, character by character. */
export class CallReader {
  #place: Place = 'start'
  readonly #isTool: (name: string) => boolean
  #key = ''
  /** What of the key or value at hand is kept. */
  #kept = ''
  /** Brackets open in the value, whether it is in a string, and whether the last character there was a backslash. */
  #depth = 0
  #inString = false
  #escaped = false
  #name: string | undefined
  /** Arguments that came before the name; then whether any came. */
  #early = ''
  #hasArguments = false
  #told: Told[] = []
  /** Everything read, for what turns out to be text. */
  raw = ''

  constructor(isTool: (name: string) => boolean = () => true) {
    this.#isTool = isTool
  }

  /** It is a call for certain. */
  get certain(): boolean {
    return this.#name !== undefined
  }

  get done(): boolean {
    return this.#place === 'done'
  }

  get broken(): boolean {
    return this.#place === 'broken'
  }

  /** Takes more text: how much of it belongs to the call, and what became known. */
  push(text: string): { readonly taken: number; readonly told: readonly Told[] } {
    let taken = 0
    while (taken < text.length && !this.done && !this.broken) this.#step(text[taken++]!)
    this.raw += text.slice(0, taken)
    return { taken, told: this.#tell() }
  }

  /** Nothing follows. A call without arguments has none: `{}`. */
  end(): readonly Told[] {
    if (this.certain && !this.#hasArguments) this.#say('{}')
    return this.#tell()
  }

  /** Pieces of arguments that follow each other are one. */
  #tell(): readonly Told[] {
    const told = this.#told
    this.#told = []
    const names = told.filter(({ name }) => name !== undefined)
    const given = told.map((one) => one.arguments).join('')
    return given === '' ? names : [...names, { arguments: given }]
  }

  #say(given: string): void {
    this.#hasArguments = true
    if (this.certain) this.#told.push({ arguments: given })
    else this.#early += given
  }

  #step(c: string): void {
    const space = ' \t\n\r'.includes(c)
    switch (this.#place) {
      case 'start':
        if (!space) this.#place = c === '{' ? 'next' : 'broken'
        return
      case 'next':
        if (c === '"') this.#begin('key', c)
        else if (c === '}') this.#place = 'done'
        else if (!space && c !== ',') this.#place = 'broken'
        return
      case 'key':
        if (this.#valueEndsWith(c)) this.#endKey()
        return
      case 'colon':
        if (c === ':') this.#begin('value', '')
        else if (!space) this.#place = 'broken'
        return
      case 'value':
        this.#value(c, space)
        return
      case 'done':
      case 'broken':
    }
  }

  #begin(place: 'key' | 'value', first: string): void {
    this.#place = place
    this.#kept = first
    this.#depth = 0
    this.#inString = first === '"'
    this.#escaped = false
  }

  /** Adds a character to what is kept; true when it ends a string, an object or a list. */
  #valueEndsWith(c: string): boolean {
    this.#kept += c
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false
      else if (c === '\\') this.#escaped = true
      else if (c === '"') this.#inString = false
      return !this.#inString && this.#depth === 0
    }
    if (c === '"') this.#inString = true
    else if (c === '{' || c === '[') this.#depth++
    else if (c === '}' || c === ']') return --this.#depth === 0
    return false
  }

  #endKey(): void {
    const key = parsed(this.#kept)
    if (typeof key !== 'string') this.#place = 'broken'
    else {
      this.#key = key
      this.#place = 'colon'
    }
  }

  #value(c: string, space: boolean): void {
    if (this.#kept === '' && space) return
    const isWord = this.#depth === 0 && !this.#inString
    if (isWord && this.#kept !== '' && (space || c === ',' || c === '}')) {
      this.#endValue()
      if (!this.broken) this.#place = c === '}' ? 'done' : 'next'
      return
    }
    const ends = this.#valueEndsWith(c)
    // Arguments that are a JSON value are given as they come; a string is read whole, since it holds JSON itself.
    if (this.#isArguments && !this.#kept.startsWith('"')) this.#say(c)
    if (ends) {
      this.#endValue()
      if (!this.broken) this.#place = 'next'
    }
  }

  get #isArguments(): boolean {
    return this.#key === 'arguments' || this.#key === 'parameters'
  }

  #endValue(): void {
    if (this.#isArguments && this.#kept.startsWith('"')) {
      const inner = parsed(this.#kept)
      if (typeof inner === 'string') this.#say(inner)
      else this.#place = 'broken'
    }
    if (this.#key !== 'name' || this.certain) return
    const name = parsed(this.#kept)
    if (typeof name !== 'string' || !this.#isTool(name)) {
      this.#place = 'broken'
      return
    }
    this.#name = name
    this.#told.push({ name, arguments: '' })
    if (this.#early !== '') this.#told.push({ arguments: this.#early })
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** An answer that is a call from its first character to its last. */
export async function* oneCall(pieces: AsyncIterable<Piece>): AsyncGenerator<Piece, void> {
  const reader = new CallReader()
  for await (const { text, tokens } of pieces) yield* calling(0, reader.push(text).told, tokens)
  yield* calling(0, reader.end(), [])
}

/** Pieces of a call; the tokens go with the first, or with nothing if there is none. */
function* calling(index: number, told: readonly Told[], tokens: readonly Token[]): Generator<Piece, void> {
  if (told.length === 0 && tokens.length > 0) yield { text: '', tokens }
  for (const [i, call] of told.entries())
    yield { text: '', tokens: i === 0 ? tokens : [], call: { index, ...call } }
}

/** An answer in which calls may stand: between marks, or, where the format has none, instead of text. */
export const withCalls = (
  pieces: AsyncIterable<Piece>,
  format: CallFormat,
  isTool: (name: string) => boolean,
): AsyncGenerator<Piece, void> =>
  format.before === '' ? bareCall(pieces, isTool) : markedCalls(pieces, format)

/** JSON that names a tool is a call; everything else is text. */
async function* bareCall(
  pieces: AsyncIterable<Piece>,
  isTool: (name: string) => boolean,
): AsyncGenerator<Piece, void> {
  const reader = new CallReader(isTool)
  for await (const { text, tokens } of pieces) {
    const wasBroken = reader.broken
    const { taken, told } = reader.push(text)
    if (reader.broken && !reader.certain) {
      // What was held back comes with what made it text.
      yield { text: (wasBroken ? '' : reader.raw) + text.slice(taken), tokens }
    } else yield* calling(0, told, tokens)
  }
  if (reader.certain) yield* calling(0, reader.end(), [])
  else if (!reader.broken && reader.raw !== '') yield { text: reader.raw, tokens: [] }
}

async function* markedCalls(
  pieces: AsyncIterable<Piece>,
  { before, after }: CallFormat,
): AsyncGenerator<Piece, void> {
  let held = ''
  let reader: CallReader | undefined
  let index = 0
  /** Space between calls is no text. */
  let behindCall = false

  const inside = function* (call: CallReader, tokens: readonly Token[]): Generator<Piece, void> {
    const to = held.indexOf(after)
    const sure = to < 0 ? held.length - mayBegin(held, after) : to
    const { taken, told } = call.push(held.slice(0, sure))
    // What stands behind a call, or is none, goes along with it.
    call.raw += held.slice(taken, sure)
    yield* calling(index, told, tokens)
    held = held.slice(sure)
    if (to >= 0) yield* leave(call, after)
  }
  const leave = function* (call: CallReader, mark: string): Generator<Piece, void> {
    reader = undefined
    held = held.slice(mark.length)
    if (call.certain) yield* calling(index++, call.end(), [])
    else yield { text: before + call.raw + mark, tokens: [] }
    behindCall = call.certain
  }
  const outside = function* (tokens: readonly Token[]): Generator<Piece, void> {
    if (behindCall) held = held.trimStart()
    const from = held.indexOf(before)
    const sure = from < 0 ? held.length - mayBegin(held, before) : from
    // Space in front of a call is no text either.
    const text = held.slice(0, sure).trimEnd()
    if (text !== '') behindCall = false
    if (text !== '' || tokens.length > 0) yield { text, tokens }
    held = held.slice(from < 0 ? text.length : from + before.length)
    if (from >= 0) reader = new CallReader()
  }

  for await (const { text, tokens } of pieces) {
    held += text
    yield* reader ? inside(reader, tokens) : outside(tokens)
    // One piece may hold the end of a call and the beginning of the next.
    for (let left = -1; left !== held.length;) {
      left = held.length
      if (left > 0) yield* reader ? inside(reader, []) : outside([])
    }
  }
  if (reader) {
    const { taken, told } = reader.push(held)
    reader.raw += held.slice(taken)
    held = ''
    yield* calling(index, told, [])
    yield* leave(reader, '')
  }
  if (held !== '') yield { text: held, tokens: [] }
}

function mayBegin(text: string, word: string): number {
  for (let length = Math.min(word.length - 1, text.length); length > 0; length--)
    if (text.endsWith(word.slice(0, length))) return length
  return 0
}
