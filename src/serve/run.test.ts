/** A real run as a served model: what answers is its newest checkpoint, also once a newer one is saved. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { gpt, text, train } from '../train/library.ts'
import { enginesOf } from './engines.ts'
import { openaiRoutes } from './routes.ts'
import { runEngines } from './run-engines.ts'
import { serveRun } from './run.ts'

test('a run answers as `sample` writes, goes on with its next checkpoint, and is found by its name', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-serve-'))
  const runsDir = join(folder, 'runs')
  try {
    writeFileSync(join(folder, 'text.txt'), 'the cat sat on the mat and the rat ran to the hat. '.repeat(200))
    const data = await text(join(folder, 'text.txt'), { tokenizer: 'bytes' })
    const model = gpt({ layers: 1, heads: 2, width: 32, context: 64 })
    const settings = { data, runsDir, batch: 8, steps: 30, threads: 2 } as const
    const run = await train(model, settings)
    const notes: string[] = []
    const options = { runsDir, note: (line: string) => notes.push(line), slots: 4, everyMs: 20 }
    const served = await serveRun(run.id, options)
    const app = openaiRoutes(enginesOf(served.engine))
    const ask = async (routes = app): Promise<{ text: string; version: string }> => {
      const body = { model: run.id, prompt: 'the cat ', max_tokens: 24, temperature: 0 }
      const init = { method: 'POST', body: JSON.stringify(body) }
      const response = await routes.request('/v1/completions', init)
      const answer = (await response.json()) as { choices: { text: string }[]; system_fingerprint: string }
      assert.equal(response.status, 200, JSON.stringify(answer))
      return { text: answer.choices[0]!.text, version: answer.system_fingerprint }
    }
    const written = await run.sample('the cat ', { tokens: 24, temperature: 0 })
    assert.deepEqual(await ask(), { text: written, version: 'step-30' })
    const more = await run.resume({ steps: 60 })
    while (served.step() < 60) await new Promise((resolve) => setTimeout(resolve, 20))
    const later = await more.sample('the cat ', { tokens: 24, temperature: 0 })
    assert.deepEqual(await ask(), { text: later, version: 'step-60' })
    assert.deepEqual(notes, ['now answering with step 60'])
    await served.close()

    const engines = runEngines(options)
    const all = openaiRoutes(engines)
    const list = (await (await all.request('/v1/models')).json()) as { data: { id: string }[] }
    assert.deepEqual(
      list.data.map(({ id }) => id),
      [run.id],
    )
    assert.equal((await ask(all)).text, later)
    assert.equal(engines.open().length, 1)
    await engines.close()
  } finally {
    rmSync(folder, { recursive: true })
  }
})
