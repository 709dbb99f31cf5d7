/**
 * The register tile: the one inner loop of matrix products and attention. A tile of `rows` x `vectors` vector registers
 * stays in registers while the contracted axis runs; each step loads `vectors` vectors of b and broadcasts `rows`
 * elements of a. Shapes follow Van Zee and van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS": as many
 * accumulators as fit beside one row of b and one broadcast, at least 8 to cover the latency of two FMA units.
 */
import { cTypes, lanesOf, type Float, type Support, type VectorTarget } from './prelude.ts'

export interface Tile {
  readonly dtype: Float
  /** Rows of the result held in registers. */
  readonly rows: number
  /** Vectors of each row. */
  readonly vectors: number
  /** Whether loads run ahead: for an operand that is read where it is, with steps far apart. */
  readonly prefetch: boolean
  /** Whether the elements of a that a step takes are neighbours: aRow is 1, and addresses are constants. */
  readonly neighbours?: boolean
}

/** The widest tile, in vectors. */
export const maxVectors = 4

/** Steps by which loads run ahead: about the latency of the last-level cache. */
export const ahead = 24

/** The most rows a tile of this width can have without spilling accumulators. */
export function maxRows(vectors: number, target: VectorTarget): number {
  const rows32 = [0, 8, 12, 8, 6]
  const rows16 = [0, 8, 6, 4, 3]
  return (target.registers === 32 ? rows32 : rows16)[vectors]!
}

export const tileName = ({ dtype, rows, vectors, prefetch, neighbours }: Tile): string =>
  `tile_${dtype}_${rows}x${vectors}${prefetch ? '_ahead' : ''}${neighbours ? '_neighbours' : ''}`

/** Parameters of every tile function of a dtype, so that drivers can hold pointers to them. */
const parameters = (dtype: Float): string => {
  const scalar = cTypes[dtype]
  return (
    `const long depth, const ${scalar} *a, const long aRow, const long aColumn, const ${scalar} *b, const long bRow, ` +
    `${scalar} *out, const long outRow, const int accumulate, const ${scalar} *soon, const long soonStep`
  )
}

/** The function type of tiles of a dtype: `tile_f32` or `tile_f64`. */
export const tileType = (dtype: Float): Support => ({
  name: `tile_${dtype}`,
  code: `typedef void tile_${dtype}(${parameters(dtype)});\n`,
})

/**
 * C text of `out[rows, vectors] (+)= a[rows, depth] b[depth, vectors]`. `a` is addressed by two strides in elements, `b`
 * and `out` by rows of contiguous elements; nothing outside the tile is read or written. Every step asks for one line at
 * `soon`, which moves by `soonStep` elements: what the next tiles will read comes in evenly, beside the arithmetic, where
 * a burst of requests would keep the loads of this tile waiting.
 */
export function emitTile(tile: Tile): Support {
  const { dtype, rows, vectors } = tile
  const scalar = cTypes[dtype]
  const eachRow = `_Pragma("GCC unroll ${rows}") for (int i = 0; i < ${rows}; i++)`
  const eachVector = `_Pragma("GCC unroll ${vectors}") for (int j = 0; j < ${vectors}; j++)`
  const prefetch = tile.prefetch
    ? `    ${eachVector} __builtin_prefetch(b + ${ahead} * bRow + j * LANES_${dtype});
`
    : ''
  return {
    name: tileName(tile),
    code: `
static __attribute__((noinline)) void ${tileName(tile)}(${parameters(dtype)}) {
  ${tile.neighbours ? '(void)aRow;\n  ' : ''}v${dtype} sum[${rows}][${vectors}];
  if (accumulate) {
    const ${scalar} *row = out;
    ${eachRow} {
      ${eachVector} sum[i][j] = *(const v${dtype}u *)(row + j * LANES_${dtype});
      row += outRow;
    }
  } else {
    ${eachRow} ${eachVector} sum[i][j] = (v${dtype}){0};
  }
  ${tile.neighbours ? '_Pragma("GCC unroll 4") ' : ''}for (long p = 0; p < depth; p++, a += aColumn, b += bRow, soon += soonStep) {
    v${dtype} line[${vectors}];
    ${eachVector} line[j] = *(const v${dtype}u *)(b + j * LANES_${dtype});
    __builtin_prefetch(soon);
${prefetch}    ${eachRow} ${eachVector} sum[i][j] += a[${tile.neighbours ? 'i' : 'i * aRow'}] * line[j];
  }
  ${eachRow} {
    ${eachVector} *(v${dtype}u *)(out + j * LANES_${dtype}) = sum[i][j];
    out += outRow;
  }
}
`,
  }
}

/**
 * C text of `transpose_f32(in, inRow, out, outRow)`: one square block of as many rows as a vector has lanes. Interleaving
 * row i with row i + lanes / 2 rotates the bits of an element's place by one; log2(lanes) times exchange row and column.
 */
export function emitTranspose(dtype: Float, target: VectorTarget): Support {
  const lanes = lanesOf(dtype, target)
  const interleaved = (from: number): string =>
    Array.from({ length: lanes }, (_, i) => from + (i >> 1) + (i % 2) * lanes).join(', ')
  const scalar = cTypes[dtype]
  return {
    name: `transpose_${dtype}`,
    code: `
static void transpose_${dtype}(const ${scalar} *in, const long inRow, ${scalar} *out, const long outRow) {
  v${dtype} line[${lanes}], next[${lanes}];
  _Pragma("GCC unroll ${lanes}") for (int i = 0; i < ${lanes}; i++) line[i] = *(const v${dtype}u *)(in + i * inRow);
  _Pragma("GCC unroll ${Math.log2(lanes)}") for (int stage = 0; stage < ${Math.log2(lanes)}; stage++) {
    _Pragma("GCC unroll ${lanes / 2}") for (int i = 0; i < ${lanes / 2}; i++) {
      next[2 * i] = __builtin_shufflevector(line[i], line[i + ${lanes / 2}], ${interleaved(0)});
      next[2 * i + 1] = __builtin_shufflevector(line[i], line[i + ${lanes / 2}], ${interleaved(lanes / 2)});
    }
    _Pragma("GCC unroll ${lanes}") for (int i = 0; i < ${lanes}; i++) line[i] = next[i];
  }
  _Pragma("GCC unroll ${lanes}") for (int i = 0; i < ${lanes}; i++) *(v${dtype}u *)(out + i * outRow) = line[i];
}
`,
  }
}
