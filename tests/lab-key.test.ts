/** A lab with an API key, in headless Chromium: the page opens, asks once, and everything after that works with the key. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openLab } from '../src/cli/lab.ts'
import { findChromium, noBrowser, openBrowser } from './browser.ts'
import { startDemo, writeSteps } from './demo-runs.ts'

const chromium = findChromium()
const options = chromium === undefined ? { skip: noBrowser } : {}

test(
  'the page opens without the key, asks for it, refuses a wrong one, and follows runs with it',
  options,
  async (t) => {
    const runsDir = mkdtempSync(join(tmpdir(), 'anneal-key-'))
    process.env['ANNEAL_API_KEY'] = 'secret'
    const lab = await openLab({ runsDir, host: '127.0.0.1', port: 0, note: () => undefined })
    delete process.env['ANNEAL_API_KEY']
    const browser = await openBrowser(chromium!)
    t.after(async () => {
      await browser.close()
      await lab.close()
      rmSync(runsDir, { recursive: true, force: true })
    })
    for (const closed of ['/api/runs', '/api/events', '/v1/models', '/assets/../api/runs', '/%61pi/runs'])
      assert.equal((await fetch(lab.url + closed)).status, 401, closed)
    const writer = startDemo(runsDir, { seed: 3 })
    writeSteps(writer, { from: 1, to: 40, final: 1.5, seed: 1 })
    writer.flush()
    const page = await browser.newPage()
    page.setDefaultTimeout(15_000)
    const key = page.locator('dialog input[type=password]')
    await page.goto(`${lab.url}/runs/${writer.id}`)
    await key.fill('wrong')
    await key.press('Enter')
    await page.getByText('That key was refused').waitFor()
    await key.fill('secret')
    await key.press('Enter')
    await page.locator('canvas').first().waitFor()
    writeSteps(writer, { from: 41, to: 80, final: 1.5, seed: 1 })
    writer.flush()
    await page.locator('main .progress .number').first().filter({ hasText: /^80/ }).waitFor()
    // Kept for the session: another page of it is not asked.
    await page.goto(`${lab.url}/runs`)
    await page.getByRole('link', { name: writer.id }).waitFor()
    assert.equal(await key.count(), 0)
    writer.close('finished')
  },
)
