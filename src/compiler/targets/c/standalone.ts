/**
 * A compiled function as a program that runs by itself: the emitted text, tables of its inputs and outputs, and the small
 * `main` of standalone.h, which fills the inputs from given ranges. Nothing of Node is in the process, so sanitizers can
 * watch all of it.
 */
import { readFileSync } from 'node:fs'
import { bytesOf, sizeOf, type DType } from '../../graph/types.ts'
import type { ArenaLayout, Slot } from './build.ts'

/** What an input is filled with: uniform in [low, high). */
export type Range = readonly [low: number, high: number]

export interface StandaloneParts {
  readonly source: string
  readonly layout: ArenaLayout
}

const header = readFileSync(new URL('standalone.h', import.meta.url), 'utf8')

const elements: Readonly<Record<DType, string>> = {
  f32: 'F32',
  f64: 'F64',
  bf16: 'BF16',
  f16: 'F16',
  i32: 'I32',
  u8: 'U8',
  bool: 'BOOL',
}

/** The whole C text. `rangeOf` says how an input is filled. */
export function standaloneText(
  { source, layout }: StandaloneParts,
  rangeOf: (path: string) => Range,
): string {
  const entry = ({ path, type, offset }: Slot, [low, high]: Range): string =>
    `  {${JSON.stringify(path)}, ${offset}, ${sizeOf(type.shape)}, ${bytesOf(type)}, ${elements[type.dtype]}, ${low}, ${high}},`
  const table = (name: string, entries: readonly string[]): string =>
    [`static const slot ${name}[] = {`, ...entries, '};'].join('\n')
  return [
    source,
    `enum element { ${Object.values(elements).join(', ')} };`,
    'typedef struct {',
    '  const char *path;',
    '  int64_t offset, count, bytes;',
    '  enum element type;',
    '  double low, high;',
    '} slot;',
    `#define INPUTS ${layout.inputs.length}`,
    `#define OUTPUTS ${layout.outputs.length}`,
    table(
      'inputs',
      layout.inputs.map((slot) => entry(slot, rangeOf(slot.path))),
    ),
    table(
      'outputs',
      layout.outputs.map((slot) => entry(slot, [0, 0])),
    ),
    `#define GUARDS ${layout.guards.length}`,
    'static const struct {',
    '  int64_t offset, bytes;',
    '} guards[] = {',
    ...layout.guards.map(({ offset, bytes }) => `  {${offset}, ${bytes}},`),
    '};',
    header,
  ].join('\n')
}
