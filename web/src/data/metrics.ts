/**
 * Which charts a run has: metrics that belong on one chart stand together, everything else gets one of its own. Speed is
 * not recorded but follows from the totals. A new metric shows up by itself; a line here only gives it company or a name.
 */
import { rateTotals } from '../../../src/lab/curve-of.ts'
import { formatCount, formatFlopRate } from './shared.ts'

export interface Panel {
  readonly title: string
  readonly metrics: readonly string[]
  readonly format?: (value: number) => string
}

const together: readonly Panel[] = [{ title: 'loss', metrics: ['loss', 'validationLoss'] }]

const rateFormats: Readonly<Record<string, (value: number) => string>> = {
  'tokens / s': formatCount,
  'FLOP / s': formatFlopRate,
}

/** The charts for some runs' metrics, the shared ones first. */
export function panelsOf(names: readonly string[]): Panel[] {
  const grouped = together.filter(({ metrics }) => metrics.some((name) => names.includes(name)))
  const alone = names
    .filter((name) => !grouped.some(({ metrics }) => metrics.includes(name)))
    .map((name): Panel => ({ title: name, metrics: [name] }))
  const computed = Object.keys(rateTotals).map((name): Panel => ({
    title: name,
    metrics: [name],
    format: rateFormats[name] ?? formatCount,
  }))
  return [...grouped, ...alone, ...(names.length > 0 ? computed : [])]
}
