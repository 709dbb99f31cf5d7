/**
 * The lab's API in-process: what it lists, streams and does, over real run folders. And abuse: ids that are paths,
 * folders full of garbage, markup as names, wishes that are no settings. Whatever comes, it answers and stays alive.
 */
import assert from 'node:assert/strict'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { annotate, createRun, readRun, reopenRun } from '../runs/index.ts'
import type { RunWriter } from '../runs/index.ts'
import { decodeColumns, encodeColumns } from './encode.ts'
import { exportHtml } from './export.ts'
import { labRoutes } from './index.ts'
import { settingWords } from './jobs.ts'
import { pageRoutes } from './pages.ts'
import type { RunReply, RunsReply } from './wire.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-lab-'))
const runsDir = join(scratch, 'runs')
const pages = join(scratch, 'pages')
mkdirSync(join(pages, 'assets'), { recursive: true })
writeFileSync(join(pages, 'index.html'), '<!doctype html>page')
writeFileSync(join(pages, 'assets', 'a-1.js'), 'script("</script>")')
writeFileSync(join(pages, 'assets', 'a-1.css'), 'style')
writeFileSync(join(scratch, 'secret.txt'), 'secret')
const launcher = fileURLToPath(new URL('../../bin/anneal.js', import.meta.url))
const lab = labRoutes({
  runsDir,
  pages,
  recipes: [{ name: 'language', schema: {}, defaults: {} }],
  command: [process.execPath, launcher],
  self: 'anneal',
  pollMs: 10,
})
after(() => {
  lab.close()
  rmSync(scratch, { recursive: true, force: true })
})

const get = async (path: string): Promise<Response> => lab.routes.request(path)
const send = async (method: string, path: string, body: unknown = {}): Promise<Response> =>
  lab.routes.request(path, {
    method,
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })

function newRun(config: object = { steps: 10, model: { width: 64 } }): RunWriter {
  return createRun(runsDir, { recipe: 'language', config, plan: { parameters: 5 }, machine: {} })
}

function step(writer: RunWriter, number: number, loss = 4 / number): void {
  writer.point({ step: number, tokens: number * 10, seconds: number, flops: number * 100, metrics: { loss } })
}

/** Reads events of a stream until `enough` says so. */
async function events(
  path: string,
  enough: (
    seen: readonly { readonly event: string; readonly data: string; readonly id: string }[],
  ) => boolean,
  headers: Record<string, string> = {},
): Promise<{ readonly event: string; readonly data: string; readonly id: string }[]> {
  const response = await lab.routes.request(path, { headers })
  assert.equal(response.headers.get('content-type'), 'text/event-stream')
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  const seen: { event: string; data: string; id: string }[] = []
  let rest = ''
  while (!enough(seen)) {
    const { done, value } = await reader.read()
    if (done) break
    const blocks = (rest + value).split('\n\n')
    rest = blocks.pop()!
    for (const block of blocks) {
      const field = (name: string): string => new RegExp(`^${name}: ?(.*)$`, 'm').exec(block)?.[1] ?? ''
      seen.push({ event: field('event'), data: field('data'), id: field('id') })
    }
  }
  await reader.cancel()
  return seen
}

test('lists, searches and describes runs; the columns are the points', async () => {
  const writer = newRun()
  for (let i = 1; i <= 5; i++) step(writer, i, i === 3 ? Number.NaN : 4 / i)
  writer.sample({ step: 5, prompt: 'A', text: 'b' })
  writer.close('finished')
  const list = (await (await get('/api/runs')).json()) as RunsReply
  assert.deepEqual(
    list.runs.map(({ id, step: at }) => [id, at]),
    [[writer.id, 5]],
  )
  const found = (await (
    await get(`/api/runs?query=${encodeURIComponent('model.width<64')}`)
  ).json()) as RunsReply
  assert.deepEqual(found.runs, [])
  const wrong = await get('/api/runs?query=los%3C2')
  assert.equal(wrong.status, 400)
  assert.match(JSON.stringify(await wrong.json()), /did you mean loss\?/)
  const run = (await (await get(`/api/runs/${writer.id}`)).json()) as RunReply
  assert.deepEqual([run.status, run.samples.length], ['finished', 1])
  assert.equal(run.commandLine, 'anneal train language steps=10 model.width=64')

  const { columns, cursor } = decodeColumns(await (await get(`/api/runs/${writer.id}/series`)).arrayBuffer())
  const loss = columns.metrics.get('loss')!
  assert.deepEqual([...loss.values.values], [4, 2, Number.NaN, 1, 0.8])
  assert.deepEqual([...columns.axes.flops.values], [100, 200, 300, 400, 500])
  assert.deepEqual(decodeColumns(encodeColumns(columns, cursor).buffer).columns, columns)
})

test('a stream sends only what is new, through a resume, and goes on from the last event id', async () => {
  const writer = newRun()
  for (let i = 1; i <= 4; i++) step(writer, i)
  writer.flush()
  const { cursor } = decodeColumns(await (await get(`/api/runs/${writer.id}/series`)).arrayBuffer())
  const path = `/api/runs/${writer.id}/events?cursor=${cursor}`
  step(writer, 5)
  writer.flush()
  const first = await events(path, (seen) => seen.some(({ event }) => event === 'status'))
  const lines = first
    .filter(({ event }) => event === 'lines')
    .map(({ data }) => JSON.parse(data) as { step: number }[])
  assert.deepEqual(
    lines.map((part) => part.map((line) => line.step)),
    [[5]],
  )
  assert.match(first.find(({ event }) => event === 'status')!.data, /"running"/)
  writer.close('interrupted')
  const again = reopenRun(runsDir, writer.id, { fromStep: 2 })
  step(again, 3, 9)
  again.close('finished')
  const second = await events(path, (seen) => seen.some(({ data }) => data.includes('"finished","reason"')), {
    'last-event-id': first.findLast(({ id }) => id !== '')!.id,
  })
  const kinds = second
    .filter(({ event }) => event === 'lines')
    .flatMap(({ data }) => (JSON.parse(data) as { kind: string }[]).map(({ kind }) => kind))
  assert.deepEqual(kinds, ['status', 'segment', 'status', 'point', 'status'])
  const folded = decodeColumns(await (await get(`/api/runs/${writer.id}/series`)).arrayBuffer()).columns
  assert.deepEqual([...folded.metrics.get('loss')!.values.values], [4, 2, 9])
})

test('a run that is replaced or removed while it is watched says so; a copied one shows up in the list', async () => {
  const writer = newRun()
  step(writer, 1)
  writer.close('finished')
  const seen = await events('/api/events', (all) => {
    if (all.length === 1 && !existsSync(join(runsDir, 'copied')))
      cpSync(writer.dir, join(runsDir, 'copied'), { recursive: true })
    return all.some(({ data }) => data.includes('"id":"copied"'))
  })
  const last = JSON.parse(seen.at(-1)!.data) as { changed: { id: string }[] }
  assert.deepEqual(
    last.changed.map(({ id }) => id),
    ['copied'],
    'only what changed',
  )
  const { cursor } = decodeColumns(await (await get('/api/runs/copied/series')).arrayBuffer())
  const other = newRun()
  step(other, 1, 7)
  other.close('finished')
  rmSync(join(runsDir, 'copied', 'segments'), { recursive: true })
  cpSync(join(other.dir, 'segments'), join(runsDir, 'copied', 'segments'), { recursive: true })
  const replaced = await events(`/api/runs/copied/events?cursor=${cursor}`, (all) => all.length > 0)
  assert.deepEqual([replaced[0]?.event, replaced[0]?.data], ['reset', '{"gone":false}'])
  const gone = await events('/api/runs/copied/events', (all) => {
    rmSync(join(runsDir, 'copied'), { recursive: true, force: true })
    return all.some(({ event }) => event === 'reset')
  })
  assert.equal(gone.at(-1)?.data, '{"gone":true}')
})

test('notes are kept and searched; deleting asks for the id; what is written is left alone', async () => {
  const writer = newRun()
  const path = `/api/runs/${writer.id}`
  const note = '<script>alert(1)</script>'
  assert.equal((await send('PUT', `${path}/notes`, { tags: [' a ', 'a', 'b'], note })).status, 200)
  assert.deepEqual(readRun(runsDir, writer.id).annotations, { tags: ['a', 'b'], note, archived: false })
  for (const wrong of [
    { tags: 'a' },
    { tags: [1] },
    { note: 5 },
    { archived: 'yes' },
    { tags: ['x'.repeat(61)] },
  ])
    assert.equal((await send('PUT', `${path}/notes`, wrong)).status, 400)
  assert.equal((await send('DELETE', path)).status, 400)
  assert.equal((await send('DELETE', `${path}?confirm=${writer.id}`)).status, 409, 'being written')
  writer.close('finished')
  await send('PUT', `${path}/notes`, { archived: true })
  const listed = async (query: string): Promise<boolean> => {
    const { runs } = (await (await get(`/api/runs?query=${query}`)).json()) as RunsReply
    return runs.some(({ id }) => id === writer.id)
  }
  assert.deepEqual([await listed(''), await listed('archived')], [false, true])
  assert.equal((await send('POST', `${path}/stop`)).status, 409)
  assert.equal((await send('DELETE', `${path}?confirm=${writer.id}`)).status, 200)
  assert.equal(existsSync(writer.dir), false)
})

test('abuse: ids and files that are paths lead nowhere', async () => {
  const tricks = [
    '..',
    '.',
    '%2e%2e',
    '..%2f..%2fsecret.txt',
    '%2fetc%2fpasswd',
    '..%5c..',
    '.lab',
    'a%00b',
    '%ff',
    'x'.repeat(5000),
  ]
  for (const trick of tricks) {
    for (const rest of ['', '/series', '/events', '/log', '/profile']) {
      const response = await get(`/api/runs/${trick}${rest}`)
      assert.ok([400, 404, 200].includes(response.status), `${trick}${rest}: ${response.status}`)
      if (response.status === 200) {
        assert.match(trick, /^\.|%2e/i, 'normalised to another route')
        // The list, or its stream, which has no end.
        await response.body?.cancel()
      } else assert.doesNotMatch(await response.text(), /^secret|root:/m)
    }
    const removed = await send('DELETE', `/api/runs/${trick}?confirm=${trick}`)
    assert.notEqual(removed.status, 200)
  }
  const files = pageRoutes(pages)
  for (const path of [
    '/../secret.txt',
    '/assets/../../secret.txt',
    '/assets/%2e%2e/%2e%2e/secret.txt',
    '/secret.txt',
    '//etc/passwd',
    '/assets/..%2f..%2fsecret.txt',
  ])
    assert.doesNotMatch(await (await files.request(path)).text(), /secret|root:/)
  assert.equal((await files.request('/runs/abc')).status, 200)
  assert.equal((await files.request('/assets/none.js')).status, 404)
  assert.equal((await files.request('/v1/models')).status, 404)
  assert.equal(readFileSync(join(scratch, 'secret.txt'), 'utf8'), 'secret')
})

test('abuse: bodies that are no wishes, settings that are no settings', async () => {
  for (const body of ['', '{', '[]', 'null', '"x"', '{"recipe":"rm -rf"}', '{"recipe":{}}'])
    assert.equal((await send('POST', '/api/runs', body)).status, 400, body)
  assert.equal((await send('POST', '/api/runs', { recipe: '__proto__' })).status, 400)
  const unfit: unknown[] = [
    [],
    'x',
    5,
    null,
    { '--runs': '/etc' },
    { 'a b': '1' },
    { steps: 5 },
    { steps: 'a\0b' },
    { '': 'x' },
  ]
  for (const settings of unfit)
    assert.throws(() => settingWords(settings), /settings: got/, JSON.stringify(settings))
  assert.deepEqual(settingWords({ data: '; rm -rf /', 'model.size': 'nano' }), [
    'data=; rm -rf /',
    'model.size=nano',
  ])
  assert.equal((await get('/api/nothing')).status, 404)
  assert.equal((await get('/api/jobs/1')).status, 404)
})

test('abuse: a folder full of garbage is passed over, and the rest is served', async () => {
  const good = newRun()
  step(good, 1)
  good.close('finished')
  const bad = newRun()
  const garbage = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256))
  bad.close('finished')
  writeFileSync(join(bad.dir, 'segments', '0002.jsonl'), garbage)
  appendFileSync(
    join(bad.dir, 'segments', '0001.jsonl'),
    `${'{"kind":"point"}\n'.repeat(500)}${'['.repeat(100_000)}\n`,
  )
  writeFileSync(join(bad.dir, 'notes.json'), '{"tags":[1,{}],"note":[]}')
  writeFileSync(join(bad.dir, 'profile.json'), garbage)
  mkdirSync(join(bad.dir, 'log.txt'))
  const names = ['<img src=x onerror=alert(1)>', "'; drop table run; --", 'ünïcödé 🚀', '-rf']
  for (const name of names) {
    mkdirSync(join(runsDir, name))
    writeFileSync(
      join(runsDir, name, 'run.json'),
      name === '-rf' ? readFileSync(join(good.dir, 'run.json')) : garbage,
    )
  }
  const list = (await (await get('/api/runs')).json()) as RunsReply
  assert.ok(list.runs.some(({ id }) => id === good.id) && list.runs.some(({ id }) => id === '-rf'))
  assert.deepEqual(list.skipped.map(({ name }) => name).toSorted(), names.slice(0, 3).toSorted())
  const reply = (await (await get(`/api/runs/${bad.id}`)).json()) as RunReply
  assert.ok(reply.notes.length <= 51)
  for (const rest of ['/series', '/log', '/profile'])
    assert.equal((await get(`/api/runs/${bad.id}${rest}`)).status, 200)
  for (const name of names.slice(0, 3)) {
    const response = await get(`/api/runs/${encodeURIComponent(name)}`)
    assert.equal(response.status, 409)
    assert.match(response.headers.get('content-type') ?? '', /^application\/json/)
  }
  assert.equal((await get(`/api/runs/${good.id}`)).status, 200)
})

test('a run as one HTML file: nothing of its text can end a tag', async () => {
  const writer = newRun({ steps: 1, sample: { prompt: '</script><b>' } })
  writer.sample({ step: 1, prompt: '</script><img src=x>', text: '<!--' })
  writer.close('finished')
  annotate(writer.dir, { note: '</style></script>' })
  const html = await (await get(`/api/export?runs=${writer.id}`)).text()
  assert.equal(html.match(/<\/script/g)?.length, 2, 'its own two only')
  assert.equal(html.match(/<img|<b>|<!--/), null)
  const data = /id="anneal-export">(.*)<\/script>/.exec(html)![1]!
  const { runs } = JSON.parse(data) as { runs: { reply: RunReply }[] }
  assert.equal(runs[0]!.reply.samples[0]!.prompt, '</script><img src=x>')
  assert.match(exportHtml(pages, []), /script\("<\\\/script>"\)/)
  assert.equal((await get('/api/export?runs=../x')).status, 404)
})
