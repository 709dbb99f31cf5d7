/**
 * The files of the page: what Vite built from `web/`, read into memory once and served by exact name, so that no path of
 * a request ever reaches the file system. Every other address that is not one of the API gets `index.html`: the page
 * knows its own addresses.
 */
import { Hono } from 'hono'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { gzipSync } from 'node:zlib'

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
  '.woff2': 'font/woff2',
}

interface File {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly zipped: Uint8Array<ArrayBuffer>
  readonly type: string
  readonly tag: string
}

/** Routes for the built pages in `folder`. */
export function pageRoutes(folder: string): Hono {
  const files = new Map<string, File>()
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const type = types[extname(name)]
    if (type === undefined) continue
    const bytes = new Uint8Array(readFileSync(join(folder, name)))
    const tag = `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 20)}"`
    files.set(`/${name.replaceAll('\\', '/')}`, { bytes, zipped: new Uint8Array(gzipSync(bytes)), type, tag })
  }
  const app = new Hono()
  app.get('*', (c) => {
    const { path } = c.req
    // Addresses of programs, to which a page would be no answer.
    const isAsset = /^\/(assets|api|v1)\//.test(path) || types[extname(path)] !== undefined
    const file = files.get(path) ?? (isAsset ? undefined : files.get('/index.html'))
    if (file === undefined) return c.text('not found\n', 404)
    const headers: Record<string, string> = {
      'content-type': file.type,
      etag: file.tag,
      // Names of assets change with their content.
      'cache-control': path.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache',
      vary: 'accept-encoding',
    }
    if (c.req.header('if-none-match') === file.tag) return c.body(null, 304, headers)
    const zips = /\bgzip\b/.test(c.req.header('accept-encoding') ?? '')
    return c.body(zips ? file.zipped : file.bytes, 200, {
      ...headers,
      ...(zips ? { 'content-encoding': 'gzip' } : {}),
    })
  })
  return app
}
