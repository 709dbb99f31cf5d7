/** The HTTP ground against what may come in: other sites, other names, missing keys, large, slow and many requests. */
import assert from 'node:assert/strict'
import { Hono } from 'hono'
import { request, type IncomingHttpHeaders } from 'node:http'
import { connect, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { serveHttp, type HttpOptions, type HttpServer } from './http.ts'

const open: HttpServer[] = []
after(() => Promise.all(open.map((server) => server.close())))

async function start(options: HttpOptions = {}): Promise<HttpServer> {
  const app = new Hono()
  app.onError(() => new Response(null, { status: 500 }))
  app.get('/hello', (c) => c.text('hello'))
  app.get('/healthz', (c) => c.text('ok'))
  app.post('/length', async (c) => c.text(`${(await c.req.arrayBuffer()).byteLength}`))
  app.get('/slow', async (c) => {
    await new Promise((resolve) => setTimeout(resolve, 300))
    return c.text('done')
  })
  const server = await serveHttp(app, { drainMs: 2_000, ...options })
  open.push(server)
  return server
}

let server: HttpServer
before(async () => {
  server = await start({ origins: ['http://localhost:3000'], maxBodyBytes: 1_000 })
})

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

/** `fetch` would not let us choose Host and Origin. */
function ask(
  { port }: HttpServer,
  path: string,
  headers: Readonly<Record<string, string>> = {},
  method = 'GET',
  body?: string,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (piece: string) => (text += piece))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

const codeOf = ({ text }: Answer): unknown => (JSON.parse(text) as { error: { code: unknown } }).error.code

test('answers carry a strict policy and are what the app said', async () => {
  const { status, headers, text } = await ask(server, '/hello')
  assert.deepEqual([status, text], [200, 'hello'])
  assert.match(String(headers['content-security-policy']), /default-src 'none'; script-src 'self'/)
  assert.equal(headers['x-content-type-options'], 'nosniff')
  assert.equal((await ask(server, '/nowhere')).status, 404)
})

test('a name that was made to resolve to this machine is refused', async () => {
  const answer = await ask(server, '/hello', { host: 'evil.example' })
  assert.deepEqual([answer.status, codeOf(answer)], [403, 'unknown_host'])
  for (const host of ['localhost', `LOCALHOST:${server.port}`, '127.0.0.1', `[::1]:${server.port}`])
    assert.equal((await ask(server, '/hello', { host })).status, 200, host)
})

test('pages of other sites are refused, links and listed origins are not', async () => {
  const from = (headers: Readonly<Record<string, string>>): Promise<Answer> => ask(server, '/hello', headers)
  assert.equal((await from({ origin: 'https://evil.example' })).status, 403)
  assert.equal((await from({ origin: 'null' })).status, 403)
  assert.equal((await from({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' })).status, 403)
  assert.equal((await from({ 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'cors' })).status, 403)
  assert.equal((await from({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' })).status, 200)
  assert.equal((await from({ 'sec-fetch-site': 'same-origin' })).status, 200)
  assert.equal((await from({ origin: server.url, host: `127.0.0.1:${server.port}` })).status, 200)
  const listed = await from({ origin: 'http://localhost:3000' })
  assert.equal(listed.headers['access-control-allow-origin'], 'http://localhost:3000')
  const preflight = await ask(server, '/length', { origin: 'http://localhost:3000' }, 'OPTIONS')
  assert.deepEqual([preflight.status, preflight.headers['access-control-allow-methods']?.length], [204, 29])
})

test('other addresses need a key, and with a key everything but health asks for it', async () => {
  await assert.rejects(start({ host: '0.0.0.0' }), /got no API key/)
  const keyed = await start({ host: '0.0.0.0', apiKey: 'secret' })
  const refused = await ask(keyed, '/hello')
  assert.deepEqual([refused.status, codeOf(refused)], [401, 'invalid_api_key'])
  assert.equal((await ask(keyed, '/hello', { authorization: 'Bearer secret!' })).status, 401)
  assert.equal((await ask(keyed, '/hello', { authorization: 'Bearer secret' })).text, 'hello')
  assert.equal((await ask(keyed, '/healthz')).text, 'ok')
})

test('bodies beyond the limit are refused, announced or not', async () => {
  assert.equal((await ask(server, '/length', {}, 'POST', 'x'.repeat(1_000))).text, '1000')
  const announced = await ask(server, '/length', { 'content-length': '1001' }, 'POST', 'x'.repeat(1_001))
  assert.deepEqual([announced.status, codeOf(announced)], [413, 'request_too_large'])
  const chunked = await ask(server, '/length', { 'transfer-encoding': 'chunked' }, 'POST', 'x'.repeat(5_000))
  assert.equal(chunked.status, 413)
})

test('a body of 100 MB is not taken in', async () => {
  const socket = connect(server.port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.write('POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n')
  const chunk = Buffer.alloc(65_536)
  let answer = ''
  socket.on('data', (data) => (answer += data.toString()))
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()))
  for (let sent = 0; sent < 100_000_000 && !socket.destroyed; sent += chunk.length) {
    if (!socket.write(chunk)) {
      await Promise.race([closed, new Promise<void>((resolve) => socket.once('drain', resolve))])
    }
  }
  await closed
  assert.match(answer, /^HTTP\/1.1 413 /)
  assert.ok(socket.bytesWritten < 50_000_000, `took ${socket.bytesWritten} bytes`)
  assert.equal((await ask(server, '/hello')).text, 'hello')
})

/** Opens connections that say `text` and nothing more. */
async function silent({ port }: HttpServer, count: number, text = ''): Promise<Socket[]> {
  return Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<Socket>((resolve, reject) => {
          const socket = connect(port, '127.0.0.1', () => {
            socket.on('error', () => undefined)
            if (text !== '') socket.write(text)
            resolve(socket)
          })
          socket.once('error', reject)
        }),
    ),
  )
}

const isClosed = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    if (socket.destroyed) resolve()
    socket.on('close', () => resolve())
    socket.resume()
  })

test('slow headers and silent connections end', async () => {
  const quick = await start({ headersTimeoutMs: 200, requestTimeoutMs: 400 })
  const slow = await silent(quick, 5, 'GET /hello HTTP/1.1\r\nHost: localhost\r\nX-Slow: ')
  const drip = setInterval(() => slow.forEach((socket) => socket.write('a')), 50)
  const body = await silent(
    quick,
    2,
    'POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1',
  )
  const idle = await silent(quick, 5)
  assert.equal((await ask(quick, '/hello')).text, 'hello')
  await Promise.all([...slow, ...body, ...idle].map(isClosed))
  clearInterval(drip)
})

test('more connections than allowed: the oldest idle ones go, a request still gets through', async () => {
  const small = await start({ maxConnections: 20 })
  const working = ask(small, '/slow')
  const idle = await silent(small, 60)
  assert.equal((await ask(small, '/hello')).text, 'hello')
  assert.equal((await working).text, 'done')
  await Promise.all(idle.slice(0, 40).map(isClosed))
  for (const socket of idle) socket.destroy()
})

test('close waits for answers under way and takes no more', async () => {
  let told = false
  const closing = await start({ onClosing: () => (told = true) })
  const working = ask(closing, '/slow')
  const [idle] = await silent(closing, 1)
  await new Promise((resolve) => setTimeout(resolve, 50))
  await closing.close()
  assert.deepEqual([(await working).text, told], ['done', true])
  await isClosed(idle!)
  await assert.rejects(ask(closing, '/hello'), /ECONNREFUSED/)
})

test('a port in use is said in one line', async () => {
  await assert.rejects(start({ port: server.port }), /got a port that is in use/)
})
