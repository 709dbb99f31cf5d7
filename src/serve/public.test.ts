/** Folders in Hugging Face format through the server: their greedy text, their tokenizer, their template, their ends. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { byteLevelJson } from '../data/tokenizers/huggingface.ts'
import { tokenizerFromJSON } from '../data/tokenizers/tokenizer.ts'
import { UserError } from '../errors.ts'
import { checkpoints, fixture, referenceOf } from '../models/public/testing.ts'
import { enginesOf } from './engines.ts'
import { servePublic } from './public.ts'
import { openaiRoutes } from './routes.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-public-'))
after(() => rmSync(root, { recursive: true }))

// As many tokens as the checkpoints have: an end, a line break, and ASCII but for one sign.
const characters = ['Ċ', 'Ġ', ...Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i))]
const tokens = ['<|end|>', ...characters.filter((c) => c !== '`')]
const json = byteLevelJson({ tokens, merges: [], specials: ['<|end|>'] })
const tokenizer = tokenizerFromJSON(json)

function folderOf(name: string, files: Readonly<Record<string, unknown>> = {}): string {
  const folder = mkdtempSync(join(root, `${name}-`))
  cpSync(fixture(name), folder, { recursive: true })
  for (const [file, content] of Object.entries({ 'tokenizer.json': json, ...files }))
    if (content !== undefined)
      writeFileSync(join(folder, file), typeof content === 'string' ? content : JSON.stringify(content))
  return folder
}

interface Answer {
  readonly choices: readonly {
    readonly text?: string
    readonly message?: { readonly content: string }
    readonly finish_reason: string
  }[]
  readonly usage: { readonly prompt_tokens: number }
}

async function served<T>(
  folder: string,
  use: (ask: (path: string, body: object) => Promise<Answer>, name: string) => Promise<T>,
): Promise<T> {
  const engine = await servePublic(folder, { slots: 4, threads: 2, rows: 16 })
  const app = openaiRoutes(enginesOf(engine))
  const { name: model } = engine.served
  const ask = async (path: string, body: object): Promise<Answer> => {
    const response = await app.request(path, {
      method: 'POST',
      body: JSON.stringify({ model, temperature: 0, ...body }),
    })
    const answer = await response.json()
    assert.equal(response.status, 200, JSON.stringify(answer))
    return answer as Answer
  }
  try {
    return await use(ask, model)
  } finally {
    await engine.close()
  }
}

for (const name of Object.keys(checkpoints)) {
  test(`${name}: greedy text is that of transformers, alone and in company`, async () => {
    const { input_ids: prompt, greedy } = referenceOf(name)
    const expected = tokenizer.decode(greedy.slice(prompt.length))
    await served(folderOf(name), async (ask) => {
      const body = { prompt, max_tokens: greedy.length - prompt.length }
      const answers = await Promise.all(
        [body, { ...body, prompt: [5, 6, 7] }, body].map((one) => ask('/v1/completions', one)),
      )
      assert.deepEqual([answers[0]!.choices[0]!.text, answers[2]!.choices[0]!.text], [expected, expected])
    })
  })
}

test('what begins and what ends a text is what the files say', async () => {
  const { input_ids: prompt, greedy } = referenceOf('llama3-tiny')
  const written = greedy.slice(prompt.length)
  const end = written.find((id) => id !== written[0])!
  const folder = folderOf('llama3-tiny', {
    'generation_config.json': { eos_token_id: [95, end] },
    'tokenizer.json': {
      ...json,
      post_processor: {
        type: 'Sequence',
        processors: [
          { type: 'ByteLevel' },
          {
            type: 'TemplateProcessing',
            single: [{ SpecialToken: { id: '<|end|>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
          },
        ],
      },
    },
    'tokenizer_config.json': {
      bos_token: { content: '<|end|>', special: true },
      chat_template: '{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}',
    },
  })
  await served(folder, async (ask) => {
    const stopped = await ask('/v1/completions', { prompt, max_tokens: 40 })
    const expected = tokenizer.decode(written.slice(0, written.indexOf(end)))
    assert.deepEqual([stopped.choices[0]!.text, stopped.choices[0]!.finish_reason], [expected, 'stop'])
    const spelled = await ask('/v1/completions', { prompt: 'Hi', max_tokens: 8 })
    const ids = await ask('/v1/completions', { prompt: [0, ...tokenizer.encode('Hi')], max_tokens: 8 })
    assert.equal(spelled.usage.prompt_tokens, 3)
    assert.equal(spelled.choices[0]!.text, ids.choices[0]!.text)
    const chat = await ask('/v1/chat/completions', {
      messages: [{ role: 'user', content: 'Hi' }],
      max_tokens: 8,
    })
    const same = await ask('/v1/completions', {
      prompt: [0, ...tokenizer.encode('user: Hi\n')],
      max_tokens: 8,
    })
    assert.equal(chat.usage.prompt_tokens, 10)
    assert.equal(chat.choices[0]!.message!.content, same.choices[0]!.text)
  })
})

test('folders that lack or garble a file are refused in one line', async () => {
  const refused = (files: Readonly<Record<string, unknown>>, message: RegExp): Promise<void> =>
    assert.rejects(
      servePublic(folderOf('gpt2-tiny', files)),
      (error) => error instanceof UserError && message.test(error.message),
    )
  await refused({ 'tokenizer.json': undefined }, /tokenizer\.json: got no such file/)
  await refused({ 'tokenizer.json': '{"model": ' }, /tokenizer\.json: got text that is not JSON/)
  const larger = byteLevelJson({ tokens: [...tokens, '~~'], merges: [], specials: ['<|end|>'] })
  await refused({ 'tokenizer.json': larger }, /got 97 tokens; expected at most 96/)
  await refused(
    { 'chat_template.jinja': '{% if %}' },
    /chat_template\.jinja: got a template that cannot be read/,
  )
})
