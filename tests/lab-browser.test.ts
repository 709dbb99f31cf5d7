/**
 * The lab as a person uses it, in headless Chromium over a real server and real training of a tiny model: a page that
 * grows without a reload, samples, a fork that is stopped, killed training that the page notices, a server that comes
 * back. No page may meet a script error, a refusal of the Content-Security-Policy or a request to another host.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Browser, Page } from 'playwright-core'
import { openLab } from '../src/cli/lab.ts'
import { lockHolder, readRun } from '../src/runs/index.ts'
import type { HttpServer } from '../src/serve/index.ts'
import { findChromium, noBrowser, openBrowser } from './browser.ts'
import { startDemo, writeSteps } from './demo-runs.ts'
import { anneal } from './launch.ts'

const chromium = findChromium()
const options = chromium === undefined ? { skip: noBrowser } : {}
const scratch = mkdtempSync(join(tmpdir(), 'anneal-browser-'))
const runsDir = join(scratch, 'runs')
const tiny = [
  'batch=4',
  'model.context=16',
  'model.layers=1',
  'model.width=32',
  'sample.tokens=12',
  'sample.every=100',
  'save.every=50',
  'save.keep=9',
  'eval.every=0',
]
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
  rmSync(scratch, { recursive: true, force: true })
})

/** A page that fails the test on any script error or refusal of the policy. */
async function open(path: string): Promise<{ readonly page: Page; readonly problems: readonly string[] }> {
  const page = await browser.newPage()
  page.setDefaultTimeout(15_000)
  const problems: string[] = []
  page.on('pageerror', (error) => problems.push(error.message))
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()))
  page.on('request', (request) => {
    if (!request.url().startsWith(lab.url)) problems.push(`loads ${request.url()}`)
  })
  await page.goto(lab.url + path)
  return { page, problems }
}

/** Waits for an expression to hold; asked from outside, since the policy allows no text as code inside. */
async function until(page: Page, expression: string): Promise<void> {
  for (let i = 0; i < 300; i++) {
    if (await page.evaluate(expression)) return
    await page.waitForTimeout(50)
  }
  assert.fail(`never held: ${expression}`)
}

/** Steps as the page shows them: "12 / 150". */
const shownStep = async (page: Page): Promise<number> =>
  Number.parseInt((await page.locator('main .progress .number').first().textContent()) ?? '', 10)

test('a run that another process writes grows on the page without a reload', options, async () => {
  const writer = startDemo(runsDir, { seed: 3 })
  writeSteps(writer, { from: 1, to: 40, final: 1.5, seed: 1 })
  writer.flush()
  const { page, problems } = await open(`/runs/${writer.id}`)
  await page.locator('canvas').first().waitFor()
  assert.equal(await shownStep(page), 40)
  await page.evaluate('globalThis.sameDocument = true')
  const before = await page.getByRole('img', { name: /^Chart of loss/ }).getAttribute('aria-label')
  writeSteps(writer, { from: 41, to: 90, final: 1.5, seed: 1 })
  writer.sample({ step: 90, prompt: 'ROMEO:', text: ' <b>new words</b>' })
  await page.getByText('<b>new words</b>').waitFor()
  await page.getByText('90 / 1465').waitFor()
  const label = await page.getByRole('img', { name: /^Chart of loss/ }).getAttribute('aria-label')
  assert.match(label ?? '', /now [\d.]+ at 90/)
  assert.notEqual(label, before)
  assert.equal(await page.evaluate('globalThis.sameDocument'), true)
  writer.close('finished')
  await page.locator('main .status.finished').waitFor()
  assert.deepEqual(problems, [])
  await page.close()
})

test(
  'training started in the form draws its curve, writes a sample, stops, and its fork too',
  options,
  async () => {
    const { page, problems } = await open('/new')
    for (const word of [...tiny, 'steps=100000']) {
      const [key = '', value = ''] = word.split('=')
      await page.getByPlaceholder('Find a setting').fill(key)
      await page.locator(`[id="setting-${key}"]`).fill(value)
    }
    await page.getByRole('button', { name: 'Start training' }).click({ timeout: 40_000 })
    await page.locator('main .status.running').waitFor({ timeout: 40_000 })
    await page.locator('main .written').waitFor({ timeout: 30_000 })
    const first = await shownStep(page)
    const shown = "Number.parseInt(document.querySelector('main .progress .number')?.textContent ?? '', 10)"
    await until(page, `${shown} > ${first}`)
    const parent = decodeURIComponent(new URL(page.url()).pathname.split('/')[2]!)
    await page.getByRole('button', { name: 'Stop' }).click()
    await page.locator('main .status.interrupted').waitFor()
    assert.equal(readRun(runsDir, parent).status, 'interrupted')

    const saved = readRun(runsDir, parent).checkpoints.findLast(({ present }) => present)!.step
    await page
      .getByRole('button', { name: `Fork from step ${saved}`, exact: true })
      .first()
      .click()
    await page.getByRole('dialog').getByRole('textbox').fill('optim.lr=0.01\nsteps=900000')
    await page.getByRole('dialog').getByRole('button', { name: 'Fork' }).click()
    await page.waitForURL((url) => /\/runs\/./.test(url.pathname) && !url.pathname.includes(parent))
    await page.getByText('forked from').waitFor()
    const fork = decodeURIComponent(new URL(page.url()).pathname.split('/')[2]!)
    assert.deepEqual(readRun(runsDir, fork).meta.parent, { run: parent, step: saved })
    assert.equal((readRun(runsDir, fork).config['optim'] as { lr: number }).lr, 0.01)

    // Killed, it writes nothing about its end: the page finds out and offers to go on.
    await page.locator('main .status.running').waitFor()
    process.kill(lockHolder(join(runsDir, fork))!, 'SIGKILL')
    await page.locator('main .status.interrupted').waitFor({ timeout: 5000 })
    await page.getByRole('button', { name: 'Resume' }).click()
    await page.locator('main .status.running').waitFor({ timeout: 30_000 })
    await page.getByRole('button', { name: 'Stop' }).click()
    await page.locator('main .status.interrupted').waitFor()
    assert.equal(readRun(runsDir, fork).segments.length, 2)
    assert.deepEqual(problems, [])
    await page.close()
  },
)

test(
  'the playground answers, two models side by side, and says how likely each token was',
  options,
  async () => {
    const { page, problems } = await open('/playground')
    await page.getByLabel('Beside it').waitFor()
    const models = await page.locator('select').first().locator('option').allTextContents()
    assert.equal(models.length, 2, 'the run that was trained and its fork')
    await page.getByLabel('Beside it').selectOption(models[1]!)
    await page.getByLabel('Most tokens').fill('8')
    await page.getByLabel('Seed').fill('7')
    const answers = async (): Promise<string[]> => {
      await page.getByRole('button', { name: 'Write' }).click()
      await page.locator('.answers section[aria-busy=false]').nth(1).waitFor({ timeout: 40_000 })
      await until(page, "document.querySelectorAll('.answers [aria-busy=true]').length === 0")
      return page.locator('.written').allTextContents()
    }
    const first = await answers()
    for (const text of first) assert.equal(text.length, 'ROMEO:'.length + 8, text)
    await page.getByLabel('Token probabilities').check()
    assert.deepEqual(await answers(), first, 'the same seed, with probabilities too')
    await page.locator('.written').first().press('ArrowRight')
    await page.locator('.alternatives b').first().waitFor()
    assert.match(await page.locator('.alternatives').first().innerText(), /\d %.*\d %/s)
    assert.deepEqual(problems, [])
    // A conversation of any length is more than sixteen tokens.
    await page.getByRole('button', { name: 'Chat' }).click()
    await page.getByRole('button', { name: 'Send' }).click()
    await page.locator('.answers .problem').first().waitFor()
    assert.match(await page.locator('.answers .problem').first().innerText(), /context/)
    await page.close()
  },
)

test('the page says it is stale when the server goes, and lives again when it is back', options, async () => {
  const { page } = await open('/runs')
  await page
    .getByRole('status')
    .getByText('live')
    .or(page.getByText('live', { exact: true }))
    .first()
    .waitFor()
  const port = Number(new URL(lab.url).port)
  await lab.close()
  await page.getByText(/stale for \d+ s/).waitFor()
  lab = await openLab({ runsDir, host: '127.0.0.1', port, note: () => undefined })
  await page.getByText('live', { exact: true }).waitFor()
  const late = startDemo(runsDir)
  late.close('finished')
  await page.getByText(late.id).waitFor()
  rmSync(late.dir, { recursive: true })
  await page.getByText(late.id).waitFor({ state: 'detached' })
  await page.close()
})

test('the search finds what anneal runs finds, and both print the same figures', options, async () => {
  const { page } = await open('/runs?query=' + encodeURIComponent('optim.lr=0.01'))
  await page.locator('tbody tr').first().waitFor()
  await until(page, "document.querySelectorAll('tbody tr').length === 1")
  const [row] = anneal('runs', 'optim.lr=0.01', '--runs', runsDir).out.trim().split('\n').slice(1)
  const [id, status, step, loss] = row!.split(/ {2,}/)
  const text = await page.locator('tbody tr').innerText()
  for (const figure of [id, status, step, loss]) assert.ok(text.includes(figure!), `${figure} in ${text}`)
  await page.getByRole('searchbox').fill('los<2')
  await page.getByText('did you mean loss?').waitFor()
  await page.close()
})
