/**
 * Headless Chromium for the tests of the page, and for pictures of it. The browser is whatever is on the PATH or named by
 * ANNEAL_CHROMIUM: none is downloaded, and tests say so plainly where there is none.
 */
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { chromium } from 'playwright-core'
import type { Browser } from 'playwright-core'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

/** Path of a Chromium, or undefined. */
export function findChromium(): string | undefined {
  const given = process.env['ANNEAL_CHROMIUM']
  if (given !== undefined && existsSync(given)) return given
  const folders = (process.env['PATH'] ?? '').split(delimiter)
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path))
}

export const noBrowser = 'no Chromium on the PATH; install one, or name it with ANNEAL_CHROMIUM'

export const openBrowser = (executablePath: string): Promise<Browser> =>
  chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })
