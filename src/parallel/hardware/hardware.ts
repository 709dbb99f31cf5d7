/**
 * What a device and its links can do, as far as a plan's time depends on it. Peaks and line rates are a maker's figures;
 * next to each stands the share of it that programs reach, from a published or own measurement, so that an optimistic
 * number can be traced to its source. Units: seconds, bytes, FLOPs (a multiply-add is two).
 */

/** Links of one reach: the wires inside a node, the network between nodes. */
export interface LinkLevel {
  readonly name: string
  /** Ranks that reach each other over these links: ranks i and j do if they lie in the same block of so many. */
  readonly reach: number
  /** From the start of a message until its first byte arrives. */
  readonly latency: number
  /** Bytes a second through one port, in each direction at once, as the maker says. */
  readonly bandwidth: number
  /** The share of `bandwidth` that messages of many megabytes reach. */
  readonly achieved: number
  /** Neighbouring ranks that share a port. */
  readonly ranksPerPort: number
}

export type ProductType = 'f32' | 'bf16' | 'fp8'

export interface Hardware {
  readonly name: string
  /** Operations a second of dense matrix products, by type of the operands. */
  readonly peak: Readonly<Partial<Record<ProductType, number>>>
  readonly memoryBytes: number
  /** Bytes a second from or to memory, and the share of it that streaming kernels reach. */
  readonly memoryBandwidth: number
  readonly memoryAchieved: number
  readonly products: ProductModel
  /** The share of the peak that fused attention kernels reach on the pairs that they do not skip. */
  readonly attentionAchieved: number
  /** Innermost first; the last reaches every rank. */
  readonly links: readonly LinkLevel[]
  /** Where the figures are from. */
  readonly sources: readonly string[]
}

/**
 * How fast matrix products of a size run. A product is cut into tiles of the result, which `units` processors calculate
 * in waves; a wave that is not full costs as much as one that is. A tile costs its depth plus `fill`, for starting and
 * ending it.
 */
export interface ProductModel {
  readonly units: number
  /** Shapes a kernel may choose from; small tiles fill the last wave better but reach less of the peak. */
  readonly tiles: readonly { readonly rows: number; readonly columns: number; readonly share: number }[]
  readonly fill: number
  /** The share of the peak that the largest tiles reach in full waves and infinitely deep. */
  readonly ceiling: number
  /** Starting a kernel. */
  readonly launchSeconds: number
}

const operandBytes: Readonly<Record<ProductType, number>> = { f32: 4, bf16: 2, fp8: 1 }
/** Results of narrow operands are stored as bf16 at least. */
const resultBytes: Readonly<Record<ProductType, number>> = { f32: 4, bf16: 2, fp8: 2 }

/** Seconds for a product of [m, k] and [k, n]: arithmetic or memory, whichever takes longer. */
export function productSeconds(
  hardware: Hardware,
  type: ProductType,
  m: number,
  n: number,
  k: number,
): number {
  const { units, tiles, fill, ceiling, launchSeconds } = hardware.products
  // Types that a device has no fast path for run as the next wider one.
  const peak = hardware.peak[type] ?? hardware.peak.bf16 ?? hardware.peak.f32!
  const arithmetic = tiles.map(({ rows, columns, share }) => {
    const waves = Math.ceil((Math.ceil(m / rows) * Math.ceil(n / columns)) / units)
    return (waves * units * 2 * rows * columns * (k + fill)) / (peak * ceiling * share)
  })
  const bytes = operandBytes[type] * (m * k + k * n) + resultBytes[type] * m * n
  return launchSeconds + Math.max(Math.min(...arithmetic), memorySeconds(hardware, bytes))
}

/** The share of the peak that a product reaches. */
export const productEfficiency = (
  hardware: Hardware,
  type: ProductType,
  m: number,
  n: number,
  k: number,
): number =>
  (2 * m * n * k) / productSeconds(hardware, type, m, n, k) / (hardware.peak[type] ?? hardware.peak.f32!)

/** Seconds to move bytes from or to memory, as elementwise work and norms do. */
export const memorySeconds = ({ memoryBandwidth, memoryAchieved }: Hardware, bytes: number): number =>
  bytes / (memoryBandwidth * memoryAchieved)
