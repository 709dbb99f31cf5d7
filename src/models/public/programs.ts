/**
 * The compiled programs of a checkpoint. A program has fixed sizes, so one of each kind is kept, for the [batch, time]
 * asked for last, with its own copy of the weights. It has one set of buffers too, hence the queue: uses wait their turn.
 */
import {
  compile,
  crossEntropy,
  grad,
  valueType,
  type CompileOptions,
  type Program,
  type Tensor,
  type Tensors,
} from '../../compiler/index.ts'
import type { Architecture } from './architecture.ts'
import type { PublicConfig } from './config.ts'
import { architectureOf, type LoadedModel } from './load.ts'

type Body = (architecture: Architecture, parameters: Tensors, tokens: Tensor) => Tensors

/** What can be computed. Targets are the tokens one position on, so the last position is not run. */
const bodies = {
  logits: ({ forward }, p, tokens) => ({ logits: forward(p, tokens).logits }),
  hidden({ forward }, p, tokens) {
    const { blockInputs, final } = forward(p, tokens, { blockInputs: true })
    return { blockInputs: blockInputs!, final }
  },
  gradients({ forward }, p, tokens) {
    const numInputs = tokens.size('time') - 1
    const { logits } = forward(p, tokens.slice('time', 0, numInputs))
    const loss = crossEntropy(logits, tokens.slice('time', 1, numInputs)).mean()
    return { loss, gradients: grad(loss, p) }
  },
} satisfies Record<string, Body>

type Kind = keyof typeof bodies

/** One program of a checkpoint. Inputs: parameters, tokens [batch, time] i32. */
export function compilePublic(
  config: PublicConfig,
  kind: Kind,
  [batch, time]: readonly [batch: number, time: number],
  options: CompileOptions = {},
): Promise<Program> {
  const architecture = architectureOf(config)
  return compile(
    ({ parameters, tokens }) => bodies[kind](architecture, parameters as Tensors, tokens),
    { parameters: architecture.weights, tokens: valueType('i32', [batch, time], ['batch', 'time']) },
    { ...options, name: `${config.modelType}_${kind}` },
  )
}

export interface Programs {
  /** Runs `kind` on tokens [batch, time], then hands the program to `read` while nobody else can run it. */
  run<T>(kind: Kind, rows: readonly ArrayLike<number>[], read: (program: Program) => T): Promise<T>
  close(): void
}

export function programsFor({ config, stacked }: LoadedModel, options: CompileOptions): Programs {
  const kept = new Map<Kind, { readonly size: string; readonly program: Program }>()
  let queue: Promise<unknown> = Promise.resolve()

  async function program(kind: Kind, batch: number, time: number): Promise<Program> {
    const size = `${batch}x${time}`
    const last = kept.get(kind)
    if (last?.size === size) return last.program
    kept.delete(kind)
    last?.program.close()
    const made = await compilePublic(config, kind, [batch, time], options)
    for (const [path, values] of stacked) made.write(`parameters.${path}`, values)
    kept.set(kind, { size, program: made })
    return made
  }

  return {
    run(kind, rows, read) {
      const result = queue.then(async () => {
        const ready = await program(kind, rows.length, rows[0]!.length)
        await ready.run({ tokens: rows.flatMap((row) => Array.from(row)) })
        return read(ready)
      })
      queue = result.catch(() => {})
      return result
    },
    close() {
      for (const { program: open } of kept.values()) open.close()
      kept.clear()
    },
  }
}
