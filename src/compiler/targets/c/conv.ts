/**
 * Convolutions in C, forward and both gradients, as implicit matrix products: see conv-plan.ts for how they are cut and
 * conv-drivers.ts for the text. Forward and to the input, threads share blocks of results; to the weight, they share a
 * fixed number of partial sums, which are added in a fixed tree.
 */
import { convGeometryFlops } from '../../ops/convolution.ts'
import { emitCorrelate, emitWeight, planFields, planTriples } from './conv-drivers.ts'
import {
  cutPhase,
  cutWeight,
  packedElements,
  paddedColumns,
  phasesOf,
  scratchOf,
  stretchDepth,
  stretches,
  type ConvCut,
  type ConvPhase,
  type ConvSpec,
} from './conv-plan.ts'
import { convTileName, convTileType, emitConvTile, type ConvTile } from './conv-tile.ts'
import type { EmittedKernel } from './gemm.ts'
import { cTypes, lanesOf, type Float, type VectorTarget } from './prelude.ts'

export type { ConvSpec } from './conv-plan.ts'

/** C text of `static void NAME(const int tid, a, b, out, void *scratch)`: dense operands and result. */
export function emitConv(name: string, spec: ConvSpec, target: VectorTarget): EmittedKernel {
  const { code, ...rest } =
    spec.result === 'w' ? weightKernel(name, spec, target) : phasesKernel(name, spec, target)
  const T = cTypes[spec.dtype]
  return {
    ...rest,
    code: `
/* ${describe(spec)}: ${convGeometryFlops(spec.geometry)} operations. */
${code[0]}
static void ${name}(const int tid, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  ${code[1]}
}
`,
  }
}

interface Kernel extends Omit<EmittedKernel, 'code'> {
  readonly code: readonly [plan: string, call: string]
}

function phasesKernel(name: string, spec: ConvSpec, target: VectorTarget): Kernel {
  const { dtype, geometry } = spec
  const lanes = lanesOf(dtype, target)
  const phases = phasesOf(spec)
  const cuts = phases.map((phase) => cutPhase(phase, geometry.batch, dtype, target))
  let packed = 0
  const plans = phases.map((phase, i) => {
    const text = planText(spec, phase, cuts[i]!, tilesOf(phase, cuts[i]!, dtype, 'depth', lanes), { packed })
    packed += packedElements(phase, cuts[i]!, geometry.groups, lanes)
    return text
  })
  const shared = scratchOf(packed, dtype)
  const own = scratchOf(Math.max(...cuts.map(({ blockPlanes, patch }) => blockPlanes * patch)), dtype)
  return {
    code: [
      `static const conv_plan ${name}_phases[] = {${plans.join(', ')}};`,
      `conv_phases_${dtype}(tid, ${name}_phases, ${phases.length}, a, b, out, scratch, ${shared}, ${own});`,
    ],
    support: [
      convTileType(dtype),
      ...cuts.flatMap((cut, i) => tilesOf(phases[i]!, cut, dtype, 'depth', lanes).map(emitConvTile)),
      ...emitCorrelate(dtype),
    ],
    scratchBytes: shared + target.threads * own,
  }
}

function weightKernel(name: string, spec: ConvSpec, target: VectorTarget): Kernel {
  const { dtype, geometry } = spec
  const lanes = lanesOf(dtype, target)
  const [phase] = phasesOf(spec) as [ConvPhase]
  const cut = cutWeight(phase, spec, target)
  const tiles = tilesOf(phase, cut, dtype, 'rows', lanes)
  const shared = scratchOf(cut.runs * cut.leaves * packedElements(phase, cut, geometry.groups, lanes), dtype)
  const results = cut.blockPlanes * cut.blockRows * cut.blockColumns * paddedColumns(cut, lanes)
  const own = scratchOf(cut.blockPlanes * cut.patch + results, dtype)
  return {
    code: [
      `static const conv_plan ${name}_plan = ${planText(spec, phase, cut, tiles, cut)};`,
      `conv_weight_${dtype}(tid, &${name}_plan, a, b, out, scratch, ${shared}, ${own});`,
    ],
    support: [convTileType(dtype), ...tiles.map(emitConvTile), ...emitWeight(dtype)],
    scratchBytes: shared + target.threads * own,
  }
}

function tilesOf(
  phase: ConvPhase,
  cut: ConvCut,
  dtype: Float,
  contiguous: ConvTile['contiguous'],
  lanes: number,
): ConvTile[] {
  const aStep = phase.stride[2] * phase.channels
  // Weights lie in panels, results in whole rows.
  const bRow = (vectors: number): number =>
    contiguous === 'depth' ? vectors * lanes : paddedColumns(cut, lanes)
  return [cut.vectors, cut.tailVectors].flatMap((vectors) =>
    [cut.rows, cut.tailRows].map((rows) => ({
      dtype,
      rows,
      vectors,
      contiguous,
      aStep,
      bRow: bRow(vectors),
    })),
  )
}

function planText(
  { geometry }: ConvSpec,
  phase: ConvPhase,
  cut: ConvCut,
  tiles: readonly ConvTile[],
  more: Partial<Record<'packed' | 'batch' | 'runs' | 'leaves' | 'parts', number>>,
): string {
  const values: Partial<Record<(typeof planFields)[number], number>> = {
    batch: geometry.batch,
    ...phase,
    ...cut,
    ...more,
    groups: geometry.groups,
    stretches: stretches(phase),
    depth: stretchDepth(phase),
  }
  const fields = planFields.filter((field) => values[field] !== undefined)
  const pointers = tiles.map((tile) => `(const void *)${convTileName(tile)}`)
  return `{
  ${fields.map((field) => `.${field} = ${values[field]}`).join(', ')},
  ${planTriples.map((field) => `.${field} = {${phase[field].join(', ')}}`).join(', ')},
  .tiles = {${pointers.join(', ')}}}`
}

function describe({ result, geometry }: ConvSpec): string {
  const { batch, source, kernel, channels, columns } = geometry
  const what = { y: 'convolution', x: "input's gradient", w: "weight's gradient" }[result]
  return `${what}: ${batch} x ${source.join(' x ')} x ${channels} by ${kernel.join(' x ')} to ${columns}`
}
