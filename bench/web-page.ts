/**
 * What a page shows, timed from inside headless Chromium: how long until something was painted, how many frames a second
 * a chart pans with, and when a step appeared. Painted means two frames later: the first draws, the second comes after
 * the picture is out.
 */
import type { Browser, Page } from 'playwright-core'

/** Runs in the page: leaves, at `paintedAt`, the milliseconds since navigation when the selector's count was painted. */
const watch = (selector: string, count: number): string => `
  globalThis.paintedAt = undefined
  const look = () => {
    if (document.querySelectorAll(${JSON.stringify(selector)}).length < ${count}) requestAnimationFrame(look)
    else requestAnimationFrame(() => requestAnimationFrame((now) => (globalThis.paintedAt = now)))
  }
  requestAnimationFrame(look)`

/** Opens an address and waits until `count` elements are painted. */
export async function timeToPaint(
  browser: Browser,
  url: string,
  { selector, count }: { readonly selector: string; readonly count: number },
): Promise<{ readonly page: Page; readonly ms: number }> {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
  await page.addInitScript(watch(selector, count))
  await page.goto(url)
  for (;;) {
    const ms = await page.evaluate<number | undefined>('globalThis.paintedAt')
    if (ms !== undefined) return { page, ms }
    await page.waitForTimeout(20)
  }
}

export interface Panned {
  readonly framesPerSecond: number
  readonly slowestMs: number
}

/** Zooms the first chart to half of its curve and pans it by a key in every frame. */
export async function pan(page: Page, frames: number): Promise<Panned> {
  const times = await page.evaluate<number[]>(`new Promise((resolve) => {
    const plot = document.querySelector('.plot')
    const press = (key) => plot.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }))
    press('+')
    const times = []
    const next = (now) => {
      times.push(now)
      if (times.length > ${frames}) return resolve(times)
      press(Math.floor(times.length / 4) % 2 === 0 ? 'ArrowRight' : 'ArrowLeft')
      requestAnimationFrame(next)
    }
    requestAnimationFrame(next)
  })`)
  const each = times.slice(1).map((time, i) => time - times[i]!)
  const total = times.at(-1)! - times[0]!
  return { framesPerSecond: (each.length / total) * 1000, slowestMs: Math.max(...each) }
}

/** Notes from now on when each step that the run's page shows was painted, as a time of day in ms. */
export async function noteSteps(page: Page): Promise<void> {
  await page.evaluate(`{
    globalThis.shown = []
    let last = -1
    const look = () => {
      const step = Number.parseInt(document.querySelector('main .progress .number')?.textContent ?? '', 10)
      if (step > last) {
        last = step
        requestAnimationFrame(() => requestAnimationFrame(() => globalThis.shown.push([step, Date.now()])))
      }
      requestAnimationFrame(look)
    }
    look()
  }`)
}

export const notedSteps = (page: Page): Promise<[step: number, at: number][]> =>
  page.evaluate<[number, number][]>('globalThis.shown')
