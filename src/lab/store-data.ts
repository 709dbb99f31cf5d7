/**
 * Files dropped onto the page, stored as a folder of data in the runs folder, where a recipe's `data` setting can name
 * it. Names come from a stranger's disk: only their last part is used, and only harmless letters of it.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { badUsage } from '../errors.ts'
import { labFolder } from './jobs.ts'

export interface StoredData {
  readonly folder: string
  readonly files: number
  readonly bytes: number
}

export async function storeData(runsDir: string, form: FormData): Promise<StoredData> {
  const files = form.getAll('file').filter((entry) => entry instanceof File)
  if (files.length === 0) {
    throw badUsage({ where: 'data', got: 'no file', expected: 'text or JSONL files', fix: 'drop some' })
  }
  const folder = resolve(runsDir, labFolder, `data-${Date.now()}`)
  mkdirSync(folder, { recursive: true })
  let bytes = 0
  for (const [i, file] of files.entries()) {
    const name = basename(file.name.replaceAll('\\', '/'))
      .replaceAll(/[^\w.-]/g, '_')
      .replace(/^\.+/, '')
    const content = new Uint8Array(await file.arrayBuffer())
    writeFileSync(join(folder, `${i + 1}-${name || 'data.txt'}`), content)
    bytes += content.length
  }
  return { folder, files: files.length, bytes }
}
