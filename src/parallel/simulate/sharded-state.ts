/**
 * Data parallelism with its state in shards ("ZeRO: Memory Optimizations Toward Training Trillion Parameter Models"): what
 * each of d ranks holds and sends. Level 1 shards what the optimizer keeps, 2 the gradients as well, 3 the parameters as
 * well, which are then gathered layer by layer before they are used.
 */
import type { GroupCollective, PieceCollective } from './costs.ts'

export type ShardLevel = 0 | 1 | 2 | 3

export interface StateBytes {
  /** Of each parameter: the parameter and its gradient as they are used, and what the optimizer keeps. */
  readonly parameter: number
  readonly gradient: number
  readonly optimizer: number
}

/** Parameters and gradients in bf16; Adam's master weights and two moments in f32. */
export const mixedAdam: StateBytes = { parameter: 2, gradient: 2, optimizer: 12 }

/** Bytes of state that one of `ranks` holds for each parameter. */
export const stateBytesPerParameter = (level: ShardLevel, ranks: number, bytes = mixedAdam): number =>
  bytes.parameter / (level >= 3 ? ranks : 1) +
  bytes.gradient / (level >= 2 ? ranks : 1) +
  bytes.optimizer / (level >= 1 ? ranks : 1)

/**
 * What is sent for one piece of a stage, over `axes`, and once after the optimizer for all of a rank's parameters. Levels
 * 2 and 3 keep no whole gradient, so each microbatch's is reduced at once; 0 and 1 reduce the sum of all.
 */
export function shardedCollectives(
  level: ShardLevel,
  axes: readonly string[],
  bytes: {
    readonly pieceParameters: number
    readonly pieceGradients: number
    readonly rankParameters: number
  },
): {
  readonly pieces: Readonly<Record<'F' | 'B' | 'W', readonly PieceCollective[]>>
  readonly after: readonly GroupCollective[]
} {
  const gather: PieceCollective = { kind: 'allGather', bytes: bytes.pieceParameters, axes, when: 'prefetch' }
  const reduce: PieceCollective = {
    kind: level === 0 ? 'allReduce' : 'reduceScatter',
    bytes: bytes.pieceGradients,
    axes,
    when: 'drain',
    ...(level < 2 ? { only: 'last' as const } : {}),
  }
  const gathers = level === 3 ? [gather] : []
  return {
    pieces: { F: gathers, B: gathers, W: [reduce] },
    after: level === 1 || level === 2 ? [{ kind: 'allGather', bytes: bytes.rankParameters, axes }] : [],
  }
}
