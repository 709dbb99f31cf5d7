/**
 * What the lab's HTTP API is told by whoever starts it: the folder of runs, the recipes one can train, and how this
 * program is called, since everything that trains is a process of its own.
 */

export interface LabRecipe {
  readonly name: string
  /** JSON schema of the complete configuration, with ranges and descriptions. */
  readonly schema: object
  /** The configuration with nothing changed. */
  readonly defaults: object
}

export interface LabOptions {
  readonly runsDir: string
  readonly recipes: readonly LabRecipe[]
  /** Program and first arguments of the command line, e.g. `['node', 'bin/anneal.js']`. */
  readonly command: readonly [string, ...string[]]
  /** Folder of the built pages. */
  readonly pages: string
  /** How a person types it. */
  readonly self: string
  /** Milliseconds between looks at files; default 100. */
  readonly pollMs?: number
}
