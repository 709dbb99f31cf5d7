/**
 * The ground every server of ours stands on: Node's HTTP server around a Hono app, closed to what a program on a
 * person's own machine must fear. Web pages of other sites (they can send requests to loopback) and names that suddenly
 * resolve to it (DNS rebinding) are told apart by Host, Origin and Sec-Fetch-Site; an address that others can reach
 * needs an API key. Bodies, headers and connections are bounded in size, time and number.
 *
 * Subtle: when there are too many connections, the oldest idle one is closed rather than the newest refused, so that
 * somebody who opens thousands and says nothing keeps nobody out. Too many is also what would use up the files this
 * process may open, since then the newest would be refused by the operating system.
 */
import { getRequestListener, type HttpBindings } from '@hono/node-server'
import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { createHash, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { badUsage, failure } from '../errors.ts'
import { describeError, errorResponse } from './error.ts'
import { openFileLimit } from './open-files.ts'

export interface HttpOptions {
  /** Default 127.0.0.1: this machine only. Any other than a loopback address needs `apiKey`. */
  readonly host?: string
  /** Default 0: any free port. */
  readonly port?: number
  /** Asked for as `Authorization: Bearer …` on every path but those of `open`. */
  readonly apiKey?: string | undefined
  /** Paths anybody may read without the key; default only `/healthz`. */
  readonly open?: (path: string) => boolean
  /** Origins of other pages that may call, e.g. `http://localhost:3000`; they get CORS headers. */
  readonly origins?: readonly string[]
  /** Names besides the address by which this server is called, e.g. that of a proxy in front. */
  readonly names?: readonly string[]
  readonly maxBodyBytes?: number
  /** Default 1,024; never more than three quarters of the files this process may open. */
  readonly maxConnections?: number
  /** From the connection, or the request before, to the end of the headers. */
  readonly headersTimeoutMs?: number
  /** To the end of the body. */
  readonly requestTimeoutMs?: number
  /** Silence after which a connection is closed. Long streams send something more often than that. */
  readonly silenceTimeoutMs?: number
  /** How long `close` waits for answers under way. */
  readonly drainMs?: number
  /** Called when `close` begins: for ending streams that would go on for ever. */
  readonly onClosing?: () => void
}

export interface HttpServer {
  readonly url: string
  readonly host: string
  readonly port: number
  /** Takes no more requests, waits for the answers under way, then closes. */
  close(): Promise<void>
}

const megabyte = 1 << 20

/** Nothing but our own scripts, styles, pictures and requests; never inside another page. */
const securityHeaders: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}

/**
 * Serves an app until `close`.
 * @throws UserError for an address others can reach without an API key, and for one that cannot be listened on.
 */
export async function serveHttp(app: Hono, options: HttpOptions = {}): Promise<HttpServer> {
  const { host = '127.0.0.1', port = 0, drainMs = 10_000, silenceTimeoutMs = 120_000 } = options
  const { headersTimeoutMs = 10_000, requestTimeoutMs = 60_000 } = options
  if (!isLoopback(host) && !options.apiKey) {
    throw badUsage({
      where: `listening on ${host}`,
      got: 'no API key',
      expected: 'one, since others can reach this address',
      fix: 'set ANNEAL_API_KEY, or leave the host out to serve this machine only',
    })
  }
  const server = createServer({
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: 5_000,
    connectionsCheckingInterval: Math.min(1_000, headersTimeoutMs),
  })
  server.timeout = silenceTimeoutMs
  const connections = watchConnections(
    server,
    Math.min(options.maxConnections ?? 1_024, Math.floor(openFileLimit() * 0.75)),
  )
  const outer = guarded(app, options, host)
  const answer = getRequestListener((request, env) => outer.fetch(request, env as HttpBindings), {
    overrideGlobalObjects: false,
  })
  server.on('request', (incoming, outgoing) => void answer(incoming, outgoing))
  await listen(server, host, port)
  const address = server.address() as AddressInfo
  let closed: Promise<void> | undefined
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`,
    host,
    port: address.port,
    close: () => (closed ??= shutDown(server, connections, drainMs, options.onClosing)),
  }
}

/** Loopback addresses, as they can be written in a Host header or an option. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || host === '[::1]' || /^127(\.\d{1,3}){3}$/.test(host)

/** The app behind everything that can be decided from the headers, and a limit on the body. */
function guarded(app: Hono, options: HttpOptions, host: string): Hono<{ Bindings: HttpBindings }> {
  const { apiKey, origins = [], open = (path) => path === '/healthz' } = options
  const names = new Set([host, ...(options.names ?? [])].map((name) => name.toLowerCase()))
  const maxBytes = options.maxBodyBytes ?? 8 * megabyte
  const outer = new Hono<{ Bindings: HttpBindings }>()
  outer.use(async (c, next) => {
    const header = (name: string): string | undefined => c.req.header(name)
    const origin = header('origin')
    const named = hostName(header('host') ?? '')
    const refusal =
      isLoopback(host) && !isLoopback(named) && !names.has(named)
        ? errorResponse(403, { message: `this server is not called '${named}'`, code: 'unknown_host' })
        : isForeign(c.req.raw, origins)
          ? errorResponse(403, {
              message: `requests from pages of ${origin ?? 'other sites'} are not taken`,
              code: 'cross_site',
            })
          : undefined
    const preflight = !refusal && c.req.method === 'OPTIONS' && origin !== undefined
    const response =
      refusal ??
      (preflight
        ? new Response(null, { status: 204 })
        : apiKey && !open(c.req.path) && !sameKey(header('authorization'), apiKey)
          ? errorResponse(401, {
              message: 'a valid API key is needed, as `Authorization: Bearer KEY`',
              code: 'invalid_api_key',
              headers: { 'www-authenticate': 'Bearer' },
            })
          : undefined)
    if (response) c.res = response
    else await next()
    for (const [name, value] of Object.entries(securityHeaders)) {
      if (!c.res.headers.has(name)) c.res.headers.set(name, value)
    }
    if (origin !== undefined && origins.includes(origin)) allowOrigin(c.res.headers, origin)
  })
  outer.use(
    bodyLimit({
      maxSize: maxBytes,
      onError: () =>
        errorResponse(413, {
          message: `the body is larger than ${maxBytes} bytes`,
          code: 'request_too_large',
          headers: { connection: 'close' },
        }),
    }),
  )
  outer.all('*', (c) => app.fetch(c.req.raw, c.env))
  outer.onError((error) => {
    const { status, details } = describeError(error)
    return errorResponse(status, details)
  })
  return outer
}

/** A page that is not ours. Opening one of our pages by a link is fine: nobody else reads the answer. */
function isForeign(request: Request, origins: readonly string[]): boolean {
  const header = (name: string): string | null => request.headers.get(name)
  const origin = header('origin')
  if (origin !== null) return !origins.includes(origin) && originHost(origin) !== header('host')
  const site = header('sec-fetch-site')
  const followsLink = request.method === 'GET' && header('sec-fetch-mode') === 'navigate'
  return (site === 'cross-site' || site === 'same-site') && !followsLink
}

/** `http://localhost:80` and `null` (a sandboxed page) included. */
const originHost = (origin: string): string | undefined =>
  URL.canParse(origin) ? new URL(origin).host : undefined

/** `Localhost:8080` -> `localhost`, `[::1]:8080` -> `[::1]`. */
const hostName = (header: string): string => header.toLowerCase().replace(/:\d+$/, '')

function allowOrigin(headers: Headers, origin: string): void {
  headers.set('access-control-allow-origin', origin)
  headers.set('access-control-allow-methods', 'GET, POST, PUT, PATCH, DELETE')
  // What the openai client sends besides: x-stainless-…
  headers.set('access-control-allow-headers', '*, authorization')
  headers.set('cross-origin-resource-policy', 'cross-origin')
  headers.append('vary', 'origin')
}

/** Compares digests, in a time that says nothing about the key. */
function sameKey(authorization: string | undefined, key: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(authorization ?? ''), digest(`Bearer ${key}`))
}

/** Keeps the number of connections within bounds. Returns how many answers each is waiting for, oldest first. */
function watchConnections(server: Server, most: number): ReadonlyMap<Socket, number> {
  const waiting = new Map<Socket, number>()
  server.on('connection', (socket: Socket) => {
    waiting.set(socket, 0)
    socket.on('close', () => waiting.delete(socket))
    if (waiting.size <= most) return
    const idle = waiting.entries().find(([, answers]) => answers === 0)
    ;(idle?.[0] ?? socket).destroy()
    waiting.delete(idle?.[0] ?? socket)
  })
  server.on('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    const count = (by: number): void => {
      const answers = waiting.get(socket)
      if (answers !== undefined) waiting.set(socket, answers + by)
    }
    count(1)
    response.on('close', () => count(-1))
  })
  return waiting
}

function listen(server: Server, hostname: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        failure({
          where: `${hostname}:${port}`,
          got: error.code === 'EADDRINUSE' ? 'a port that is in use' : error.message,
          expected: 'an address of this machine and a free port',
          fix: 'choose another with --port, or leave it out',
        }),
      )
    })
    server.listen(port, hostname, () => resolve())
  })
}

async function shutDown(
  server: Server,
  connections: ReadonlyMap<Socket, number>,
  drainMs: number,
  onClosing: (() => void) | undefined,
): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  onClosing?.()
  const sweep = setInterval(() => server.closeIdleConnections(), 50)
  // A connection that has not asked for anything yet is not idle to Node.
  for (const [socket, answers] of connections) if (answers === 0) socket.destroy()
  const deadline = setTimeout(() => server.closeAllConnections(), drainMs)
  await closed
  clearInterval(sweep)
  clearTimeout(deadline)
}
