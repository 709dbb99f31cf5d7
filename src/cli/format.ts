/**
 * Numbers as people read them: three significant digits and a unit. Counts, FLOPs and rates in powers of 1000,
 * memory in powers of 1024, times in the two largest units. Anything not finite prints as `?`.
 */

const siPrefixes = ['', 'K', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y']
const binaryPrefixes = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi']

/** `1.2e13` -> `12.0 TFLOP`. */
export const formatFlops = (flops: number): string => scale(flops, 1000, siPrefixes, 'FLOP')

/** `5.5e10` -> `55.0 GFLOP/s`. */
export const formatFlopRate = (flopsPerSecond: number): string =>
  scale(flopsPerSecond, 1000, siPrefixes, 'FLOP/s')

/** `156032` -> `156 K`; below a thousand as it is. */
export const formatCount = (count: number): string => scale(count, 1000, siPrefixes, '')

/** `1572864` -> `1.50 MiB`. */
export const formatBytes = (bytes: number): string => scale(bytes, 1024, binaryPrefixes, 'B')

/** `192` -> `3 min 12 s`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '?'
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const s = Math.round(seconds)
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${pad(s % 60)} s`
  const minutes = Math.round(s / 60)
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`
  const hours = Math.round(s / 3600)
  return `${Math.floor(hours / 24)} d ${pad(hours % 24)} h`
}

/** A loss, norm or rate with four significant digits: `1.823`, `0.03`, `1.2e-5`, `NaN`. */
export function formatMetric(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  const size = Math.abs(value)
  if (size === 0) return '0'
  if (size < 1e-3 || size >= 1e5) return Number(value.toPrecision(3)).toExponential()
  return size < 0.1 ? String(Number(value.toPrecision(4))) : value.toPrecision(4)
}

/** `0.314` -> `31%`. */
export const formatPercent = (fraction: number): string =>
  Number.isFinite(fraction) ? `${Math.round(fraction * 100)}%` : '?'

/** Left-aligned columns two spaces apart; the last one is not padded. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  }
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

const pad = (n: number): string => String(n).padStart(2, '0')

function scale(value: number, base: number, prefixes: readonly string[], unit: string): string {
  if (!Number.isFinite(value)) return '?'
  let scaled = value
  let power = 0
  // Compared as it will be printed, so that 999,700 becomes 1.00 M and not 1000 K.
  while (Math.abs(Math.round(scaled * 10) / 10) >= base - 0.5 && power < prefixes.length - 1) {
    scaled /= base
    power++
  }
  const size = Math.abs(scaled)
  const whole = power === 0 && Number.isInteger(value)
  const digits = whole || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2
  return `${scaled.toFixed(digits)} ${prefixes[power]}${unit}`.trimEnd()
}
