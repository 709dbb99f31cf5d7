/** Loading text: what is taken, what is skipped with a note, and what is refused with one clear line. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { UserError } from '../errors.ts'
import { loadText } from './text.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-text-'))
after(() => rmSync(root, { recursive: true }))

const userError = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && !error.message.includes('\n') && pattern.test(error.message)

/** A new folder holding `files`. */
function folderOf(files: Readonly<Record<string, string | Uint8Array>>): string {
  const folder = mkdtempSync(join(root, 'case-'))
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
  return folder
}

test('one file is one document; a byte order mark is dropped, line ends are kept', async () => {
  const folder = folderOf({ 'a.txt': '\uFEFFé\r\n' })
  assert.deepEqual(await loadText(join(folder, 'a.txt')), {
    documents: [{ name: 'a.txt', text: 'é\r\n' }],
    skipped: [],
    bytes: 4,
  })
})

test('a folder gives its text in name order, skipping hidden entries silently and the rest with a reason', async () => {
  const folder = folderOf({
    'b.txt': 'B',
    'a/z.md': 'Z',
    'a/y.jsonl': '{"text": "one"}\n\n{"content": "two", "id": 2}\n',
    'C.txt': 'C',
    '.hidden/x.txt': 'no',
    '.env': 'no',
    'node_modules/m/readme.md': 'no',
    'picture.png': Uint8Array.of(0x89, 0x50, 0, 1),
    'old.txt': Uint8Array.of(0x63, 0xe9, 0x20),
    'empty.txt': '',
  })
  symlinkSync(join(folder, 'b.txt'), join(folder, 'link.txt'))
  symlinkSync(folder, join(folder, 'loop'))
  symlinkSync(join(folder, 'gone'), join(folder, 'dangling'))
  const { documents, skipped, bytes } = await loadText(folder)
  assert.deepEqual(
    documents.map(({ name, text }) => `${name}=${text}`),
    ['C.txt=C', 'a/y.jsonl:1=one', 'a/y.jsonl:3=two', 'a/z.md=Z', 'b.txt=B', 'link.txt=B'],
  )
  assert.equal(bytes, 10)
  assert.deepEqual(
    skipped.map(({ name }) => name),
    ['dangling', 'empty.txt', 'loop', 'old.txt', 'picture.png'],
  )
  assert.match(skipped[3]!.reason, /not UTF-8/)
  assert.match(skipped[4]!.reason, /binary file \(a zero byte at 2\)/)
})

test('the same file named directly is an error', async () => {
  const folder = folderOf({
    'picture.png': Uint8Array.of(0x89, 0x50, 0, 1),
    'wide.txt': Uint8Array.of(0xff, 0xfe, 0x61, 0),
    'empty.txt': '',
    'blank.jsonl': '\n\n',
  })
  await assert.rejects(loadText(join(folder, 'picture.png')), userError(/picture\.png: got a binary file/))
  await assert.rejects(loadText(join(folder, 'wide.txt')), userError(/UTF-16.*iconv -f UTF-16/))
  await assert.rejects(loadText(join(folder, 'empty.txt')), userError(/got an empty file/))
  await assert.rejects(loadText(join(folder, 'blank.jsonl')), userError(/got an empty file/))
})

test('a bad JSON line is named by file and line, also within a folder', async () => {
  const cases: readonly (readonly [string | Uint8Array, RegExp])[] = [
    ['{"text": "a"}\n{"text": \r}\n', /data\.jsonl:2: got no valid JSON/],
    ['[1]\n', /data\.jsonl:1: got no JSON object/],
    ['{"id": 1, "body": "x"}', /fields id, body/],
    ['{}', /fields \(none\)/],
    ['{"text": 3}', /a text that is no string/],
    [Uint8Array.of(0x22, 0xff, 0x22), /bytes that are not UTF-8/],
  ]
  for (const [content, pattern] of cases) {
    const folder = folderOf({ 'data.jsonl': content, 'other.txt': 'fine' })
    await assert.rejects(loadText(join(folder, 'data.jsonl')), userError(pattern))
    await assert.rejects(loadText(folder), userError(pattern))
  }
})

test('a missing path suggests its sibling, an empty folder says what to do', async () => {
  const folder = folderOf({ 'notes.txt': 'x' })
  await assert.rejects(
    loadText(join(folder, 'note.txt')),
    userError(/no such file.*did you mean notes\.txt\?/),
  )
  await assert.rejects(loadText(folderOf({})), userError(/got an empty folder.*put \.txt/))
  const binary = folderOf({ 'a.bin': Uint8Array.of(0) })
  await assert.rejects(loadText(binary), userError(/without text \(1 skipped, a\.bin: a binary file/))
})

test('a pipe is neither file nor folder', { skip: process.platform === 'win32' }, async () => {
  const folder = folderOf({ 'a.txt': 'x' })
  execFileSync('mkfifo', [join(folder, 'pipe')])
  await assert.rejects(loadText(join(folder, 'pipe')), userError(/neither a file nor a folder/))
  assert.deepEqual((await loadText(folder)).skipped, [{ name: 'pipe', reason: 'not a regular file' }])
})
