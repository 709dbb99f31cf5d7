/**
 * The histories of runs, kept between requests and brought up to date with what their files gained. Only the runs that
 * were looked at last are kept: a table of a million points takes tens of megabytes.
 */
import { join } from 'node:path'
import { History } from './history.ts'

const kept = 12

export class Curves {
  readonly #root: string
  readonly #histories = new Map<string, History>()

  constructor(root: string) {
    this.#root = root
  }

  /** The history of a run as of now. */
  read(id: string): History {
    const history = this.#histories.get(id) ?? new History(join(this.#root, id))
    history.update()
    this.#histories.delete(id)
    this.#histories.set(id, history)
    for (const oldest of this.#histories.keys()) {
      if (this.#histories.size <= kept) break
      this.#histories.delete(oldest)
    }
    return history
  }
}
