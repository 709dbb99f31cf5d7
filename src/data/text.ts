/**
 * Training text from what a user has: one file, a folder of files, or JSON lines. Every document is valid UTF-8 text
 * when it leaves here.
 * The subtle thing: within a folder, what is not text is skipped and reported (a notes folder holds pictures); named
 * directly, the same file is an error, because the user meant it.
 */
import { constants } from 'node:buffer'
import type { Dirent } from 'node:fs'
import { readFile, readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { UserError, failure } from '../errors.ts'
import { explainRead, jsonProblem } from './files.ts'

export interface Document {
  /** The path below the folder given, with `/`; `file.jsonl:12` for a line. */
  readonly name: string
  readonly text: string
}

export interface LoadedText {
  readonly documents: readonly Document[]
  readonly skipped: readonly { readonly name: string; readonly reason: string }[]
  /** UTF-8 bytes of all documents together. */
  readonly bytes: number
}

/**
 * Loads all text at `path`: a text file, a `.jsonl` file (field `text` or `content`), or a folder of both, recursively in
 * name order without hidden entries and node_modules. A byte order mark at the start of a file is dropped.
 *
 * @throws UserError when nothing is there, it cannot be read, holds no text, or a JSON line is bad.
 */
export async function loadText(path: string): Promise<LoadedText> {
  const info = await stat(path).catch((error: unknown) => {
    throw explainRead(error, path)
  })
  if (info.isDirectory()) return loadFolder(path)
  if (!info.isFile()) {
    throw failure({
      where: path,
      got: 'neither a file nor a folder (a device, pipe or socket)',
      expected: 'a text file or a folder of text files',
      fix: 'save the text to a file first',
    })
  }
  const documents = await loadFile(path, basename(path)).catch((error: unknown) => {
    throw explainRead(error, path)
  })
  return { documents, skipped: [], bytes: totalBytes(documents) }
}

async function loadFolder(path: string): Promise<LoadedText> {
  const documents: Document[] = []
  const skipped: { name: string; reason: string }[] = []

  async function visit(folder: string, entries: readonly Dirent[], prefix: string): Promise<void> {
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      if (entry.name.startsWith('.') || entry.name === 'node_modules') continue
      const name = prefix + entry.name
      const place = join(folder, entry.name)
      try {
        if (entry.isDirectory()) {
          await visit(place, await readdir(place, { withFileTypes: true }), `${name}/`)
        } else if (entry.isFile() || (entry.isSymbolicLink() && (await stat(place)).isFile())) {
          for (const document of await loadFile(place, name)) documents.push(document)
        } else {
          // A linked folder could lead round in a circle.
          skipped.push({ name, reason: 'not a regular file' })
        }
      } catch (error) {
        skipped.push({ name, reason: skipReason(error, place) })
      }
    }
  }

  const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
    throw explainRead(error, path)
  })
  await visit(path, entries, '')
  if (documents.length > 0) return { documents, skipped, bytes: totalBytes(documents) }
  const first = skipped[0]
  throw failure({
    where: path,
    got: first
      ? `a folder without text (${skipped.length} skipped, ${first.name}: ${first.reason})`
      : 'an empty folder',
    expected: 'at least one UTF-8 text file',
    fix: 'put .txt, .md or .jsonl files in it, or name another folder',
  })
}

/** Why a folder's entry is left out; rethrows what must not be passed over, such as a bad line of JSON. */
function skipReason(error: unknown, place: string): string {
  if (error instanceof NotText) return error.complaint.got
  const explained = explainRead(error, place)
  if (explained !== error && explained instanceof UserError) return explained.complaint.got
  throw error
}

/** A file that holds no text: an error when named, a note when met in a folder. */
class NotText extends UserError {}

async function loadFile(path: string, name: string): Promise<readonly Document[]> {
  const lines = /\.(jsonl|ndjson)$/i.test(name)
  const { size } = await stat(path)
  // Text becomes one string and JSON lines one buffer; each has a ceiling of its own in Node.
  const largest = lines ? 2 ** 31 - 1 : constants.MAX_STRING_LENGTH
  if (size > largest) {
    throw failure({
      where: path,
      got: `${(size / 1e9).toFixed(2)} GB in one file`,
      expected: `at most ${(largest / 1e9).toFixed(2)} GB`,
      fix: `split it, for example: split ${lines ? '-C' : '--line-bytes='}400M`,
    })
  }
  const bytes = await readFile(path)
  const documents = lines ? parseLines(bytes, path, name) : [{ name, text: decodeText(bytes, path) }]
  if (documents.some(({ text }) => text !== '')) return documents
  throw new NotText({ where: path, got: 'an empty file', expected: 'some text', fix: 'name another file' })
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true })

function decodeText(bytes: Uint8Array, path: string): string {
  const utf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)
  const zero = bytes.indexOf(0)
  if (!utf16 && zero < 0) {
    try {
      return strictUtf8.decode(bytes)
    } catch (error) {
      if (!(error instanceof TypeError)) throw error
    }
  }
  throw new NotText({
    where: path,
    got: utf16
      ? 'text in UTF-16'
      : zero >= 0
        ? `a binary file (a zero byte at ${zero})`
        : 'bytes that are not UTF-8 (a binary file, or an older encoding)',
    expected: 'UTF-8 text',
    fix: utf16
      ? 'convert it: iconv -f UTF-16 -t UTF-8'
      : 'convert it with iconv if it is text, or name another file',
  })
}

/** One document a line: `{"text": ...}` or `{"content": ...}`; blank lines are allowed. */
function parseLines(bytes: Uint8Array, path: string, name: string): readonly Document[] {
  const documents: Document[] = []
  let line = 0
  for (let start = 0; start < bytes.length;) {
    const newline = bytes.indexOf(10, start)
    const end = newline < 0 ? bytes.length : newline
    line++
    const text = lineText(bytes.subarray(start, end))
    if (typeof text === 'object') {
      throw failure({
        where: `${path}:${line}`,
        got: text.problem,
        expected: 'one JSON object a line with a string field "text" or "content"',
        fix: 'correct or delete the line',
      })
    }
    if (text !== undefined) documents.push({ name: `${name}:${line}`, text })
    start = end + 1
  }
  return documents
}

/** The text of one line, undefined for a blank one. */
function lineText(bytes: Uint8Array): string | undefined | { readonly problem: string } {
  let value: unknown
  try {
    const source = strictUtf8.decode(bytes).trim()
    if (source === '') return undefined
    value = JSON.parse(source)
  } catch (error) {
    return {
      problem:
        error instanceof SyntaxError ? `no valid JSON (${jsonProblem(error)})` : 'bytes that are not UTF-8',
    }
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { problem: 'no JSON object' }
  const { text, content } = value as { readonly text?: unknown; readonly content?: unknown }
  const found = text ?? content
  if (typeof found === 'string') return found.toWellFormed()
  const fields = Object.keys(value).slice(0, 5).join(', ')
  return {
    problem: found === undefined ? `an object with fields ${fields || '(none)'}` : 'a text that is no string',
  }
}

function totalBytes(documents: readonly Document[]): number {
  return documents.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0)
}
