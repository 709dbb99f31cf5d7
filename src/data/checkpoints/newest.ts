/**
 * Going back to the newest checkpoint that can be used: damaged ones are passed over, loudly.
 */
import { join } from 'node:path'
import { failure, UserError } from '../../errors.ts'
import { listCheckpoints } from './folder.ts'
import type { CheckpointEntry } from './folder.ts'

/**
 * Applies `use` to the newest checkpoint in the folder that is intact, passing over damaged ones with a note.
 *
 * @param use gets the checkpoint's path and throws a UserError when it is damaged.
 * @returns the checkpoint and what `use` made of it; undefined when there is none yet.
 * @throws UserError about the newest one when there are checkpoints but none can be read.
 */
export async function useNewestIn<T>(
  folder: string,
  use: (path: string) => Promise<T>,
  note: (text: string) => void,
): Promise<{ readonly entry: CheckpointEntry; readonly value: T } | undefined> {
  const errors: UserError[] = []
  for (const entry of listCheckpoints(folder).toReversed()) {
    try {
      const value = await use(join(folder, entry.name))
      for (const { complaint } of errors)
        note(`passing over ${complaint.where}: got ${complaint.got}; expected ${complaint.expected}`)
      return { entry, value }
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      errors.push(error)
    }
  }
  const [newest] = errors
  if (newest === undefined) return undefined
  const { where, got, expected } = newest.complaint
  throw failure({
    where,
    got: errors.length === 1 ? got : `${got} (and ${errors.length - 1} older damaged too)`,
    expected,
    fix: 'restore a checkpoint from a copy, or start a new run with anneal train',
  })
}
