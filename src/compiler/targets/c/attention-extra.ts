/**
 * Bias and mask as data: what is added to a block of scores, gathered into scratch as [key, query] beside them, with
 * -infinity where the mask hides a pair. Nothing larger than a block is ever made.
 */
import type { AttentionPlan, AttentionSpec, PairStrides } from './attention-plan.ts'
import { cTypes } from './prelude.ts'

/** C text of the parameters that a kernel takes for its bias and mask: none, one or both, with a comma after each. */
export const extraParameters = ({ dtype, bias, mask }: AttentionSpec): string =>
  `${bias ? `const ${cTypes[dtype]} *bias, ` : ''}${mask ? 'const uint8_t *mask, ' : ''}`

export const extraArguments = ({ bias, mask }: AttentionSpec): string =>
  `${bias ? 'bias, ' : ''}${mask ? 'mask, ' : ''}`

/** C text of `NAME_extra(b, h, first, rows, from, to, [bias], [mask], out)`; empty when there is neither. */
export function emitExtra(name: string, spec: AttentionSpec, plan: AttentionPlan): string {
  const { dtype, bias, mask, keys } = spec
  if (!bias && !mask) return ''
  const { width, lanes } = plan
  const T = cTypes[dtype]
  const start = (x: PairStrides): string => `b * ${x.batch} + h * ${x.head} + first * ${x.query}`
  const at = (x: PairStrides): string => `i * ${x.query} + j * ${x.key}`
  const value = bias ? `bias[${at(bias)}]` : '0'
  const plain = `out[(j - from) * ${width} + i] = ${mask ? `mask[${at(mask)}] ? ${value} : -INFINITY` : value};`
  // Whole squares of a bias that lies along its keys are transposed in registers.
  const squares =
    bias && bias.key === 1 && bias.query !== 0
      ? `
  for (; whole + ${lanes} <= smaller(to, ${keys}) && rows == ${width}; whole += ${lanes}) {
    for (long i = 0; i < ${width}; i += ${lanes})
      transpose_${dtype}(bias + i * ${bias.query} + whole, ${bias.query}, out + (whole - from) * ${width} + i, ${width});${
        mask
          ? `
    for (long j = whole; j < whole + ${lanes}; j++)
      for (long i = 0; i < ${width}; i++)
        if (!mask[${at(mask)}]) out[(j - from) * ${width} + i] = -INFINITY;`
          : ''
      }
  }`
      : ''
  return `
APART ${name}_extra(const long b, const long h, const long first, const long rows, const long from, const long to, ${extraParameters(spec)}${T} *restrict out) {
${bias ? `  bias += ${start(bias)};\n` : ''}${mask ? `  mask += ${start(mask)};\n` : ''}\
  long whole = from;${squares}
  for (long j = whole; j < to; j++)
    for (long i = 0; i < ${width}; i++)
      if (i < rows && j < ${keys}) ${plain}
      else out[(j - from) * ${width} + i] = 0;
}
`
}
