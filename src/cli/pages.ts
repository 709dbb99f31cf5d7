/**
 * Where the lab's built pages are: in the package they came along; in a checkout they are built when they are missing or
 * older than their sources, which takes about a second.
 */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { failure } from '../errors.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** What the pages are made of, from the root of the checkout. */
const sources = ['web', 'src/lab', 'src/runs', 'src/cli/format.ts', 'src/errors.ts', 'package-lock.json']

/** Folder of the built pages. `note` hears when they have to be built. */
export async function builtPages(note: (text: string) => void): Promise<string> {
  const folder = join(root, 'dist', 'web')
  const built = modified(join(folder, 'index.html'))
  const isCheckout = existsSync(join(root, 'web', 'vite.config.ts'))
  if (!isCheckout && built > 0) return folder
  if (isCheckout && built > Math.max(...sources.map((source) => newest(join(root, source))))) return folder
  note('building the pages…')
  try {
    const { build } = await import('vite')
    await build({ configFile: join(root, 'web', 'vite.config.ts') })
  } catch (error) {
    throw failure({
      where: folder,
      got: `no pages: ${(error as Error).message.split('\n')[0]}`,
      expected: 'pages that can be built',
      fix: 'run npm ci, or use anneal up --terminal, which needs none',
    })
  }
  return folder
}

const modified = (path: string): number => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0

function newest(path: string): number {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return modified(path)
  const files = readdirSync(path, { recursive: true, encoding: 'utf8' })
  return Math.max(0, ...files.map((file) => modified(join(path, file))))
}
