/** Runs every example in a process of its own, as a reader of the README would: each checks its own result. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const folder = fileURLToPath(new URL('../examples', import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), 'anneal-examples-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const examples = readdirSync(folder).filter((file) => file.endsWith('.ts'))

test('there are examples, each short enough to read at once', () => {
  assert.ok(examples.length >= 3)
  for (const file of examples) {
    const lines = readFileSync(join(folder, file), 'utf8').split('\n').length
    assert.ok(lines <= 80, `${file}: ${lines} lines`)
  }
})

for (const file of examples) {
  test(`examples/${file} runs`, async () => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env
    const { stdout } = await run(process.execPath, [join(folder, file)], {
      cwd: scratch,
      env: { ...env, ANNEAL_RUNS: join(scratch, 'runs') },
    })
    assert.ok(stdout.trim().split('\n').length >= 3, stdout)
  })
}
