/**
 * Settings typed on the command line: each reaches its place with its type, and each mistake is refused by name.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../errors.ts'
import { languageConfigSchema, resolveConfig, sizes } from '../models/language/config.ts'
import type { LanguageOverrides } from '../models/language/config.ts'
import { parseOverrides } from './overrides.ts'

const parse = (...words: string[]): unknown => parseOverrides(languageConfigSchema, words)
const refused = (words: readonly string[], pattern: RegExp): void =>
  assert.throws(
    () => resolveConfig(parseOverrides(languageConfigSchema, words) as LanguageOverrides),
    (error) => error instanceof UserError && error.exitCode === 2 && pattern.test(error.message),
    words.join(' '),
  )

test('values take the type their setting wants, at any depth; the last one wins', () => {
  assert.deepEqual(parse('steps=200', 'optim.lr=1e-3', 'recompute=yes', 'model.size=micro', 'steps=1_000'), {
    steps: 1000,
    optim: { lr: 0.001 },
    recompute: 'full',
    model: { size: 'micro' },
  })
  assert.deepEqual(parse('data=42', 'sample.prompt=true', 'sample.temperature=0'), {
    data: '42',
    sample: { prompt: 'true', temperature: 0 },
  })
  assert.deepEqual(parse('sample.prompt=a=b', 'model.dropout=.1'), {
    sample: { prompt: 'a=b' },
    model: { dropout: 0.1 },
  })
})

test('what cannot be meant is refused, naming key, got and expected', () => {
  refused(['steps=-1'], /^steps: got steps=-1; expected at least 1/)
  refused(['steps=1.5'], /^steps: got steps=1\.5; expected a whole number/)
  refused(['steps='], /^steps: got steps=; expected a number/)
  refused(['steps=0x10'], /expected a number/)
  refused(['steps=1e400'], /^steps: got steps=1e400; expected/)
  refused(['optim.lr=0'], /expected more than 0/)
  refused(['optim.lr=fast'], /^optim\.lr: got optim\.lr=fast; expected a number/)
  refused(['recompute=maybe'], /expected one of none, full, auto/)
  refused(['memory=lots'], /^memory: got memory=lots; expected bytes, or text like 512MiB/)
  refused(['model.size=tiny'], /expected one of nano, micro, mini, small, base, gpt2/)
  refused(['step=1'], /did you mean steps\?/)
  refused(['lr=1'], /did you mean optim\.lr\?/)
  refused(['model.layrs=1'], /did you mean model\.layers\?/)
  refused(['modle.layers=1'], /did you mean model\.layers\?/)
  refused(['model=nano'], /a group of settings.*model\.size=/)
  refused(['steps.x=1'], /a setting that does not exist/)
  refused(['__proto__=1'], /a setting that does not exist/)
  refused(['constructor.name=1'], /a setting that does not exist/)
  refused(['steps'], /got 'steps'; expected key=value/)
  refused(['=5'], /expected key=value/)
})

test('a budget of memory in bytes or with a unit, and what it asks for', () => {
  for (const [text, bytes] of [
    ['1000', 1000],
    ['512MiB', 512 * 2 ** 20],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['2GB', 2e9],
  ] as const) {
    assert.deepEqual(parse(`memory=${text}`), { memory: bytes })
    const config = resolveConfig({ memory: text })
    assert.deepEqual([config.recompute, config.memory], ['auto', bytes])
  }
  assert.deepEqual(
    [resolveConfig().recompute, resolveConfig({ recompute: true }).recompute],
    ['none', 'full'],
  )
})

test('settings that do not go together are refused', () => {
  refused(['recompute=auto'], /^recompute: .*memory=512MiB/)
  refused(['recompute=full', 'memory=1GiB'], /^recompute: .*leave recompute out/)
  refused(['model.width=100'], /^model\.width: .*a multiple of 32.*model\.width=96/)
  refused(['model.heads=3'], /^model\.heads: .*a divisor of model\.width=64/)
  refused(['model.heads=64'], /an even head size/)
  refused(['model.width=128', 'model.kvHeads=3'], /^model\.kvHeads: .*a divisor of model\.heads=4/)
  refused(['batch=16', 'accumulate=3'], /^accumulate: /)
  refused(['steps=100', 'optim.warmup=60'], /optim\.warmup=50/)
})

test('the defaults are concrete, follow the dial, and resolve to themselves', () => {
  for (const size of Object.keys(sizes) as (keyof typeof sizes)[]) {
    const config = resolveConfig({ model: { size } })
    const { layers, width, heads, kvHeads, context } = config.model
    assert.deepEqual({ layers, width, context }, sizes[size])
    assert.equal(width / heads, layers < 8 ? 32 : 64)
    assert.equal(kvHeads, heads)
    assert.deepEqual(resolveConfig(config), config)
    assert.deepEqual(JSON.parse(JSON.stringify(config)), config)
  }
  assert.equal(resolveConfig().tokenizer, 'chars')
  const own = resolveConfig({ data: 'notes.txt' }, '/home/me')
  assert.deepEqual([own.data, own.tokenizer, own.sample.prompt], ['/home/me/notes.txt', 'bytes', '\n'])
})

test('property: any text for any setting is either taken or refused in one line', () => {
  const keys = [
    'steps',
    'data',
    'model.heads',
    'model.width',
    'optim.lr',
    'recompute',
    'model',
    'sample.prompt',
    'x',
  ]
  const text = fc.oneof(fc.string(), fc.double().map(String), fc.integer().map(String))
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom(...keys), text), { maxLength: 3 }), (settings) => {
      try {
        const words = settings.map(([key, value]) => `${key}=${value}`)
        resolveConfig(parseOverrides(languageConfigSchema, words) as LanguageOverrides)
      } catch (error) {
        assert.ok(error instanceof UserError, String(error))
        assert.equal(error.exitCode, 2)
      }
    }),
    { numRuns: 300, seed: 5 },
  )
})
