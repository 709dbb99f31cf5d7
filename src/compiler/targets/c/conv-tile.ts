/**
 * The register tile of convolutions: that of tile.ts, except that the depth is a list of stretches, each with its own
 * place in both operands. So all taps of a result are added up in registers although they are not one run in memory.
 */
import { cTypes, type Float, type Support } from './prelude.ts'

export interface ConvTile {
  readonly dtype: Float
  readonly rows: number
  readonly vectors: number
  /** Along which axis the elements of `a` are neighbours. */
  readonly contiguous: 'depth' | 'rows'
  /** Distance of the elements of `a` along the other axis, and of the rows of `b`: constants keep addresses simple. */
  readonly aStep: number
  readonly bRow: number
}

export const convTileName = ({ dtype, rows, vectors, contiguous, aStep, bRow }: ConvTile): string =>
  `conv_tile_${dtype}_${rows}x${vectors}_by_${contiguous}_${aStep}_${bRow}`

/** Steps of the depth in one turn of the loop: a stretch is short, and its last turn is mispredicted. */
const unrolled = 4

const parameters = (dtype: Float): string => {
  const T = cTypes[dtype]
  return (
    `const conv_stretch *s, const conv_stretch *const end, const long depth, const ${T} *a, ` +
    `const ${T} *b, ${T} *out, const long outRow, const int accumulate`
  )
}

export const convTileType = (dtype: Float): Support => ({
  name: `conv_tile_${dtype}`,
  code: `
#ifndef CONV_STRETCH
#define CONV_STRETCH
typedef struct { long a, b; } conv_stretch; /* where the operands of one stretch of the depth start */
#endif
typedef void conv_tile_${dtype}(${parameters(dtype)});
`,
})

/** C text of `out[rows, vectors] (+)= sum over stretches of a[rows, depth] b[depth, vectors]`. */
export function emitConvTile(tile: ConvTile): Support {
  const { dtype, rows, vectors, aStep, bRow } = tile
  const T = cTypes[dtype]
  const eachRow = `_Pragma("GCC unroll ${rows}") for (int i = 0; i < ${rows}; i++)`
  const eachVector = `_Pragma("GCC unroll ${vectors}") for (int j = 0; j < ${vectors}; j++)`
  const [element, step] = tile.contiguous === 'depth' ? [`left[i * ${aStep}]`, 1] : ['left[i]', aStep]
  return {
    name: convTileName(tile),
    code: `
static __attribute__((noinline)) void ${convTileName(tile)}(${parameters(dtype)}) {
  v${dtype} sum[${rows}][${vectors}];
  if (accumulate) {
    const ${T} *row = out;
    ${eachRow} {
      ${eachVector} sum[i][j] = *(const v${dtype}u *)(row + j * LANES_${dtype});
      row += outRow;
    }
  } else {
    ${eachRow} ${eachVector} sum[i][j] = (v${dtype}){0};
  }
  for (; s < end; s++) {
    const ${T} *left = a + s->a, *right = b + s->b;
    _Pragma("GCC unroll ${unrolled}") for (long p = 0; p < depth; p++, left += ${step}, right += ${bRow}) {
      v${dtype} line[${vectors}];
      ${eachVector} line[j] = *(const v${dtype}u *)(right + j * LANES_${dtype});
      ${eachRow} ${eachVector} sum[i][j] += ${element} * line[j];
    }
  }
  ${eachRow} {
    ${eachVector} *(v${dtype}u *)(out + j * LANES_${dtype}) = sum[i][j];
    out += outRow;
  }
}
`,
  }
}
