/**
 * The lab's HTTP API over a folder of runs, as a Hono app: what runs there are, one run with its curves, what happens to
 * them live, and what one can do. `pages.ts` serves the page that uses it, `serve/http.ts` guards the door, and the
 * OpenAI routes lie beside it under /v1. docs/lab.md lists the routes.
 */
import { Hono } from 'hono'
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { listIndexedRuns } from '../runs/index-db.ts'
import { isRunFolder, searchRuns } from '../runs/index.ts'
import { actionRoutes } from './actions.ts'
import { Curves } from './curves.ts'
import { describe } from './describe.ts'
import { encodeColumns } from './encode.ts'
import { encodeCurves } from './encode-curves.ts'
import { exportHtml } from './export.ts'
import { followList, followRun } from './follow.ts'
import { logFile } from './jobs.ts'
import { explain, json, NotFound, noSuchRun } from './json.ts'
import type { LabOptions } from './options.ts'
import { drawing, overview, readView } from './overview.ts'
import type { RunReply, RunsReply } from './wire.ts'

export type { LabOptions, LabRecipe } from './options.ts'

export interface Lab {
  readonly routes: Hono
  /** Ends the streams, which would go on for ever: call it when the server begins to close. */
  close(): void
}

/** The end of a log is shown. */
const logBytes = 256 << 10
/** Runs in one file. */
const mostExported = 10

/** The routes under /api. */
export function labRoutes(options: LabOptions): Lab {
  const { runsDir, recipes, self, pollMs = 100 } = options
  const closing = new AbortController()
  const following = { root: runsDir, pollMs, signal: closing.signal }
  const curves = new Curves(runsDir)
  const api = new Hono()
  const existing = (id: string): string => {
    if (!isRunFolder(runsDir, id)) throw noSuchRun(id)
    return id
  }
  const describeRun = (id: string): RunReply => describe(join(runsDir, id), id, curves.read(id), self)
  api.get('/runs', (c) => {
    const { runs, skipped } = listIndexedRuns(runsDir)
    const found = searchRuns(runs, c.req.query('query') ?? '')
    const limit = Number(c.req.query('limit') ?? 0)
    const shown = limit > 0 ? found.slice(0, limit) : found
    return json({ runs: shown, total: found.length, skipped } satisfies RunsReply)
  })
  api.get('/events', (c) => followList(c, following))
  api.get('/runs/:id', (c) => json(describeRun(existing(c.req.param('id')))))
  api.get('/runs/:id/series', (c) => {
    const { columns, cursor } = curves.read(existing(c.req.param('id')))
    const thinned = c.req.query('thin') === '1' ? overview(columns) : undefined
    return binary(thinned ? encodeColumns(thinned, cursor, columns) : encodeColumns(columns, cursor))
  })
  api.get('/runs/:id/curve', (c) => {
    const { columns } = curves.read(existing(c.req.param('id')))
    return binary(encodeCurves(drawing(columns, readView(c.req.query()))))
  })
  api.get('/runs/:id/events', (c) => followRun(c, existing(c.req.param('id')), following))
  api.get('/runs/:id/log', (c) => c.text(endOf(join(runsDir, existing(c.req.param('id')), logFile))))
  api.get('/runs/:id/profile', (c) => {
    const path = join(runsDir, existing(c.req.param('id')), 'profile.json')
    return json(readProfile(path))
  })
  api.get('/export', (c) => {
    const ids = (c.req.query('runs') ?? '').split(',').filter(Boolean).slice(0, mostExported).map(existing)
    if (ids.length === 0) throw noSuchRun('')
    const runs = ids.map((id) => {
      const { columns, cursor } = curves.read(id)
      return { reply: describeRun(id), columns: encodeColumns(columns, cursor) }
    })
    return c.body(exportHtml(options.pages, runs), 200, {
      'content-type': 'text/html; charset=utf-8',
      // Saved, never shown here: its script is inline.
      'content-disposition': 'attachment; filename="anneal.html"',
    })
  })
  api.get('/recipes', () => json({ recipes, self, runsDir }))
  api.route('/', actionRoutes(options))
  api.all('*', (c) => {
    throw new NotFound(
      {
        where: c.req.path.slice(0, 200),
        got: 'a route that does not exist',
        expected: 'one of docs/lab.md',
        fix: 'check the path',
      },
      2,
    )
  })
  const routes = new Hono()
  routes.route('/api', api)
  routes.onError((error) => explain(error))
  return { routes, close: () => closing.abort() }
}

const binary = (bytes: Uint8Array<ArrayBuffer>): Response =>
  new Response(bytes, {
    headers: { 'content-type': 'application/octet-stream', 'cache-control': 'no-store' },
  })

/** The last part of a text file; nothing when there is none. */
function endOf(path: string): string {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return ''
  }
  try {
    const { size } = fstatSync(fd)
    const bytes = Buffer.alloc(Math.min(size, logBytes))
    const got = readSync(fd, bytes, 0, bytes.length, size - bytes.length)
    return bytes.toString('utf8', 0, got)
  } catch {
    return ''
  } finally {
    closeSync(fd)
  }
}

/** The kernels of a profile without its events, which only a trace viewer shows; null without one. */
function readProfile(path: string): object | null {
  try {
    const { peak, profile } = JSON.parse(readFileSync(path, 'utf8')) as {
      readonly peak: object
      readonly profile: { readonly lastRun: unknown }
    }
    const { lastRun: _, ...rest } = profile
    return { peak, profile: rest }
  } catch {
    return null
  }
}
