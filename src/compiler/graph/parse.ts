/**
 * Reads back what `printFunc` wrote. Lines of all functions are collected first and nodes then made in the order of
 * their numbers, which is the order they were created in: so the program that comes out prints, runs and schedules like
 * the one that went in. Types are written in the text and inferred again; where the two differ, the text is wrong.
 */
import { failure, UserError } from '../../errors.ts'
import { currentGraph, type Attrs, type AttrValue, type Func, type Node } from './node.ts'
import type { Op } from './op.ts'
import { word } from './print.ts'
import { dtypes, formatType, valueType, type AxisName, type DType, type ValueType } from './types.ts'

interface Statement {
  readonly line: Line
  readonly number: number
  readonly kind: 'parameter' | 'node'
  /** Parameter or operation. */
  readonly name: string
  readonly inputs: readonly number[]
  readonly types: readonly ValueType[]
  readonly attrs: Attrs
}

interface Header {
  readonly line: Line
  /** As referred to: with the `@`. */
  readonly reference: string
  readonly name: string
  readonly params: readonly number[]
  readonly results: readonly number[]
  /** Numbers that stand in this function. */
  readonly inside: Set<number>
}

/**
 * The last function of a text, with those before it as bodies, in the current graph.
 *
 * @param ops what names in the text may mean: the op list, which stands above this folder.
 * @throws UserError naming the line that cannot be read.
 */
export function parseFunc(text: string, ops: readonly Op[]): Func {
  const opByName = new Map(ops.map((op) => [op.name, op]))
  const { headers, statements } = readLines(text)
  const nodes = new Map<number, Node>()
  const funcs = new Map<string, Func>()
  const nodeAt = (line: Line, number: number): Node => {
    const node = nodes.get(number)
    if (!node) throw line.error(`%${number}`, 'the number of an earlier node')
    return node
  }
  const finish = (header: Header): Func => {
    const known = funcs.get(header.reference)
    if (known) return known
    const at = (number: number): Node => {
      if (!header.inside.has(number)) throw header.line.error(`%${number}`, 'a node of this function')
      return nodeAt(header.line, number)
    }
    const func = currentGraph().func(header.name, header.params.map(at), header.results.map(at))
    funcs.set(header.reference, func)
    return func
  }
  const bodyAt = (line: Line, reference: string): Func => {
    const header = headers.find((each) => each.reference === reference)
    if (!header || header.line.row > line.row) throw line.error(reference, 'a function printed before')
    return finish(header)
  }
  for (const statement of [...statements.values()].toSorted((a, b) => a.number - b.number)) {
    const { line, number, types } = statement
    if (statement.kind === 'parameter') {
      const { dtype, shape, axes } = types[0]!
      const attrs = { scope: currentGraph().scope(), name: statement.name, dtype, shape, axes }
      nodes.set(number, intern(line, opByName.get('input')!, [], attrs))
      continue
    }
    const op = opByName.get(statement.name)
    if (!op) throw line.error(statement.name, 'the name of an operation')
    const body = statement.attrs['body']
    const attrs =
      typeof body === 'string' ? { ...statement.attrs, body: bodyAt(line, body) } : statement.attrs
    const inputs = statement.inputs.map((each) => nodeAt(line, each))
    const node = intern(line, op, inputs, attrs)
    const [got, want] = [types, node.types].map((list) => list.map(formatType).join(', '))
    if (got !== want) throw line.error(got!, `${want}, which ${op.name} gives for these inputs`)
    nodes.set(number, node)
  }
  return finish(headers.at(-1)!)
}

/** Any complaint of an op about its inputs becomes one about the line. */
function intern(line: Line, op: Op, inputs: readonly Node[], attrs: Attrs): Node {
  try {
    return currentGraph().intern(op, inputs, attrs)
  } catch (error) {
    const expected =
      error instanceof UserError ? error.complaint.expected : `inputs and attributes of ${op.name}`
    throw line.error(inputs.map((x) => x.types.map(formatType).join()).join(', ') || 'no inputs', expected)
  }
}

function readLines(text: string): { headers: Header[]; statements: Map<number, Statement> } {
  const headers: Header[] = []
  const statements = new Map<number, Statement>()
  let open: Header | undefined
  // A value that several functions use stands in each of them, always in the same words.
  const add = (statement: Statement, header: Header): void => {
    const known = statements.get(statement.number)
    if (header.inside.has(statement.number) || (known && describe(known) !== describe(statement))) {
      throw statement.line.error(`%${statement.number} a second time`, 'one meaning for each number')
    }
    statements.set(statement.number, statement)
    header.inside.add(statement.number)
  }
  text.split('\n').forEach((content, i) => {
    const line = new Line(content, i + 1)
    if (content.trim() === '') return
    if (!open) {
      const { header, parameters } = readHeader(line)
      if (headers.some(({ reference }) => reference === header.reference)) {
        throw line.error(`${header.reference} a second time`, 'one function of each name')
      }
      open = header
      headers.push(header)
      for (const parameter of parameters) add(parameter, header)
    } else if (content.trim() === '}') open = undefined
    else {
      const statement = readStatement(line)
      for (const number of statement.inputs) {
        if (!open.inside.has(number)) throw line.error(`%${number}`, 'a node above, in this function')
        if (number >= statement.number)
          throw line.error(`%${number} as input`, `a number below %${statement.number}`)
      }
      add(statement, open)
    }
  })
  const end = new Line('the end of the text', text.split('\n').length)
  if (open) throw end.error('the end of the text', '} after the last function')
  if (headers.length === 0) throw end.error('no function', 'func @name(...) -> (...) {')
  return { headers, statements }
}

const describe = ({ name, inputs, types, attrs }: Statement): string =>
  JSON.stringify([name, inputs, types, attrs])

function readHeader(line: Line): { header: Header; parameters: Statement[] } {
  line.take('func @', 'func @name(')
  const name = line.word()
  const suffix = line.find(/#\d+/y)
  line.take('(', '(')
  const parameters = line.list(')', () => {
    const number = line.ref()
    line.take(' ', 'a parameter name')
    const name = line.word()
    line.take(': ', ': and a type')
    return {
      line,
      number,
      kind: 'parameter',
      name,
      inputs: [],
      types: [line.type()],
      attrs: {},
    } satisfies Statement
  })
  line.take(' -> (', '-> and the results')
  const results = line.list(')', () => line.ref())
  line.take(' {', '{')
  line.end()
  const params = parameters.map(({ number }) => number)
  return {
    header: { line, reference: `@${word(name)}${suffix}`, name, params, results, inside: new Set() },
    parameters,
  }
}

function readStatement(line: Line): Statement {
  line.find(/ */y)
  const number = line.ref()
  line.take(' = ', '=')
  const name = line.word()
  const inputs: number[] = []
  while (line.find(/ (?=%)/y) !== '') inputs.push(line.ref())
  line.take(' : ', ': and the type')
  const types = line.find(/\(/y) !== '' ? line.list(')', () => line.type()) : [line.type()]
  const attrs = line.attrs()
  line.end()
  return { line, number, kind: 'node', name, inputs, types, attrs }
}

/** One line and how far it has been read. */
class Line {
  readonly #text: string
  /** Counted from one. */
  readonly row: number
  #at = 0

  constructor(text: string, row: number) {
    this.#text = text
    this.row = row
  }

  error(got: string, expected: string): UserError {
    return failure({
      where: `line ${this.row} of the program text`,
      got,
      expected,
      fix: 'correct it, or print it again',
    })
  }

  #fail(expected: string): UserError {
    const rest = this.#text.slice(this.#at)
    return this.error(rest === '' ? 'the end of the line' : `'${rest.slice(0, 40)}'`, expected)
  }

  /** What a sticky pattern matches here; empty when it does not. */
  find(pattern: RegExp): string {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0] ?? ''
    this.#at += found.length
    return found
  }

  take(text: string, expected: string): void {
    if (!this.#text.startsWith(text, this.#at)) throw this.#fail(expected)
    this.#at += text.length
  }

  end(): void {
    if (this.find(/\s*$/y) === '' && this.#at < this.#text.length) throw this.#fail('the end of the line')
  }

  /** A name, plain or as a JSON string. */
  word(): string {
    const plain = this.find(/[A-Za-z_][\w.]*/y)
    if (plain !== '') return plain
    const quoted = this.find(/"(?:[^"\\]|\\.)*"/y)
    if (quoted === '') throw this.#fail('a name')
    return JSON.parse(quoted) as string
  }

  /** The number of a node: `%12`. */
  ref(): number {
    const found = this.find(/%\d+/y)
    if (found === '') throw this.#fail('a node, as %0')
    return Number(found.slice(1))
  }

  /** Items separated by commas, up to and with the closing text. */
  list<T>(close: string, item: () => T): T[] {
    const items: T[] = []
    if (this.#text.startsWith(close, this.#at)) {
      this.take(close, close)
      return items
    }
    for (;;) {
      items.push(item())
      if (this.find(/, /y) === '') break
    }
    this.take(close, `, or ${close}`)
    return items
  }

  type(): ValueType {
    const dtype = this.find(/\w+/y)
    if (!(dtypes as readonly string[]).includes(dtype)) {
      this.#at -= dtype.length
      throw this.#fail(`an element type: ${dtypes.join(', ')}`)
    }
    this.take('[', '[')
    const dims = this.list(']', (): [AxisName, number] => {
      const unnamed = this.find(/\d+(?=[,\]])/y)
      if (unnamed !== '') return [null, Number(unnamed)]
      const name = this.word()
      this.take('=', '= and an extent')
      const extent = this.find(/\d+/y)
      if (extent === '') throw this.#fail('an extent')
      return [name, Number(extent)]
    })
    return valueType(
      dtype as DType,
      dims.map(([, extent]) => extent),
      dims.map(([name]) => name),
    )
  }

  /** The JSON object that ends the line, if there is one. */
  attrs(): Attrs {
    const json = this.find(/ \{.*$/y)
    if (json === '') return {}
    try {
      return JSON.parse(json, (_, value: AttrValue | { $number: string }) =>
        typeof value === 'object' && value !== null && '$number' in value ? Number(value.$number) : value,
      ) as Attrs
    } catch {
      this.#at -= json.length
      throw this.#fail('attributes as JSON')
    }
  }
}
