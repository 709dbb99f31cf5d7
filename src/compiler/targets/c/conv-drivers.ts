/**
 * The C text of the convolution drivers, one for each element type; they follow the constant plans of conv-plan.ts.
 * Axes of space are d (planes), h (rows) and w. A patch is [taps of d, rows, positions, channels of a group]: the planes
 * that the taps of one result position see, and of each the rows and positions that a block of results sees.
 */
import { cTypes, type Float, type Support } from './prelude.ts'

export const planFields = [
  'batch',
  'groups',
  'channels',
  'columns',
  'weightFirst',
  'weightChannel',
  'weightColumn',
  'weightGroup',
  'rows',
  'tailRows',
  'vectors',
  'tailVectors',
  'panels',
  'blockPlanes',
  'blockRows',
  'blockColumns',
  'stretches',
  'depth',
  'packed',
  'patch',
  'runs',
  'leaves',
  'parts',
] as const

export const planTriples = [
  'source',
  'target',
  'count',
  'first',
  'step',
  'taps',
  'stride',
  'dilation',
  'low',
  'weightTap',
] as const

const shared = (): Support => ({
  name: 'conv_plan',
  code: `
/* How one convolution, or phase of a gradient, is cut: see conv-plan.ts. Channels and columns are those of a group. */
typedef struct {
  long ${planFields.join(', ')};
  long ${planTriples.map((name) => `${name}[3]`).join(', ')};
  const void *tiles[4]; /* whole panels then the last; in each, whole rows then the last */
} conv_plan;

/* A block of result positions: of each plane, rows [h, h + rows) and columns [w, w + columns). */
typedef struct { long plane, planes, h, w, rows, columns; } conv_block;

INLINE long conv_least(const long a, const long b) { return a < b ? a : b; }
INLINE long conv_most(const long a, const long b) { return a > b ? a : b; }

INLINE long conv_parts(const long whole, const long part) { return (whole + part - 1) / part; }

static long conv_blocks(const conv_plan *g) {
  return conv_parts(g->batch * g->count[0], g->blockPlanes) * conv_parts(g->count[1], g->blockRows) *
         conv_parts(g->count[2], g->blockColumns);
}
static conv_block conv_block_at(const conv_plan *g, const long unit) {
  const long across = conv_parts(g->count[2], g->blockColumns), down = conv_parts(g->count[1], g->blockRows);
  const long plane = unit / across / down * g->blockPlanes, h = unit / across % down * g->blockRows;
  const long w = unit % across * g->blockColumns;
  return (conv_block){plane, conv_least(g->blockPlanes, g->batch * g->count[0] - plane), h, w,
                      conv_least(g->blockRows, g->count[1] - h), conv_least(g->blockColumns, g->count[2] - w)};
}

/* Rows and positions of the patch of a whole block. */
INLINE long conv_span(const conv_plan *g, const int axis, const long positions) {
  return (positions - 1) * g->stride[axis] + conv_most(0, g->taps[axis] - 1) * g->dilation[axis] + 1;
}
/* Whether a tap of a position lies in the source. */
INLINE int conv_inside(const conv_plan *g, const int axis, const long position, const long tap) {
  const long at = position * g->stride[axis] + tap * g->dilation[axis] - g->low[axis];
  return at >= 0 && at < g->source[axis];
}
/* Pairs (position of the block's columns, tap) inside. */
static long conv_pairs(const conv_plan *g, const conv_block *k) {
  long pairs = 0;
  for (long q = k->w; q < k->w + k->columns; q++)
    for (long j = 0; j < g->taps[2]; j++) pairs += conv_inside(g, 2, q, j);
  return pairs;
}
`,
})

/** Patches, and what both kinds of driver read of them. */
function patches(dtype: Float): Support {
  const T = cTypes[dtype]
  return {
    name: `conv_patch_${dtype}`,
    code: `
/* Copies what a plane of a block sees of one group of channels. Rows outside the source are left out: no stretch refers to
 * them. */
static void conv_patch_${dtype}(const conv_plan *g, const conv_block *k, const long plane, const ${T} *in, ${T} *patch) {
  const long d = plane % g->count[0], first = plane / g->count[0] * g->source[0] + d * g->stride[0] - g->low[0];
  const long rows = conv_span(g, 1, k->rows), positions = conv_span(g, 2, g->blockColumns), channels = g->channels;
  const long place = g->groups * channels; /* elements between positions of the source */
  const long left = k->w * g->stride[2] - g->low[2], used = conv_span(g, 2, k->columns);
  const long from = conv_least(conv_most(0, -left), used), to = conv_most(from, conv_least(used, g->source[2] - left));
  for (long j = 0; j < g->taps[0]; j++) {
    if (!conv_inside(g, 0, d, j)) continue;
    for (long r = 0; r < rows; r++) {
      const long h = k->h * g->stride[1] - g->low[1] + r;
      if (h < 0 || h >= g->source[1]) continue;
      ${T} *to_row = patch + (j * conv_span(g, 1, g->blockRows) + r) * positions * channels;
      const ${T} *from_row = in + (((first + j * g->dilation[0]) * g->source[1] + h) * g->source[2] + left) * place;
      for (long i = 0; i < from * channels; i++) to_row[i] = 0;
      if (place == channels)
        memcpy(to_row + from * channels, from_row + from * channels, (size_t)((to - from) * channels) * sizeof *to_row);
      else
        for (long q = from; q < to; q++)
          for (long c = 0; c < channels; c++) to_row[q * channels + c] = from_row[q * place + c];
      for (long i = to * channels; i < used * channels; i++) to_row[i] = 0;
    }
  }
}

/* Stretches of taps inside the source for row r of a plane; b counts them off in the order of the weights. */
static conv_stretch *conv_row_${dtype}(const conv_plan *g, const conv_block *k, const long plane, const long r,
                                       const long bStep, conv_stretch *s) {
  const long positions = conv_span(g, 2, g->blockColumns);
  for (long j = 0; j < g->taps[0]; j++)
    for (long i = 0; i < g->taps[1]; i++) {
      if (!conv_inside(g, 0, plane % g->count[0], j) || !conv_inside(g, 1, k->h + r, i)) continue;
      const long row = j * conv_span(g, 1, g->blockRows) + r * g->stride[1] + i * g->dilation[1];
      for (long n = 0; n < g->stretches; n++)
        *s++ = (conv_stretch){(row * positions + n * g->dilation[2]) * g->channels,
                              ((j * g->taps[1] + i) * g->stretches + n) * bStep};
    }
  return s;
}
`,
  }
}

/** Forward, and backward to the input. */
export function emitCorrelate(dtype: Float): Support[] {
  const T = cTypes[dtype]
  const lanes = `LANES_${dtype}`
  return [
    shared(),
    patches(dtype),
    {
      name: `conv_correlate_${dtype}`,
      code: `
/* Copies the weights: group by group and panel by panel, [taps, channels] rows of whole vectors, zeros beyond the columns. */
static void conv_pack_${dtype}(const int tid, const conv_plan *g, const ${T} *w, ${T} *packed) {
  const long taps = g->taps[0] * g->taps[1] * g->taps[2], whole = g->vectors * ${lanes};
  const long depth = taps * g->channels, padded = ((g->panels - 1) * g->vectors + g->tailVectors) * ${lanes};
  const long units = g->groups * g->panels * taps;
  for (long unit = units * tid / THREADS; unit < units * (tid + 1) / THREADS; unit++) {
    const long tap = unit % taps, panel = unit / taps % g->panels, group = unit / taps / g->panels;
    const long width = (panel == g->panels - 1 ? g->tailVectors : g->vectors) * ${lanes};
    const long columns = conv_least(width, g->columns - panel * whole);
    const ${T} *from = w + g->weightFirst + tap / (g->taps[1] * g->taps[2]) * g->weightTap[0] +
                    tap / g->taps[2] % g->taps[1] * g->weightTap[1] + tap % g->taps[2] * g->weightTap[2] +
                    group * g->weightGroup + panel * whole * g->weightColumn;
    ${T} *to = packed + group * depth * padded + panel * whole * depth + tap * g->channels * width;
    for (long c = 0; c < g->channels; c++, to += width) {
      for (long n = 0; n < columns; n++) to[n] = from[c * g->weightChannel + n * g->weightColumn];
      for (long n = columns; n < width; n++) to[n] = 0;
    }
  }
}

/* Results of one panel of columns in row h + r of a plane of a block. */
static void conv_line_${dtype}(const int tid, const conv_plan *g, const conv_block *k, const long plane, const long r,
                               const long panel, const ${T} *patch, const ${T} *right, ${T} *out) {
  (void)tid;
  const long whole = g->vectors * ${lanes}, place = g->groups * g->columns, outRow = g->step[2] * place;
  const int lastPanel = panel == g->panels - 1;
  const long width = (lastPanel ? g->tailVectors : g->vectors) * ${lanes};
  const long columns = conv_least(width, g->columns - panel * whole);
  conv_stretch stretches[g->taps[0] * g->taps[1] * g->stretches + 1];
  ${T} edge[g->rows * whole] __attribute__((aligned(64)));
  const conv_stretch *end = conv_row_${dtype}(g, k, plane, r, g->depth * width, stretches);
  COUNT(2 * (end - stretches) / conv_most(1, g->stretches) * conv_pairs(g, k) * g->channels * columns);
  const long d = g->first[0] + plane % g->count[0] * g->step[0], h = g->first[1] + (k->h + r) * g->step[1];
  const long w = g->first[2] + k->w * g->step[2], batch = plane / g->count[0];
  ${T} *target = out + (((batch * g->target[0] + d) * g->target[1] + h) * g->target[2] + w) * place + panel * whole;
  for (long q = 0; q < k->columns; q += g->rows, target += g->rows * outRow) {
    const int lastTile = k->w + q + g->rows > g->count[2];
    const long rows = lastTile ? g->tailRows : g->rows;
    conv_tile_${dtype} *compute = (conv_tile_${dtype} *)g->tiles[2 * lastPanel + lastTile];
    const ${T} *left = patch + q * g->stride[2] * g->channels;
    if (columns == width) {
      compute(stretches, end, g->depth, left, right, target, outRow, 0);
      continue;
    }
    compute(stretches, end, g->depth, left, right, edge, width, 0);
    for (long i = 0; i < rows; i++)
      for (long n = 0; n < columns; n++) target[i * outRow + n] = edge[i * width + n];
  }
}

static void conv_correlate_${dtype}(const int tid, const conv_plan *g, const ${T} *in, const ${T} *packed, ${T} *out,
                                    ${T} *patch) {
  const long depth = g->taps[0] * g->taps[1] * g->taps[2] * g->channels, blocks = conv_blocks(g);
  const long padded = ((g->panels - 1) * g->vectors + g->tailVectors) * ${lanes};
  for (long unit = blocks * tid / THREADS; unit < blocks * (tid + 1) / THREADS; unit++) {
    const conv_block k = conv_block_at(g, unit);
    for (long group = 0; group < g->groups; group++) {
      for (long p = 0; p < k.planes; p++)
        conv_patch_${dtype}(g, &k, k.plane + p, in + group * g->channels, patch + p * g->patch);
      for (long panel = 0; panel < g->panels; panel++) {
        const ${T} *right = packed + group * depth * padded + panel * g->vectors * ${lanes} * depth;
        for (long p = 0; p < k.planes; p++)
          for (long r = 0; r < k.rows; r++)
            conv_line_${dtype}(tid, g, &k, k.plane + p, r, panel, patch + p * g->patch, right, out + group * g->columns);
      }
    }
  }
}

/* All phases: their weights first, then each, with \`privateBytes\` of scratch a thread behind the weights. */
static void conv_phases_${dtype}(const int tid, const conv_plan *g, const long phases, const ${T} *in, const ${T} *w, ${T} *out,
                                 void *scratch, const long sharedBytes, const long privateBytes) {
  for (long p = 0; p < phases; p++) conv_pack_${dtype}(tid, g + p, w, (${T} *)scratch + g[p].packed);
  team_barrier(tid);
  ${T} *patch = (${T} *)((char *)scratch + sharedBytes + tid * privateBytes);
  for (long p = 0; p < phases; p++) conv_correlate_${dtype}(tid, g + p, in, (${T} *)scratch + g[p].packed, out, patch);
}
`,
    },
  ]
}

/** Backward to the weight. */
export function emitWeight(dtype: Float): Support[] {
  const T = cTypes[dtype]
  const lanes = `LANES_${dtype}`
  return [
    shared(),
    patches(dtype),
    {
      name: `conv_weight_${dtype}`,
      code: `
/* The gradient of the results in a plane of a block for panels [first, end) of a group: [rows, columns] rows of whole vectors. */
static void conv_results_${dtype}(const conv_plan *g, const conv_block *k, const long plane, const ${T} *in,
                                  const long first, const long end, const long padded, ${T} *out) {
  const long place = g->groups * g->columns, from = first * g->vectors * ${lanes};
  const long to = end == g->panels ? padded : end * g->vectors * ${lanes}, stop = conv_least(to, g->columns);
  for (long r = 0; r < k->rows; r++)
    for (long q = 0; q < k->columns; q++) {
      const long at = (plane * g->count[1] + k->h + r) * g->count[2] + k->w + q;
      ${T} *row = out + (r * g->blockColumns + q) * padded;
      for (long n = from; n < stop; n++) row[n] = in[at * place + n];
      for (long n = stop; n < to; n++) row[n] = 0;
    }
}

/* Adds to the partial gradient [taps, channels, padded columns] what a block gives to panels [first, end) of a group. */
static void conv_gather_${dtype}(const int tid, const conv_plan *g, const conv_block *k, const ${T} *patch, const ${T} *right,
                                 const long padded, const long first, const long end, ${T} *partial) {
  (void)tid;
  const long whole = g->vectors * ${lanes}, positions = conv_span(g, 2, g->blockColumns);
  conv_stretch stretches[g->blockPlanes * g->blockRows];
  const long columns = conv_least(end * whole, g->columns) - first * whole;
  for (long t = 0; t < g->taps[0] * g->taps[1]; t++) {
    const long j = t / g->taps[1], i = t % g->taps[1];
    conv_stretch *stop = stretches;
    for (long p = 0; p < k->planes; p++)
      for (long r = 0; r < k->rows; r++) {
        if (!conv_inside(g, 0, (k->plane + p) % g->count[0], j) || !conv_inside(g, 1, k->h + r, i)) continue;
        const long row = j * conv_span(g, 1, g->blockRows) + r * g->stride[1] + i * g->dilation[1];
        *stop++ = (conv_stretch){p * g->patch + row * positions * g->channels,
                                 (p * g->blockRows + r) * g->blockColumns * padded};
      }
    COUNT(2 * (stop - stretches) * conv_pairs(g, k) * g->channels * columns);
    if (stop == stretches) continue;
    for (long n = 0; n < g->stretches; n++) {
      const ${T} *left = patch + n * g->dilation[2] * g->channels;
      ${T} *out = partial + (t * g->stretches + n) * g->depth * padded;
      for (long panel = first; panel < end; panel++)
        for (long row = 0; row < g->depth; row += g->rows) {
          const int tile = 2 * (panel == g->panels - 1) + (row + g->rows > g->depth);
          ((conv_tile_${dtype} *)g->tiles[tile])(stretches, stop, k->columns, left + row, right + panel * whole,
                                         out + row * padded + panel * whole, padded, 1);
        }
    }
  }
}

static void conv_weight_${dtype}(const int tid, const conv_plan *g, const ${T} *in, const ${T} *dy, ${T} *dw, void *scratch,
                                 const long sharedBytes, const long privateBytes) {
  const long whole = g->vectors * ${lanes}, padded = ((g->panels - 1) * g->vectors + g->tailVectors) * ${lanes};
  const long rows = g->taps[0] * g->taps[1] * g->taps[2] * g->channels, blocks = conv_blocks(g);
  const long leaves = g->runs * g->leaves, items = leaves * g->parts, leafSize = g->groups * rows * padded;
  ${T} *partial = scratch, *patch = (${T} *)((char *)scratch + sharedBytes + tid * privateBytes);
  ${T} *results = patch + g->blockPlanes * g->patch;
  for (long item = items * tid / THREADS; item < items * (tid + 1) / THREADS; item++) {
    const long leaf = item / g->parts, part = item % g->parts;
    const long first = g->panels * part / g->parts, end = g->panels * (part + 1) / g->parts;
    const long width = (end == g->panels ? padded : end * whole) - first * whole;
    ${T} *sum = partial + leaf * leafSize;
    for (long row = 0; row < g->groups * rows; row++)
      memset(sum + row * padded + first * whole, 0, (size_t)width * sizeof *sum);
    const long own = leaf % g->leaves, plane = leaf / g->leaves * g->batch * g->count[0];
    for (long unit = blocks * own / g->leaves; unit < blocks * (own + 1) / g->leaves; unit++) {
      conv_block k = conv_block_at(g, unit);
      k.plane += plane;
      for (long group = 0; group < g->groups; group++) {
        for (long p = 0; p < k.planes; p++) {
          conv_patch_${dtype}(g, &k, k.plane + p, in + group * g->channels, patch + p * g->patch);
          conv_results_${dtype}(g, &k, k.plane + p, dy + group * g->columns, first, end, padded,
                                results + p * g->blockRows * g->blockColumns * padded);
        }
        conv_gather_${dtype}(tid, g, &k, patch, results, padded, first, end, sum + group * rows * padded);
      }
    }
  }
  team_barrier(tid);
  for (long row = g->groups * rows * tid / THREADS; row < g->groups * rows * (tid + 1) / THREADS; row++) {
    ${T} *sum = partial + row * padded;
    for (long gap = 1; gap < leaves; gap *= 2)
      for (long leaf = 0; leaf + gap < leaves; leaf += 2 * gap) {
        ${T} *into = sum + leaf * leafSize;
        const ${T} *other = into + gap * leafSize;
        for (long n = 0; n < g->columns; n++) into[n] += other[n];
      }
    memcpy(dw + row % rows * g->groups * g->columns + row / rows * g->columns, sum, (size_t)g->columns * sizeof *sum);
  }
}
`,
    },
  ]
}
