/** Ten thousand connections that say nothing, from a process of their own: whatever the limits are, requests get through. */
import { Hono } from 'hono'
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { serveHttp, type HttpOptions, type HttpServer } from './http.ts'
import { openFileLimit } from './open-files.ts'

const fileOf = (name: string): string => fileURLToPath(new URL(`./testing-${name}.ts`, import.meta.url))

interface Helper {
  readonly child: ChildProcess
  /** The next line it prints, once it was asked for it. */
  readonly next: (ask?: boolean) => Promise<Readonly<Record<string, number>>>
  end(): Promise<void>
}

function start(command: string, args: readonly string[]): Helper {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const exit = once(child, 'exit')
  return {
    child,
    async next(ask = false) {
      if (ask) child.stdin.write('\n')
      const { value } = await lines.next()
      return JSON.parse(value as string) as Record<string, number>
    },
    async end() {
      child.stdin.end()
      await exit
    },
  }
}

const crowdAt = (port: number, count: number): Helper =>
  start(process.execPath, [fileOf('crowd'), String(port), String(count)])

const serve = (options: HttpOptions): Promise<HttpServer> =>
  // Long enough for all of them to stand at once.
  serveHttp(
    new Hono().get('/hello', (c) => c.text('hello')),
    { headersTimeoutMs: 60_000, ...options },
  )

async function hello(port: number): Promise<string> {
  return (await fetch(`http://127.0.0.1:${port}/hello`, { headers: { connection: 'close' } })).text()
}

// Both sides need a file for each; a machine that allows fewer is tried as far as it goes.
const many = Math.min(10_000, Math.floor(openFileLimit() * 0.7))

test('10,000 idle connections, all kept: requests are answered, and all of them when the crowd has gone', async () => {
  const server = await serve({ maxConnections: 1e6 })
  const crowd = crowdAt(server.port, many)
  assert.deepEqual(await crowd.next(), { opened: many, refused: 0 })
  assert.equal(await hello(server.port), 'hello')
  assert.deepEqual(await crowd.next(true), { open: many })
  await crowd.end()
  assert.equal(await hello(server.port), 'hello')
  await server.close()
})

test('10,000 idle connections, 1,024 allowed: the oldest go, requests are answered', async () => {
  const server = await serve({})
  const crowd = crowdAt(server.port, many)
  const { opened } = await crowd.next()
  assert.ok(opened! > 1_024)
  assert.equal(await hello(server.port), 'hello')
  let { open } = await crowd.next(true)
  while (open! > 1_024) ({ open } = await crowd.next(true))
  await crowd.end()
  await server.close()
})

test(
  'a limit of 200 open files, 3,000 connections: the server lives and answers',
  { skip: process.platform === 'win32' ? 'there is no such limit' : false },
  async () => {
    const limited = start('sh', ['-c', 'ulimit -n 200 && exec "$0" "$@"', process.execPath, fileOf('server')])
    const { port } = await limited.next()
    const crowd = crowdAt(port!, 3_000)
    const { opened, refused } = await crowd.next()
    assert.equal(opened! + refused!, 3_000)
    assert.equal(await hello(port!), 'hello')
    assert.equal(limited.child.exitCode, null)
    let { open } = await crowd.next(true)
    while (open! > 150) ({ open } = await crowd.next(true))
    await crowd.end()
    assert.equal(await hello(port!), 'hello')
    await limited.end()
    assert.equal(limited.child.exitCode, 0)
  },
)
