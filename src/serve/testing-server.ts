/** For tests, a process of its own: a server that says hello, prints its port, and ends with its input. */
import { Hono } from 'hono'
import { serveHttp } from './http.ts'

const server = await serveHttp(new Hono().get('/hello', (c) => c.text('hello')))
console.log(JSON.stringify({ port: server.port }))
process.stdin.on('end', () => void server.close()).resume()
