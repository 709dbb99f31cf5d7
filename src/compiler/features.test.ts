/** FEATURES.md holds the tables that the op and composite lists give. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { featuresTable } from './features.ts'

test('the tables of FEATURES.md are up to date', () => {
  const text = readFileSync(new URL('../../FEATURES.md', import.meta.url), 'utf8')
  const found = /<!-- ops -->\n+([^]*?)\n+<!-- \/ops -->/.exec(text)?.[1]
  assert.equal(found, featuresTable(), 'run: node src/compiler/features.ts')
})
