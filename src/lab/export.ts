/**
 * Runs as one HTML file that needs no server: the built page with its script and style inside, and the runs' data beside
 * them. For sending to somebody. Whatever is text of a run is JSON in which no tag can end.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { printJson } from './json.ts'
import type { RunReply } from './wire.ts'

export interface ExportedRun {
  readonly reply: RunReply
  /** As `encodeColumns` makes them. */
  readonly columns: Uint8Array
}

/** The document. `pages` is the folder of the built pages. */
export function exportHtml(pages: string, runs: readonly ExportedRun[]): string {
  const assets = join(pages, 'assets')
  const textOf = (ending: string): string =>
    readdirSync(assets)
      .filter((name) => name.endsWith(ending))
      .map((name) => readFileSync(join(assets, name), 'utf8'))
      .join('\n')
  const data = printJson({
    saved: new Date().toISOString(),
    runs: runs.map(({ reply, columns }) => ({ reply, columns: Buffer.from(columns).toString('base64') })),
  }).replaceAll('<', '\\u003c')
  const title = runs.map(({ reply }) => reply.summary.id).join(', ')
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<title>${escapeText(title)} · Anneal</title>
<style>${textOf('.css').replaceAll('</style', '<\\/style')}</style>
</head>
<body>
<div id="app"></div>
<script type="application/json" id="anneal-export">${data}</script>
<script type="module">${textOf('.js').replaceAll('</script', '<\\/script')}</script>
</body>
</html>
`
}

const escapeText = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
