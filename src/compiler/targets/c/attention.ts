/** Temporary: interface only, until the tiled kernels land. */
import type { Support, VectorTarget } from './prelude.ts'
export interface AttentionSpec { readonly dtype: 'f32' | 'f64'; readonly batch: number; readonly queries: number; readonly keys: number; readonly heads: number; readonly kvHeads: number; readonly dim: number; readonly causal: boolean; readonly window: number; readonly scale: number; readonly q: Strides; readonly k: Strides; readonly v: Strides }
export interface Strides { readonly batch: number; readonly time: number; readonly head: number }
export function emitAttention(name: string, _spec: AttentionSpec, _target: VectorTarget): { code: string; support: readonly Support[]; scratchBytes: number } { throw new Error(name) }
export const emitAttentionBackward = emitAttention
