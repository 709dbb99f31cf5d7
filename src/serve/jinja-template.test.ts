/** Templates that checkpoints bring: rendered as written, with tools where they know them, and refused when unreadable. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UserError } from '../errors.ts'
import { RequestError } from './error.ts'
import { jinjaTemplate } from './jinja-template.ts'
import { chatmlSource } from './testing.ts'

const messages = [
  { role: 'system', text: 'Be brief.' },
  { role: 'user', text: 'Weather?' },
] as const
const weather = { name: 'weather', description: 'of a place', parameters: { type: 'object' } }

test('ChatML with tools: what is said, the tools, calls and their results', () => {
  const template = jinjaTemplate(chatmlSource, 'x', {})
  assert.equal(
    template.render(messages, []),
    '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n',
  )
  assert.deepEqual(template.call, { before: '<tool_call>', after: '</tool_call>', argumentsKey: 'arguments' })
  const call = { name: 'weather', arguments: '{"city": "Rome"}' }
  const text = template.render(
    [...messages, { role: 'assistant', text: '', toolCalls: [call] }, { role: 'tool', text: '21' }],
    [weather],
  )
  assert.match(
    text,
    /<tools>\n\{"type": "function", "function": \{"name": "weather", "description": "of a place"/,
  )
  assert.match(text, /<tool_call>\n\{"name": "weather", "arguments": \{"city": "Rome"\}\}\n<\/tool_call>/)
  assert.match(text, /<tool_response>\n21\n<\/tool_response>/)
})

test('special tokens by name; a template that knows no tools has them told by the system', () => {
  const source =
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}{{ eos_token }}\n{% endfor %}"
  const template = jinjaTemplate(source, 'x', { bos_token: '<s>', eos_token: '</s>' })
  assert.equal(template.render(messages, []), '<s>[system] Be brief.</s>\n[user] Weather?</s>\n')
  assert.equal(template.call, undefined)
  assert.match(template.render(messages, [weather]), /^<s>\[system\] Be brief\.\n\n# Tools\n/)
})

test('Llama 3.1 answers with JSON and nothing around it', () => {
  const source = 'Answer as {"name": function, "parameters": values}. {{ tools | tojson }}'
  const template = jinjaTemplate(source, 'x', {})
  assert.deepEqual(template.call, { before: '', after: '', argumentsKey: 'parameters' })
  assert.match(template.render(messages, [weather]), /"weather"/)
})

test('what a template refuses is the request to blame, what cannot be read the file', () => {
  const strict = jinjaTemplate("{{ raise_exception('roles must alternate') }}", 'x', {})
  assert.throws(
    () => strict.render(messages, []),
    (error) =>
      error instanceof RequestError && error.status === 400 && /roles must alternate/.test(error.message),
  )
  assert.throws(
    () => jinjaTemplate('{% for m in %}', 'folder/chat_template.jinja', {}),
    (error) =>
      error instanceof UserError &&
      error.message.startsWith('folder/chat_template.jinja: got a template that cannot be read'),
  )
})
