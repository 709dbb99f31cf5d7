/**
 * The page's budgets, measured in headless Chromium over a lab in a process of its own and over folders that the run
 * store's writer makes: the list of a thousand runs, a run of a million points, how late a new point shows, how large
 * the script is, and what open pages cost the training beside them. Prints, asserts nothing. `npm run bench web`.
 *
 * Subtle: what pages cost is the difference of two medians of step times from one run, with pages open and closed by
 * turns, so that a machine that becomes slower meanwhile slows both.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'
import type { Browser } from 'playwright-core'
import { failure } from '../src/errors.ts'
import { formatTable } from '../src/cli/format.ts'
import { listRuns, readRun } from '../src/runs/index.ts'
import { findChromium, noBrowser, openBrowser } from '../tests/browser.ts'
import { machineLine } from './facts.ts'
import { busyCores, disturbances } from './quiet.ts'
import { record } from './record.ts'
import { median } from './slices.ts'
import { noteSteps, notedSteps, pan, timeToPaint } from './web-page.ts'
import { lossAt, openRun, writeLongRun, writeManyRuns, writePoint } from './web-runs.ts'

const launcher = fileURLToPath(new URL('../bin/anneal.js', import.meta.url))
const assets = fileURLToPath(new URL('../dist/web/assets/', import.meta.url))

interface Budget {
  readonly of: 'at most' | 'at least'
  readonly value: number
}

interface Row {
  readonly what: string
  readonly value: number
  readonly unit: string
  /** Undefined: told for comparison only. */
  readonly budget?: Budget
}

const atMost = (value: number): Budget => ({ of: 'at most', value })
const atLeast = (value: number): Budget => ({ of: 'at least', value })

type Measure = (browser: Browser, scratch: string) => Promise<readonly Row[]>

const measures: Readonly<Record<string, Measure>> = { list, long, live, script, train }

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({ args: [...args], options: { only: { type: 'string' } } })
  const chosen = values.only?.split(',')
  const chromium = findChromium()
  if (chromium === undefined)
    throw failure({ where: 'bench web', got: 'no browser', expected: 'Chromium', fix: noBrowser })
  const othersCores = await busyCores()
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-web-'))
  const rows: Row[] = []
  try {
    for (const [name, measure] of Object.entries(measures)) {
      if (chosen && !chosen.includes(name)) continue
      const browser = await openBrowser(chromium)
      try {
        rows.push(...(await measure(browser, join(scratch, name))))
      } finally {
        await browser.close()
      }
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  const problems = disturbances(othersCores)
  if (problems.length === 0) record({ bench: 'web', othersCores, rows })
  console.log([await machineLine(), ...problems].join('\n'))
  console.log(formatTable([['', 'measured', 'budget', ''], ...rows.map(printRow)]))
}

function printRow({ what, value, unit, budget }: Row): string[] {
  const kept = budget && (budget.of === 'at most' ? value <= budget.value : value >= budget.value)
  const limit = budget ? `${budget.of} ${budget.value} ${unit}` : ''
  return [what, `${value.toPrecision(3)} ${unit}`, limit, budget ? (kept ? 'kept' : 'MISSED') : '']
}

interface LabProcess {
  readonly url: string
  close(): Promise<void>
}

/** A lab that trains nothing, as a person starts it. */
async function startLab(runs: string): Promise<LabProcess> {
  const child = spawn(process.execPath, [launcher, 'up', '--idle', '--port', '0', '--runs', runs], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  let text = ''
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.on('data', (bytes: Buffer) => {
      text += bytes.toString()
      const found = /http:\S+/.exec(text)
      if (found) resolve(found[0])
    })
    void ended.then(() => reject(new Error(`the lab ended: ${text}`)))
  })
  return {
    url,
    async close() {
      child.kill('SIGTERM')
      await ended
    },
  }
}

/** Opens the list three times: the index is made, is there, is there. */
async function list(browser: Browser, runs: string): Promise<Row[]> {
  writeManyRuns(runs, 1000)
  const lab = await startLab(runs)
  const times: number[] = []
  for (let i = 0; i < 4; i++) {
    const { page, ms } = await timeToPaint(browser, `${lab.url}/runs`, { selector: 'tbody tr', count: 200 })
    times.push(ms)
    await page.close()
  }
  await lab.close()
  const [first, ...later] = times
  return [
    { what: '1,000 runs, 10,000 metrics: list, its index being made', value: first!, unit: 'ms' },
    { what: '1,000 runs, 10,000 metrics: list', value: median(later), unit: 'ms', budget: atMost(1000) },
  ]
}

/** A run nobody has looked at yet, then by a server that has just started, then again. */
async function long(browser: Browser, runs: string): Promise<Row[]> {
  const id = writeLongRun(runs, 1_000_000)
  const rows: Row[] = []
  // Not while a chart still waits for its smoothed line.
  const curve = { selector: '.plot:not([aria-busy]) canvas', count: 1 }
  for (const what of ['never looked at', 'a server just started']) {
    const lab = await startLab(runs)
    const { page, ms } = await timeToPaint(browser, `${lab.url}/runs/${id}`, curve)
    rows.push({ what: `10^6 points: shown, ${what}`, value: ms, unit: 'ms', budget: atMost(1000) })
    await page.close()
    if (what === 'a server just started') {
      const again = await timeToPaint(browser, `${lab.url}/runs/${id}`, curve)
      rows.push({ what: '10^6 points: shown again', value: again.ms, unit: 'ms', budget: atMost(1000) })
      const { framesPerSecond, slowestMs } = await pan(again.page, 120)
      rows.push({ what: '10^6 points: pan', value: framesPerSecond, unit: 'frames/s', budget: atLeast(30) })
      rows.push({ what: '10^6 points: slowest frame', value: slowestMs, unit: 'ms' })
      await again.page.close()
    }
    await lab.close()
  }
  return rows
}

/** From the moment a trainer has a point to the frame that shows it, at steps of 40 ms and of half a second. */
async function live(browser: Browser, runs: string): Promise<Row[]> {
  const lab = await startLab(runs)
  const rows: Row[] = []
  for (const [pause, points] of [[40, 100] as const, [530, 12] as const]) {
    const writer = openRun(runs)
    for (let step = 1; step <= 1000; step++) writePoint(writer, step, { loss: lossAt(step, 2) })
    writer.flush()
    const curve = { selector: '.plot canvas', count: 1 }
    const { page } = await timeToPaint(browser, `${lab.url}/runs/${writer.id}`, curve)
    await noteSteps(page)
    await sleep(500)
    const written = new Map<number, number>()
    for (let step = 1001; step <= 1000 + points; step++) {
      written.set(step, Date.now())
      writePoint(writer, step, { loss: lossAt(step, 2) })
      await sleep(pause)
    }
    await sleep(1000)
    const shown = await notedSteps(page)
    const late = [...written].map(([step, at]) => {
      const frame = shown.find(([reached]) => reached >= step)
      return frame === undefined ? Infinity : frame[1] - at
    })
    writer.close('finished')
    await page.close()
    const what = `a new point on screen, steps of ${pause} ms`
    rows.push({ what: `${what}: median`, value: median(late), unit: 'ms' })
    rows.push({
      what: `${what}: latest of ${points}`,
      value: Math.max(...late),
      unit: 'ms',
      budget: atMost(500),
    })
  }
  await lab.close()
  return rows
}

/** What the browser must load of ours before anything shows. */
async function script(): Promise<Row[]> {
  const bytes = readdirSync(assets)
    .filter((file) => file.endsWith('.js'))
    .reduce((sum, file) => sum + gzipSync(readFileSync(join(assets, file))).length, 0)
  return [{ what: 'script, gzipped', value: bytes / 1000, unit: 'kB', budget: atMost(150) }]
}

const turns = 4
const turnMs = 4000
/** After pages open or close, before steps count. */
const settleMs = 1500

/** The default recipe's steps with two pages on it, and without. */
async function train(browser: Browser, runs: string): Promise<Row[]> {
  const lab = await startLab(runs)
  const quiet = ['eval.every=0', 'sample.every=0', 'save.every=0', 'steps=1000000', '--runs', runs]
  const trainer = spawn(process.execPath, [launcher, 'train', 'language', ...quiet], { stdio: 'ignore' })
  const ended = new Promise<void>((resolve) => trainer.once('exit', () => resolve()))
  let id: string | undefined
  while (id === undefined) {
    await sleep(200)
    id = listRuns(runs).runs.find(({ step }) => step > 20)?.id
  }
  const reached = (): number => readRun(runs, id).points.at(-1)!.step
  const spans: { readonly open: boolean; readonly from: number; readonly to: number }[] = []
  for (let turn = 0; turn < turns * 2; turn++) {
    const open = turn % 2 === 1
    const pages = open ? [await browser.newPage(), await browser.newPage()] : []
    for (const page of pages) await page.goto(`${lab.url}/runs/${id}`)
    await sleep(settleMs)
    const from = reached()
    await sleep(turnMs)
    spans.push({ open, from, to: reached() })
    for (const page of pages) await page.close()
  }
  trainer.kill('SIGINT')
  await Promise.all([ended, lab.close()])
  const { points } = readRun(runs, id)
  const seconds = new Map(points.map((point) => [point.step, point.seconds]))
  const steps = (open: boolean): number[] =>
    spans
      .filter((span) => span.open === open)
      .flatMap(({ from, to }) =>
        Array.from({ length: to - from }, (_, i) => seconds.get(from + i + 1)! - seconds.get(from + i)!),
      )
  const [closed, open] = [steps(false), steps(true)]
  const mean = (all: readonly number[]): number => all.reduce((sum, one) => sum + one, 0) / all.length
  const slower = (of: (all: readonly number[]) => number): number => (of(open) / of(closed) - 1) * 100
  const what = 'two pages open: a step is slower'
  return [
    { what: `${what}, median of ${open.length}`, value: slower(median), unit: '%', budget: atMost(2) },
    { what: `${what}, mean`, value: slower(mean), unit: '%' },
    { what: `a step without pages, median of ${closed.length}`, value: median(closed) * 1000, unit: 'ms' },
  ]
}
