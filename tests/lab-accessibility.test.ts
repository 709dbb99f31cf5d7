/**
 * Every page of the lab against axe-core, light and dark, and what can be done without a pointer. Runs in headless Chromium.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import type { Browser, Page } from 'playwright-core'
import { openLab } from '../src/cli/lab.ts'
import type { HttpServer } from '../src/serve/index.ts'
import { findChromium, noBrowser, openBrowser } from './browser.ts'
import { writeDemoRuns } from './demo-runs.ts'

const chromium = findChromium()
const options = chromium === undefined ? { skip: noBrowser } : {}
const runsDir = mkdtempSync(join(tmpdir(), 'anneal-access-'))
const ids = writeDemoRuns(runsDir)
const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js')
let lab: HttpServer
let browser: Browser

before(async () => {
  if (chromium === undefined) return
  lab = await openLab({ runsDir, host: '127.0.0.1', port: 0, note: () => undefined })
  browser = await openBrowser(chromium)
})
after(async () => {
  await browser?.close()
  await lab?.close()
  rmSync(runsDir, { recursive: true, force: true })
})

/** Serious and critical findings, as `rule: element`. */
async function findings(page: Page): Promise<string[]> {
  await page.addScriptTag({ path: axe })
  return page.evaluate(`axe.run().then(({ violations }) => violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => id + ': ' + nodes[0].html))`)
}

const places = [
  '/runs',
  `/runs/${ids[2]}`,
  `/compare?runs=${ids.slice(0, 2).join(',')}`,
  '/new',
  '/playground',
  '/machine',
]

for (const colorScheme of ['light', 'dark'] as const) {
  test(`axe-core finds nothing serious on any page: ${colorScheme}`, options, async () => {
    // The policy would keep axe out as it keeps everything else out.
    const context = await browser.newContext({ colorScheme, bypassCSP: true, reducedMotion: 'reduce' })
    for (const path of places) {
      const page = await context.newPage()
      await page.goto(lab.url + path)
      await page.locator('main h1').waitFor()
      await page.locator('main .loading').first().waitFor({ state: 'detached', timeout: 60_000 })
      assert.deepEqual(await findings(page), [], path)
      if (path === '/runs') {
        await page.evaluate("document.querySelector('main').append(document.createElement('button'))")
        assert.match((await findings(page)).join(), /button-name/, 'a nameless button would be found')
      }
      await page.close()
    }
    await context.close()
  })
}

test('a comparison saved as one file opens without a server', options, async () => {
  const file = join(runsDir, 'saved.html')
  const chosen = ids.slice(1, 3)
  writeFileSync(file, await (await fetch(`${lab.url}/api/export?runs=${chosen.join(',')}`)).text())
  const page = await browser.newPage()
  const problems: string[] = []
  page.on('pageerror', (error) => problems.push(error.message))
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()))
  await page.goto(pathToFileURL(file).href)
  await page.getByText('Compare 2 runs').waitFor()
  await page.locator('canvas').first().waitFor()
  await page.getByText('optim.name').waitFor()
  assert.deepEqual(problems, [])
  await page.close()
})

test('a run is found, zoomed, tagged and deleted from the keyboard alone', options, async () => {
  const page = await browser.newPage()
  page.setDefaultTimeout(10_000)
  const press = (key: string): Promise<void> => page.keyboard.press(key)
  const reach = async (what: string): Promise<void> => {
    for (let i = 0; i < 120; i++) {
      await press('Tab')
      const focused = await page.evaluate<string>(
        `(document.activeElement.getAttribute('aria-label') ?? '') + '|' + document.activeElement.textContent.trim()`,
      )
      if (focused.includes(what)) return
    }
    assert.fail(`Tab never reaches '${what}'`)
  }
  await page.goto(`${lab.url}/runs`)
  await page.getByText(ids[0]!).waitFor()
  await reach(`|${ids[0]}`)
  await press('Enter')
  await page.locator('canvas').first().waitFor()
  await reach('Chart of loss')
  const pixels = (): Promise<string> => page.evaluate("document.querySelector('canvas').toDataURL()")
  const whole = await pixels()
  await press('+')
  await page.waitForTimeout(200)
  assert.notEqual(await pixels(), whole, 'zoomed in')
  await press('Escape')
  await page.waitForTimeout(200)
  assert.equal(await pixels(), whole, 'everything again')
  await reach('Add a tag')
  await page.keyboard.type('by keyboard')
  await press('Enter')
  await page.getByRole('button', { name: 'Remove tag by keyboard' }).waitFor()
  await page.evaluate("document.querySelector('main h1').focus()")
  await reach('|More')
  await press('Enter')
  await reach('|Delete')
  await press('Enter')
  await page.getByRole('dialog').waitFor()
  await press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  await page.evaluate("document.querySelector('main h1').focus()")
  await reach('|Delete')
  await press('Enter')
  await page.getByRole('dialog').waitFor()
  await reach('|Delete')
  await press('Enter')
  await page.waitForURL('**/runs')
  await page.getByText(`${ids[0]} was deleted`).waitFor()
  await page.close()
})
