/** The models a server answers for, by name. They may be opened when they are first asked for. */
import { didYouMean } from '../errors.ts'
import type { Engine } from './engine.ts'
import { RequestError } from './error.ts'

export interface ModelEntry {
  readonly id: string
  /** Unix seconds. */
  readonly created: number
}

export interface Engines {
  /** All models that can be asked for. */
  models(): readonly ModelEntry[]
  /** The engine of one of them; may take its time. */
  engine(name: string): Promise<Engine>
  /** Those that are open now. */
  open(): readonly Engine[]
}

/** A fixed set of open engines. */
export const enginesOf = (...engines: readonly Engine[]): Engines => ({
  models: () => engines.map(({ served: { name: id, created } }) => ({ id, created })),
  engine: async (name) => engines.find(({ served }) => served.name === name)!,
  open: () => engines,
})

/** @throws RequestError 404 for a model that is not served. */
export function find(engines: Engines, name: string): Promise<Engine> {
  const names = engines.models().map(({ id }) => id)
  if (names.includes(name)) return engines.engine(name)
  const near = didYouMean(name, names)
  throw new RequestError(404, {
    message: `model '${name}' is not served here; ${near ? `did you mean '${near}'?` : `there is: ${names.join(', ')}`}`,
    param: 'model',
    code: 'model_not_found',
  })
}
