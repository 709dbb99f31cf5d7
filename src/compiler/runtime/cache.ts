/**
 * The folder for what can always be made again: compiled programs, machine facts, tokenised text. `ANNEAL_CACHE` names
 * it, else the platform's usual place.
 */
import { accessSync, constants, mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { failure } from '../../errors.ts'

/** Path of the cache folder, created on demand. Throws a UserError when it cannot be written. */
export function cacheDir(): string {
  const path =
    process.env['ANNEAL_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'anneal')
  try {
    mkdirSync(path, { recursive: true })
    accessSync(path, constants.W_OK)
  } catch (error) {
    throw failure({
      where: path,
      got: (error as NodeJS.ErrnoException).code ?? String(error),
      expected: 'a folder that can be written, for compiled programs',
      fix: 'set ANNEAL_CACHE to one',
    })
  }
  return path
}
