/**
 * The folder for what can always be made again: compiled programs, machine facts, tokenised text. `ANNEAL_CACHE` names
 * it, else the platform's usual place. Deleting it costs time and nothing else. Files appear there whole or not at all
 * (written beside, then renamed), so several processes may share it.
 */
import { accessSync, constants, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { failure } from '../../errors.ts'
import type { UserError } from '../../errors.ts'

/** Absolute path of the cache folder, created on demand. Throws a UserError when it cannot be written. */
export function cacheDir(): string {
  const shared = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache')
  const path = resolve(process.env['ANNEAL_CACHE'] || join(shared, 'anneal'))
  try {
    mkdirSync(path, { recursive: true })
    accessSync(path, constants.W_OK)
  } catch (error) {
    throw unwritable(path, error)
  }
  return path
}

let temporaries = 0

/** A name beside `path` that no other write uses, in this process or another; rename it to `path` once complete. */
export function temporaryBeside(path: string): string {
  return `${path}.${process.pid}-${temporaries++}.tmp`
}

/** Writes a text file into the cache as a whole. Throws a UserError when the disk is full or cannot be written. */
export function writeCached(path: string, text: string): void {
  const temporary = temporaryBeside(path)
  try {
    writeFileSync(temporary, text)
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw unwritable(path, error)
  }
}

function unwritable(path: string, error: unknown): UserError {
  return failure({
    where: path,
    got: error instanceof Error ? error.message : String(error),
    expected: 'a cache folder that can be written',
    fix: 'set ANNEAL_CACHE to a writable folder with free space',
  })
}
