/**
 * The tables of FEATURES.md, generated from the op and composite lists so that they cannot go out of date. Run this file
 * to print them: `node src/compiler/features.ts`; they belong between the `ops` markers of FEATURES.md.
 */
import { composites } from './composites/index.ts'
import type { Op } from './graph/op.ts'
import { ops } from './ops/index.ts'
import { claimed } from './targets/c/kernels.ts'

/** How the gradient of an op comes about. The passes themselves expand structure ops. */
const gradientOf = (op: Op): string =>
  op.gradient ? 'yes' : op.kind === 'structure' ? 'by the pass' : 'none'

/** Text of a table cell: a bar would end the cell. */
const cell = (text: string): string => text.replaceAll('|', String.raw`\|`)

const table = (header: readonly string[], rows: readonly (readonly string[])[]): string =>
  [header, header.map(() => '---'), ...rows].map((row) => `| ${row.map(cell).join(' | ')} |`).join('\n')

/** Markdown: one table of the primitives, one of the composites. */
export function featuresTable(): string {
  const primitives = ops.map((op) => [`\`${op.name}\``, op.kind, op.doc, gradientOf(op)])
  const composed = composites.map(({ name, doc, gradient }) => [
    `\`${name}\``,
    doc,
    gradient ? 'its own' : "the body's",
    claimed(name) ? 'kernel of its own' : 'inlined',
  ])
  return [
    table(['op', 'kind', 'meaning', 'gradient'], primitives),
    table(['composite', 'meaning', 'gradient', 'in C'], composed),
  ].join('\n\n')
}

if (import.meta.main) console.log(featuresTable())
