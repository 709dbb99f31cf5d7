/**
 * JSON schemas as grammars. What is written is valid by the schema but not all that would be: objects have their
 * properties in the order of the schema and no others, there is at most one space after a colon or comma, and numbers are
 * of a length that a double holds. A keyword that we do not hold an answer to is refused by name, never ignored.
 */
import { invalid } from '../error.ts'
import type { Grammar, Item } from './grammar.ts'

type Json = Readonly<Record<string, unknown>>

/** How literal values are spelled: as they are, or with escapes for tokenizers that lack most characters. */
export const jsonText = {
  plain: (value: unknown): string => JSON.stringify(value),
  ascii: (value: unknown): string =>
    JSON.stringify(value).replaceAll(
      /[^ -~]/g,
      (unit) => String.raw`\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
    ),
} as const

/** Say nothing about which values are valid. */
const remarks = new Set(
  '$schema $id $comment $anchor $defs definitions title description default examples deprecated readOnly writeOnly strict'.split(
    ' ',
  ),
)

const keywords: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  number: [],
  boolean: [],
  null: [],
}

/** The grammar of the JSON values of a schema; undefined: any object. */
export function schemaItem(
  grammar: Grammar,
  schema: unknown,
  param: string,
  spell: (value: unknown) => string,
): Item {
  const json = new JsonItems(grammar)
  if (schema === undefined) return json.anyObject
  const rules = new Map<string, Item>()
  const root = record(schema, param)

  function itemOf(value: unknown, at: string): Item {
    if (value === true) return json.any
    const node = record(value, at)
    if ('$ref' in node) return reference(node, at)
    if ('enum' in node || 'const' in node) return literals(node, at)
    for (const key of ['anyOf', 'oneOf', 'allOf']) if (key in node) return combined(node, key, at)
    const types = node['type'] === undefined ? impliedTypes(node) : [node['type']].flat()
    if (types.length === 0) throw invalid(`${at}.type`, 'no type at all', 'unsupported_schema')
    const known = types.flatMap((type) => keywords[String(type)] ?? [])
    demandOnly(node, ['type', ...known], at)
    return grammar.choice(...types.map((type) => typed(String(type), node, at)))
  }

  function typed(type: string, node: Json, at: string): Item {
    switch (type) {
      case 'object':
        return object(node, at)
      case 'array':
        return array(node, at)
      case 'string': {
        const [least, most] = bounds(node, 'minLength', 'maxLength', at)
        return json.string(least, most)
      }
      case 'integer':
        return json.integer(...integerRange(node, at))
      case 'number':
        return json.number
      case 'boolean':
        return grammar.choice(grammar.text('true'), grammar.text('false'))
      case 'null':
        return grammar.text('null')
      default:
        throw invalid(`${at}.type`, `'${type}' is not a type of JSON`, 'unsupported_schema')
    }
  }

  function object(node: Json, at: string): Item {
    const properties = record(node['properties'] ?? {}, `${at}.properties`)
    const required = list(node['required'] ?? [], `${at}.required`).map(String)
    const extra = node['additionalProperties']
    const names = [...new Set([...Object.keys(properties), ...required])]
    if (names.length === 0 && extra !== false)
      return json.record(extra === undefined ? json.any : itemOf(extra, `${at}.additionalProperties`))
    const one = (name: string): Item =>
      grammar.sequence(
        grammar.text(spell(name)),
        json.colon,
        name in properties ? itemOf(properties[name], `${at}.properties.${name}`) : json.any,
      )
    // From the last property back: what follows when one has been written already, and when none has.
    let [after, first]: [Item, Item] = [json.nothing, json.nothing]
    for (const name of names.toReversed()) {
      const property = one(name)
      const [withComma, alone] = [
        grammar.sequence(json.comma, property, after),
        grammar.sequence(property, after),
      ]
      if (required.includes(name)) [after, first] = [withComma, alone]
      else [after, first] = [grammar.choice(withComma, after), grammar.choice(alone, first)]
    }
    return grammar.sequence(grammar.text('{'), first, grammar.text('}'))
  }

  function array(node: Json, at: string): Item {
    const [least, most] = bounds(node, 'minItems', 'maxItems', at)
    const tuple = list(node['prefixItems'] ?? [], `${at}.prefixItems`).map((item, i) =>
      itemOf(item, `${at}.prefixItems.${i}`),
    )
    const more = node['items']
    const others = more === false ? undefined : more === undefined ? json.any : itemOf(more, `${at}.items`)
    if (tuple.length === 0) return json.list(others ?? json.any, least, others ? most : 0)
    if (least > tuple.length || most < tuple.length || (others && more !== undefined))
      throw invalid(at, 'prefixItems is supported with exactly those items', 'unsupported_schema')
    const [head, ...tail] = tuple
    return grammar.sequence(
      grammar.text('['),
      head!,
      ...tail.flatMap((item) => [json.comma, item]),
      grammar.text(']'),
    )
  }

  function combined(node: Json, key: string, at: string): Item {
    demandOnly(node, [key], at)
    const options = list(node[key], `${at}.${key}`)
    if (options.length === 0) throw invalid(`${at}.${key}`, 'no schemas', 'unsupported_schema')
    const items = options.map((option, i) => itemOf(option, `${at}.${key}.${i}`))
    if (key === 'allOf' && items.length > 1)
      throw invalid(
        `${at}.allOf`,
        'several schemas at once are not supported; merge them',
        'unsupported_schema',
      )
    if (key === 'oneOf' && !areDisjoint(options))
      throw invalid(
        `${at}.oneOf`,
        'its schemas are not told apart by type or by a const property; use anyOf',
        'unsupported_schema',
      )
    return grammar.choice(...items)
  }

  function literals(node: Json, at: string): Item {
    demandOnly(node, ['type', 'enum', 'const'], at)
    const values = 'const' in node ? [node['const']] : list(node['enum'], `${at}.enum`)
    if (values.length === 0) throw invalid(`${at}.enum`, 'no values', 'unsupported_schema')
    return grammar.choice(...new Set(values.map((value) => grammar.text(spell(value)))))
  }

  function reference(node: Json, at: string): Item {
    demandOnly(node, ['$ref'], at)
    const pointer = String(node['$ref'])
    const known = rules.get(pointer)
    if (known) return known
    if (!pointer.startsWith('#'))
      throw invalid(`${at}.$ref`, `'${pointer}' lies outside of the schema`, 'unsupported_schema')
    let target: unknown = root
    for (const step of pointer.split('/').slice(1)) {
      const name = decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')
      target = isRecord(target) && Object.hasOwn(target, name) ? target[name] : undefined
    }
    if (target === undefined) throw invalid(`${at}.$ref`, `'${pointer}' is not there`, 'unsupported_schema')
    return grammar.rule((self) => {
      rules.set(pointer, self)
      return itemOf(target, at)
    })
  }

  return grammar.rule((self) => {
    rules.set('#', self)
    return itemOf(root, param)
  })
}

/** Of a schema without `type`: those its keywords speak of, or all. */
function impliedTypes(node: Json): string[] {
  const implied = Object.keys(keywords).filter((type) => keywords[type]!.some((key) => key in node))
  return implied.length > 0 ? implied : ['object', 'array', 'string', 'number', 'boolean', 'null']
}

function demandOnly(node: Json, known: readonly string[], at: string): void {
  const unknown = Object.keys(node).find((key) => !remarks.has(key) && !known.includes(key))
  if (unknown !== undefined)
    throw invalid(`${at}.${unknown}`, 'this keyword is not supported here', 'unsupported_schema')
}

/** Whether no value is valid by two of them, as far as can be seen at once. */
function areDisjoint(options: readonly unknown[]): boolean {
  const nodes = options.filter(isRecord)
  const types = nodes.map((node) => node['type'])
  if (types.every((type) => typeof type === 'string') && new Set(types).size === options.length) return true
  const constants = nodes.map((node) =>
    Object.entries(isRecord(node['properties']) ? node['properties'] : {}).flatMap(([name, property]) =>
      isRecord(property) && 'const' in property && [node['required']].flat().includes(name)
        ? [[name, JSON.stringify(property['const'])] as const]
        : [],
    ),
  )
  return (constants[0] ?? []).some(([name]) => {
    const values = constants.map((own) => own.find(([other]) => other === name)?.[1])
    return values.every((value) => value !== undefined) && new Set(values).size === options.length
  })
}

function bounds(node: Json, low: string, high: string, at: string): readonly [number, number] {
  const read = (key: string, fallback: number): number => {
    const value = node[key] ?? fallback
    if (value === Infinity || (Number.isSafeInteger(value) && (value as number) >= 0)) return value as number
    throw invalid(`${at}.${key}`, 'a whole number of at least 0 is needed', 'unsupported_schema')
  }
  const [least, most] = [read(low, 0), read(high, Infinity)]
  if (least > most) throw invalid(`${at}.${low}`, `more than ${high}`, 'unsupported_schema')
  return [least, most]
}

/** Integers have at most 15 digits, so that every reader gets the number that was written. */
const largest = 999_999_999_999_999

function integerRange(node: Json, at: string): readonly [number, number] {
  const read = (key: string): number | undefined => {
    const value = node[key]
    if (value === undefined || typeof value === 'number') return value
    throw invalid(`${at}.${key}`, 'a number is needed', 'unsupported_schema')
  }
  const low = Math.max(
    -largest,
    Math.ceil(read('minimum') ?? -largest),
    Math.floor((read('exclusiveMinimum') ?? -largest - 1) + 1),
  )
  const high = Math.min(
    largest,
    Math.floor(read('maximum') ?? largest),
    Math.ceil((read('exclusiveMaximum') ?? largest + 1) - 1),
  )
  if (low > high) throw invalid(at, 'no integer lies between its bounds', 'unsupported_schema')
  return [low, high]
}

const isRecord = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function record(value: unknown, at: string): Json {
  if (isRecord(value)) return value
  throw invalid(at, 'an object is needed', 'unsupported_schema')
}

function list(value: unknown, at: string): readonly unknown[] {
  if (Array.isArray(value)) return value as unknown[]
  throw invalid(at, 'a list is needed', 'unsupported_schema')
}

const digit = [0x30, 0x39] as const
const nonZero = [0x31, 0x39] as const

/** The parts that JSON is made of. */
class JsonItems {
  readonly #grammar: Grammar
  readonly nothing: Item
  readonly comma: Item
  readonly colon: Item
  readonly number: Item
  readonly any: Item
  readonly anyObject: Item
  readonly #character: Item

  constructor(grammar: Grammar) {
    this.#grammar = grammar
    const space = grammar.optional(grammar.text(' '))
    this.nothing = grammar.sequence()
    this.comma = grammar.sequence(grammar.text(','), space)
    this.colon = grammar.sequence(grammar.text(':'), space)
    this.#character = this.#characters()
    const digits = grammar.oneOf(digit)
    this.number = grammar.sequence(
      this.integer(-largest, largest),
      grammar.optional(grammar.sequence(grammar.text('.'), grammar.repeat(digits, 1, 15))),
      grammar.optional(
        grammar.sequence(
          grammar.oneOf(0x45, 0x65),
          grammar.optional(grammar.oneOf(0x2b, 0x2d)),
          grammar.repeat(digits, 1, 2),
        ),
      ),
    )
    let object: Item
    this.any = grammar.rule((self) => {
      object = this.record(self)
      const words = ['true', 'false', 'null'].map((word) => grammar.text(word))
      return grammar.choice(
        this.string(0, Infinity),
        this.number,
        ...words,
        object,
        this.list(self, 0, Infinity),
      )
    })
    this.anyObject = object!
  }

  /** One code point between quotes: itself in UTF-8, or an escape; no half of a surrogate pair. */
  #characters(): Item {
    const g = this.#grammar
    const more = g.oneOf([0x80, 0xbf])
    const hex = g.oneOf(digit, [0x41, 0x46], [0x61, 0x66])
    return g.choice(
      g.oneOf([0x20, 0x21], [0x23, 0x5b], [0x5d, 0x7e]),
      g.sequence(g.oneOf([0xc2, 0xdf]), more),
      g.sequence(g.oneOf(0xe0), g.oneOf([0xa0, 0xbf]), more),
      g.sequence(g.oneOf([0xe1, 0xec], [0xee, 0xef]), more, more),
      g.sequence(g.oneOf(0xed), g.oneOf([0x80, 0x9f]), more),
      g.sequence(g.oneOf(0xf0), g.oneOf([0x90, 0xbf]), more, more),
      g.sequence(g.oneOf([0xf1, 0xf3]), more, more, more),
      g.sequence(g.oneOf(0xf4), g.oneOf([0x80, 0x8f]), more, more),
      g.sequence(
        g.text('\\'),
        g.choice(
          g.oneOf(...Array.from('"\\/bfnrt', (c) => c.charCodeAt(0))),
          g.sequence(
            g.text('u'),
            g.choice(
              g.sequence(g.oneOf(digit, [0x41, 0x43], [0x61, 0x63], 0x45, 0x46, 0x65, 0x66), hex),
              g.sequence(g.oneOf(0x44, 0x64), g.oneOf([0x30, 0x37])),
            ),
            hex,
            hex,
          ),
        ),
      ),
    )
  }

  /** Between quotes, so many code points. */
  string(least: number, most: number): Item {
    const quote = this.#grammar.text('"')
    return this.#grammar.sequence(quote, this.#grammar.repeat(this.#character, least, most), quote)
  }

  list(item: Item, least: number, most: number): Item {
    const g = this.#grammar
    const others = g.repeat(g.sequence(this.comma, item), Math.max(0, least - 1), most - 1)
    const some = g.sequence(item, others)
    const inside = most === 0 ? this.nothing : least === 0 ? g.optional(some) : some
    return g.sequence(g.text('['), inside, g.text(']'))
  }

  /** Any names, values of one kind. */
  record(value: Item): Item {
    const g = this.#grammar
    const property = g.sequence(this.string(0, Infinity), this.colon, value)
    const some = g.sequence(property, g.repeat(g.sequence(this.comma, property), 0, Infinity))
    return g.sequence(g.text('{'), g.optional(some), g.text('}'))
  }

  /** Integers from `low` to `high`, both included. */
  integer(low: number, high: number): Item {
    const g = this.#grammar
    const negative = low < 0 ? [g.sequence(g.text('-'), this.#natural(Math.max(1, -high), -low))] : []
    const natural = high >= 0 ? [this.#natural(Math.max(0, low), high)] : []
    return g.choice(...natural, ...negative)
  }

  /** Naturals of a range, by number of digits. */
  #natural(low: number, high: number): Item {
    const g = this.#grammar
    const parts: Item[] = []
    for (let length = `${low}`.length; length <= `${high}`.length; length++) {
      const [first, last] = [length === 1 ? 0 : 10 ** (length - 1), 10 ** length - 1]
      if (low <= first && high >= last && length > 1) {
        // All longer ones that fit whole are one item, which keeps states few.
        let longest = length
        while (high >= 10 ** (longest + 1) - 1) longest++
        parts.push(g.sequence(g.oneOf(nonZero), g.repeat(g.oneOf(digit), length - 1, longest - 1)))
        length = longest
      } else {
        const pad = (value: number): string => `${value}`.padStart(length, '0')
        parts.push(this.#between(pad(Math.max(low, first)), pad(Math.min(high, last))))
      }
    }
    return g.choice(...parts)
  }

  /** Texts of digits of one length from `low` to `high`. */
  #between(low: string, high: string): Item {
    const g = this.#grammar
    const rest = low.length - 1
    const [a, b] = [low.charCodeAt(0), high.charCodeAt(0)]
    if (rest === 0) return g.oneOf([a, b])
    const after = (from: string, to: string): Item => this.#between(from, to)
    if (a === b) return g.sequence(g.oneOf(a), after(low.slice(1), high.slice(1)))
    const parts = [
      g.sequence(g.oneOf(a), after(low.slice(1), '9'.repeat(rest))),
      g.sequence(g.oneOf(b), after('0'.repeat(rest), high.slice(1))),
    ]
    if (b - a > 1) parts.push(g.sequence(g.oneOf([a + 1, b - 1]), g.repeat(g.oneOf(digit), rest, rest)))
    return g.choice(...parts)
  }
}
