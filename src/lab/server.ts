/**
 * The lab as a server: the page, the API over the runs and whatever other routes its starter brings, behind one guarded
 * door (`serve/http.ts`).
 */
import { Hono } from 'hono'
import { serveHttp } from '../serve/index.ts'
import type { HttpServer } from '../serve/index.ts'
import { labRoutes } from './index.ts'
import type { LabOptions } from './options.ts'
import { pageRoutes } from './pages.ts'

export interface LabServerOptions extends LabOptions {
  /** Routes of others beside the lab's: those under /v1. */
  readonly others?: readonly Hono[]
  readonly host: string
  readonly port: number
  readonly apiKey: string | undefined
}

/** Dropped data files are the largest thing anybody sends. */
const mostBodyBytes = 64 << 20

/**
 * What opens without the API key: the page and its files, which hold nothing of the runs and ask for the key themselves.
 * A list of what is open, so that a route somebody adds is closed.
 */
const openPath =
  /^\/($|healthz$|index\.html$|icon\.svg$|assets\/|(runs|compare|new|playground|machine)(\/|$))/

/** Opens the lab's server. Close it when done. */
export async function serveLab(options: LabServerOptions): Promise<HttpServer> {
  const { pages, host, port, apiKey } = options
  const lab = labRoutes(options)
  const app = new Hono()
  app.get('/healthz', (c) => c.text('ok\n'))
  app.route('/', lab.routes)
  for (const routes of options.others ?? []) app.route('/', routes)
  app.route('/', pageRoutes(pages))
  return serveHttp(app, {
    host,
    port,
    apiKey,
    open: (path) => openPath.test(path),
    maxBodyBytes: mostBodyBytes,
    drainMs: 2000,
    onClosing: () => lab.close(),
  })
}
