/** Settings, flat and as a shell reads them. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { differingSettings, settingsOf, typedSetting } from './settings.ts'

test('a configuration is flat settings under dotted keys', () => {
  assert.deepEqual(settingsOf({ steps: 2, model: { width: 64, block: 'gpt2' }, list: [1, 2], none: null }), [
    ['steps', 2],
    ['model.width', 64],
    ['model.block', 'gpt2'],
    ['list', [1, 2]],
    ['none', null],
  ])
})

test('what differs, also where one has no such setting', () => {
  const runs = [
    { steps: 2, model: { width: 64 } },
    { steps: 2, model: { width: 128 }, extra: true },
  ]
  assert.deepEqual(differingSettings(runs), [
    ['model.width', [64, 128]],
    ['extra', [undefined, true]],
  ])
  assert.deepEqual(differingSettings([runs[0]!, runs[0]!]), [])
})

test('a shell reads a typed setting as what it was', () => {
  for (const text of ['it\'s "quoted" $HOME', 'plain/path-1.txt', '', '*'])
    assert.equal(
      execFileSync('sh', ['-c', `printf %s ${typedSetting('key', text)}`], { encoding: 'utf8' }),
      `key=${text}`,
    )
})
