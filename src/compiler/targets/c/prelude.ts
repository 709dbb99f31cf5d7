/**
 * The opening of every emitted program: what machine it is for, then `prelude.h` (vector types, mathematics, random
 * numbers, barrier, operation counter). The header is C in a C file, so that it is read and checked as C; it is part of
 * the emitted text and not included by path, so that a program is one file.
 */
import { readFileSync } from 'node:fs'

/** The machine as far as the hand-shaped kernels care. */
export interface VectorTarget {
  /** Size of the persistent team. */
  readonly threads: number
  /** Bytes of a vector register: 64 AVX-512, 32 AVX2, 16 SSE and NEON. */
  readonly vectorBytes: 64 | 32 | 16
  /** How many vector registers there are: 32 AVX-512 and NEON, 16 otherwise. */
  readonly registers: 32 | 16
  /** Instructions for products of bf16 operands, where there are any faster than f32 multiply-adds. */
  readonly bf16Products?: 'bf16' | 'i16' | undefined
  /** Rows of a product get the same bits however many there are: the batch may be spread over devices. */
  readonly rowsAlike?: boolean
}

/** A piece of C that several kernels share: emit it once, before its first user. Equal names mean equal code. */
export interface Support {
  readonly name: string
  readonly code: string
}

/** Element types that kernels compute in. */
export type Float = 'f32' | 'f64'

export const cTypes = { f32: 'float', f64: 'double', bf16: 'bf16', f16: 'f16' } as const
export const floatBytes = { f32: 4, f64: 8, bf16: 2, f16: 2 } as const

/** Elements of a vector register. */
export const lanesOf = (dtype: Float, target: VectorTarget): number => target.vectorBytes / floatBytes[dtype]

/** The smallest multiple of `unit` that is not below `n`. */
export const roundUp = (n: number, unit: number): number => Math.ceil(n / unit) * unit

const header = readFileSync(new URL('prelude.h', import.meta.url), 'utf8')

/** C text of the prelude. Defines THREADS, VECTOR_BYTES and everything documented in prelude.h. */
export function prelude(target: VectorTarget): string {
  return `#define THREADS ${target.threads}\n#define VECTOR_BYTES ${target.vectorBytes}\n${header}`
}

/** The support code of several kernels, each piece once, in order of first use. */
export function uniqueSupport(pieces: Iterable<Support>): string {
  const byName = new Map<string, string>()
  for (const { name, code } of pieces) byName.set(name, code)
  return [...byName.values()].join('\n')
}
