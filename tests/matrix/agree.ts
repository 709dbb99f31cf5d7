/** One cell of the matrix beside one device: how far apart the two are, in float64 or as compiled, and what was sent. */
import type { CompileOptions, Program, Values } from '../../src/compiler/index.ts'
import type { Partitioned } from '../../src/compiler/ranked.ts'
import type { LanguageConfig } from '../../src/models/language/config.ts'
import { losses, opened, settingsOf } from './models.ts'
import { overridesOf, type Cell } from './table.ts'

const oneDevice = { data: 1, pipe: 1, expert: 1, context: 1, tensor: 1 } as const

/** A program after its steps. */
export interface Trained {
  readonly losses: readonly number[]
  readonly results: ReadonlyMap<string, readonly number[]>
  readonly cut: Partitioned | undefined
  readonly traffic: ReturnType<Program['traffic']>
  /** As planned, and as each rank has it. */
  readonly planned: number
  readonly arenas: readonly number[]
}

export async function trained(
  model: Cell['model'],
  config: LanguageConfig,
  target: CompileOptions['target'],
  steps: number,
): Promise<Trained> {
  const program = await opened(model, config, target ? { target } : {})
  try {
    const each = losses(model, program, config, steps)
    const results = [...program.outputs.keys()].map((path) => [path, Array.from(program.view(path))] as const)
    return {
      losses: each,
      results: new Map(results),
      cut: program.cut,
      traffic: program.traffic(),
      planned: program.memory.arenaBytes + program.memory.offloadedBytes,
      arenas: program.pieces('state.step').map(({ data }) => (data as Values).buffer.byteLength),
    }
  } finally {
    program.close()
  }
}

/** One device after its steps, by its settings: cells that differ in their plan share it. */
const alone = new Map<string, Promise<Trained>>()

export interface Agreement {
  /** The largest difference of any result, relative to its largest element, and which result that is. */
  readonly results: number
  readonly worst: string
  /** The largest relative difference of the loss of a step. */
  readonly losses: number
  readonly many: Trained
  readonly one: Trained
}

/** The cell and one device take the same steps; one device keeps everything, in memory, whatever the cell does. */
export async function agreement(
  { model, settings }: Pick<Cell, 'model' | 'settings'>,
  target: 'reference' | 'c',
  steps: number,
): Promise<Agreement> {
  const config = settingsOf(model, overridesOf(settings))
  const plain = { ...config, mesh: oneDevice, recompute: 'none', memory: 0, offload: 'none' } as const
  const { parallel: _, ...rest } = plain
  const key = JSON.stringify([model, rest, target, steps])
  const known = alone.get(key) ?? trained(model, plain, target, steps)
  alone.set(key, known)
  const one = await known
  const many = await trained(model, config, target, steps)
  let [results, worst] = [0, '']
  for (const [path, want] of one.results) {
    const apart = difference(want, many.results.get(path)!)
    if (!(apart <= results)) [results, worst] = [apart, path]
  }
  const lossesApart = one.losses.map((loss, i) => Math.abs(loss - many.losses[i]!) / Math.abs(loss))
  return { results, worst, losses: Math.max(...lossesApart), many, one }
}

function difference(want: readonly number[], got: readonly number[]): number {
  const scale = want.reduce((most, x) => Math.max(most, Math.abs(x)), Number.MIN_VALUE)
  return want.reduce((worst, x, i) => Math.max(worst, Math.abs(x - got[i]!)), 0) / scale
}
