/**
 * `npm run screenshots [folder]`: pictures of every page of the lab in light, dark and at the width of a phone, over a
 * folder of demonstration runs. For looking at, by people.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Page } from 'playwright-core'
import { openLab } from '../src/cli/lab.ts'
import { findChromium, noBrowser, openBrowser } from './browser.ts'
import { startDemo, writeDemoRuns, writeSteps } from './demo-runs.ts'

const looks = [
  { name: 'light', colorScheme: 'light', viewport: { width: 1280, height: 900 } },
  { name: 'dark', colorScheme: 'dark', viewport: { width: 1280, height: 900 } },
  { name: 'phone', colorScheme: 'light', viewport: { width: 390, height: 844 } },
] as const

async function main(folder: string, only: readonly string[]): Promise<void> {
  const chromium = findChromium()
  if (chromium === undefined) throw new Error(noBrowser)
  mkdirSync(folder, { recursive: true })
  const runsDir = mkdtempSync(join(tmpdir(), 'anneal-pictures-'))
  const ids = writeDemoRuns(runsDir)
  const live = startDemo(runsDir, { seed: 7 })
  writeSteps(live, { from: 1, to: 620, final: 1.5, seed: 7 })
  live.flush()
  const emptyDir = join(runsDir, '.empty')
  const note = (text: string): void => void process.stderr.write(`${text}\n`)
  const [lab, empty] = [
    await openLab({ runsDir, host: '127.0.0.1', port: 0, note }),
    await openLab({ runsDir: emptyDir, host: '127.0.0.1', port: 0, note }),
  ]
  const browser = await openBrowser(chromium)
  const chosen = ids.slice(0, 3).join(',')
  const pages: Readonly<
    Record<string, { readonly url: string; readonly ready?: (page: Page) => Promise<unknown> }>
  > = {
    runs: { url: `${lab.url}/runs`, ready: (page) => page.getByText(live.id).waitFor() },
    'runs-empty': { url: `${empty.url}/runs`, ready: (page) => page.getByText('No runs yet').waitFor() },
    run: { url: `${lab.url}/runs/${live.id}`, ready: (page) => page.locator('canvas').nth(2).waitFor() },
    'run-failed': {
      url: `${lab.url}/runs/${ids[3]}`,
      ready: (page) => page.locator('canvas').nth(2).waitFor(),
    },
    compare: {
      url: `${lab.url}/compare?runs=${chosen}`,
      ready: (page) => page.locator('canvas').nth(2).waitFor(),
    },
    new: {
      url: `${lab.url}/new`,
      ready: (page) => page.locator('.plan dd').first().waitFor({ timeout: 60_000 }),
    },
    playground: { url: `${lab.url}/playground` },
    machine: {
      url: `${lab.url}/machine`,
      ready: (page) => page.locator('.facts dd').first().waitFor({ timeout: 60_000 }),
    },
  }
  try {
    for (const { name: look, ...settings } of looks) {
      const context = await browser.newContext({ ...settings, reducedMotion: 'reduce' })
      for (const [name, { url, ready }] of Object.entries(pages)) {
        if (only.length > 0 && !only.includes(name)) continue
        const page = await context.newPage()
        page.on('pageerror', (error) => note(`${name}: ${error.message}`))
        page.on('console', (message) => message.type() === 'error' && note(`${name}: ${message.text()}`))
        await page.goto(url)
        await ready?.(page).catch((error: Error) => note(`${name} ${look}: ${error.message.split('\n')[0]}`))
        await page.waitForTimeout(400)
        await page.screenshot({ path: join(folder, `${name}-${look}.png`), fullPage: true })
        await page.close()
      }
      await context.close()
    }
  } finally {
    await browser.close()
    await Promise.all([lab.close(), empty.close()])
    live.close('finished')
    rmSync(runsDir, { recursive: true, force: true })
  }
}

const [folder = 'screenshots', ...only] = process.argv.slice(2)
await main(resolve(folder), only)
process.exit(0)
