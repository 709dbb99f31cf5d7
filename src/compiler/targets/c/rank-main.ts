/**
 * A program over several ranks as an executable: the emitted text, tables of its inputs and outputs, and the `main` of
 * rank-main.h. Compiled with -DANNEAL_MPI it is what mpirun starts once for each rank; without, all ranks are threads.
 */
import { readFileSync } from 'node:fs'
import { bytesOf } from '../../graph/types.ts'
import { isState, type ArenaLayout, type Slot } from './build.ts'

const header = readFileSync(new URL('rank-main.h', import.meta.url), 'utf8')

export interface RankProgramParts {
  readonly source: string
  readonly layout: Pick<ArenaLayout, 'inputs' | 'outputs'>
}

/** The whole C text. */
export function rankProgramText({ source, layout }: RankProgramParts): string {
  const entry = ({ path, type, offset }: Slot): string =>
    `  {${JSON.stringify(path)}, ${offset}, ${bytesOf(type)}, ${isState(path) ? 1 : 0}},`
  const table = (name: string, slots: readonly Slot[]): string[] => [
    `#define ${name.toUpperCase()} ${slots.length}`,
    `static const slot ${name}[] = {`,
    ...slots.map(entry),
    '};',
  ]
  return [
    source,
    'typedef struct {',
    '  const char *path;',
    '  int64_t offset, bytes;',
    '  int state;',
    '} slot;',
    ...table('inputs', layout.inputs),
    ...table('outputs', layout.outputs),
    header,
  ].join('\n')
}

/** The bytes of a rank's input file: what its inputs are at first, then what those that are not state are in each further step. */
export function rankInput(
  { inputs }: Pick<ArenaLayout, 'inputs'>,
  steps: readonly ReadonlyMap<string, Uint8Array>[],
): Buffer {
  return Buffer.concat(
    steps.flatMap((values, step) =>
      inputs.filter(({ path }) => step === 0 || !isState(path)).map(({ path }) => values.get(path)!),
    ),
  )
}

/** What a rank wrote: its outputs of every step, then the state. */
export function rankOutput(
  { outputs }: Pick<ArenaLayout, 'outputs'>,
  bytes: Buffer,
  steps: number,
): {
  readonly steps: readonly ReadonlyMap<string, Uint8Array>[]
  readonly state: ReadonlyMap<string, Uint8Array>
} {
  let at = 0
  const take = (state: boolean): Map<string, Uint8Array> =>
    new Map(
      outputs
        .filter(({ path }) => isState(path) === state)
        .map(({ path, type }) => [path, bytes.subarray(at, (at += bytesOf(type)))]),
    )
  return { steps: Array.from({ length: steps }, () => take(false)), state: take(true) }
}
