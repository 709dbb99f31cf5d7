/** Calls of tools read from an answer that comes in pieces: however it is cut, name first, then valid arguments. */
import fc from 'fast-check'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { oneCall, withCalls, type Piece } from './calls.ts'
import { hermesCalls, type CallFormat } from './chat-template.ts'

const bare: CallFormat = { before: '', after: '', argumentsKey: 'parameters' }
const tools = ['weather', 'time']

async function* pieces(text: string, lengths: readonly number[]): AsyncGenerator<Piece, void> {
  for (let at = 0, i = 0; at < text.length; i++) {
    const length = lengths[i % lengths.length]!
    yield { text: text.slice(at, at + length), tokens: [{ id: i, text: '' }] }
    at += length
  }
}

async function count(answer: AsyncIterable<unknown>): Promise<number> {
  let pieces = 0
  for await (const piece of answer) pieces += Number(piece !== undefined)
  return pieces
}

interface Read {
  readonly text: string
  readonly calls: readonly { readonly name: string; readonly arguments: string }[]
  readonly tokens: number
  /** Pieces of arguments of the first call. */
  readonly parts: number
}

async function read(answer: AsyncIterable<Piece>): Promise<Read> {
  let [text, tokens, parts] = ['', 0, 0]
  const calls: { name: string; arguments: string }[] = []
  for await (const piece of answer) {
    text += piece.text
    tokens += piece.tokens.length
    if (!piece.call) continue
    const { index, name, arguments: given } = piece.call
    if (name !== undefined) {
      assert.equal(index, calls.length, 'calls come in order')
      assert.equal(given, '', 'the name comes before the arguments')
      calls.push({ name, arguments: '' })
    }
    calls[index]!.arguments += given
    if (index === 0 && given !== '') parts++
  }
  return { text, calls, tokens, parts }
}

const isTool = (name: string): boolean => tools.includes(name)
const lengthsOf = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 5 })
const argumentsOf = fc.dictionary(fc.string({ maxLength: 4 }), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 4 })
// Marks inside of strings would end a call, as they do for everybody who reads this format.
const call = fc
  .record({ name: fc.constantFrom(...tools), given: argumentsOf, late: fc.boolean() })
  .filter(({ given }) => !JSON.stringify(given).includes('tool_call'))

test('property: marked calls between text, cut anywhere', async () => {
  const property = fc.asyncProperty(
    fc.array(call, { minLength: 1, maxLength: 3 }),
    lengthsOf,
    async (calls, lengths) => {
      const written = calls.map(({ name, given, late }) => {
        const fields = [`"name": ${JSON.stringify(name)}`, `"arguments": ${JSON.stringify(given)}`]
        return `<tool_call>\n{${(late ? fields.toReversed() : fields).join(', ')}}\n</tool_call>`
      })
      const text = `Let me see <b>.${written.join('\n')}`
      const got = await read(withCalls(pieces(text, lengths), hermesCalls, isTool))
      assert.equal(got.text, 'Let me see <b>.')
      assert.deepEqual(
        got.calls.map(({ name, arguments: given }) => [name, JSON.parse(given)]),
        calls.map(({ name, given }) => [name, JSON.parse(JSON.stringify(given))]),
      )
      assert.equal(got.tokens, await count(pieces(text, lengths)), 'no token is lost')
    },
  )
  await fc.assert(property, { seed: 1, numRuns: 150 })
})

test('property: what is no call comes back as the text it is', async () => {
  const words = fc.constantFrom(
    '<tool_call>',
    '</tool_call>',
    '<tool_',
    'call>',
    '{"name": 1}',
    '{',
    ' so ',
    '<',
  )
  const property = fc.asyncProperty(fc.array(words, { maxLength: 8 }), lengthsOf, async (parts, lengths) => {
    const text = `A${parts.join('')}`
    const marked = await read(withCalls(pieces(text, lengths), hermesCalls, isTool))
    assert.deepEqual(marked.calls, [])
    // Spaces before a mark are dropped as long as it may begin a call.
    assert.equal(marked.text.replaceAll(' ', ''), text.replaceAll(' ', ''))
    assert.equal((await read(withCalls(pieces(text, lengths), bare, isTool))).text, text)
  })
  await fc.assert(property, { seed: 2, numRuns: 150 })
})

test('arguments are handed on as they come; JSON in a string is opened; none are an empty object', async () => {
  const given = { city: 'Ålesund, "by the sea"', days: [1, 2, 3], more: { a: null } }
  const text = JSON.stringify({ name: 'weather', arguments: given })
  const streamed = await read(oneCall(pieces(text, [3])))
  assert.deepEqual(JSON.parse(streamed.calls[0]!.arguments), given)
  assert.ok(streamed.parts > 15, `${streamed.parts} pieces`)
  const inside = JSON.stringify({ name: 'weather', arguments: JSON.stringify(given) })
  assert.deepEqual(JSON.parse((await read(oneCall(pieces(inside, [5])))).calls[0]!.arguments), given)
  const none = await read(oneCall(pieces('{"name": "time"}', [4])))
  assert.deepEqual(none.calls, [{ name: 'time', arguments: '{}' }])
})

test('without marks, JSON that names a tool is a call, and other JSON is text', async () => {
  const text = '\n{"name": "weather", "parameters": {"city": "Rome"}}'
  assert.deepEqual(await read(withCalls(pieces(text, [2]), bare, isTool)), {
    text: '',
    calls: [{ name: 'weather', arguments: '{"city": "Rome"}' }],
    tokens: Math.ceil(text.length / 2),
    parts: 9,
  })
  const other = '{"name": "Ada", "parameters": 3}'
  const got = await read(withCalls(pieces(other, [3]), bare, isTool))
  assert.deepEqual([got.text, got.calls], [other, []])
})

test('a call that is cut off keeps what came of it; one without a name was text', async () => {
  const cut = '<tool_call>{"name": "weather", "arguments": {"city": "Ro'
  const { calls } = await read(withCalls(pieces(cut, [4]), hermesCalls, isTool))
  assert.deepEqual(calls, [{ name: 'weather', arguments: '{"city": "Ro' }])
  const early = '<tool_call>{"name": "wea'
  assert.equal((await read(withCalls(pieces(early, [4]), hermesCalls, isTool))).text, early)
})
