/** All routes of the OpenAI-compatible API, for a server of its own or inside of another's. */
import { Hono } from 'hono'
import type { Engines } from './engines.ts'
import { describeError, errorResponse } from './error.ts'
import { Metrics } from './metrics.ts'
import { chatCompletions } from './routes/chat-completions.ts'
import { completions } from './routes/completions.ts'
import { embeddings } from './routes/embeddings.ts'
import { models } from './routes/models.ts'
import { responses } from './routes/responses.ts'

export interface RouteOptions {
  /** Hears of errors that are ours; what the client is told says nothing about them. */
  readonly report?: (error: unknown) => void
}

/** `/v1/…`, `/healthz` and `/metrics`. */
export function openaiRoutes(engines: Engines, { report }: RouteOptions = {}): Hono {
  const app = new Hono()
  app.route('/v1/models', models(engines))
  app.route('/v1/chat/completions', chatCompletions(engines))
  app.route('/v1/completions', completions(engines))
  app.route('/v1/responses', responses(engines))
  app.route('/v1/embeddings', embeddings(engines))
  app.get('/healthz', (c) =>
    c.json({
      status: 'ok',
      models: engines.open().map(({ served, version, scheduler: { running, waiting } }) => ({
        id: served.name,
        version,
        running,
        waiting,
      })),
    }),
  )
  app.get('/metrics', (c) =>
    c.text(Metrics.text(engines.open()), 200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }),
  )
  app.notFound((c) =>
    errorResponse(404, { message: `there is no ${c.req.method} ${c.req.path} here`, code: 'unknown_url' }),
  )
  app.onError((error, c) => {
    const { status, details } = describeError(error)
    if (status >= 500 && status !== 503 && !c.req.raw.signal.aborted) report?.(error)
    return errorResponse(status, details)
  })
  return app
}
