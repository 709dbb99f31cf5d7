/** What the tests of parallel plans share: plans from short texts, deterministic inputs, and one device to compare with. */
import assert from 'node:assert/strict'
import type { Mesh, MeshAxis, Order } from '../src/compiler/graph/mesh.ts'
import { bodyOf, reachable, type Func } from '../src/compiler/graph/node.ts'
import { compile, sizeOf, type CompileOptions, type Program } from '../src/compiler/index.ts'
import { scanAttrs, scanOp } from '../src/compiler/ops/scan.ts'
import type { Parallel, StageSource } from '../src/compiler/ranked.ts'
import { resolveConfig, type LanguageConfig, type LanguageOverrides } from '../src/models/language/config.ts'
import { parallelOf, type Plan } from '../src/parallel/plan.ts'
import { makeSchedule, type Schedule } from '../src/parallel/schedule/index.ts'
import { pipelineSources } from '../src/train/pipeline.ts'
import type { Source } from '../src/train/programs.ts'

export const vocab = 16

/** A plan from its shortest text: `data=2 tensor=2 zero=3 sequence`. */
export function planOf(text: string): Plan {
  const plan = { mesh: [] as MeshAxis[], zero: 0, sequence: false, attention: 'gather' }
  for (const word of text.split(' ')) {
    const [name, value] = word.split('=') as [string, string?]
    if (name === 'zero') plan.zero = Number(value)
    else if (name === 'sequence') plan.sequence = true
    else if (name === 'attention') plan.attention = value!
    else if (value !== undefined) plan.mesh.push({ name, size: Number(value) })
  }
  if (plan.attention === 'ring') {
    plan.mesh = plan.mesh.map((axis) => (axis.name === 'context' ? { ...axis, order: 'zigzag' } : axis))
  }
  return plan as unknown as Plan
}

export const configOf = (overrides: LanguageOverrides): LanguageConfig =>
  resolveConfig({
    batch: 4,
    steps: 10,
    optim: { name: 'adamw' },
    ...overrides,
    model: { layers: 2, width: 16, heads: 4, kvHeads: 4, context: 8, ...overrides.model },
  } as LanguageOverrides)

/** What `compile` takes for a plan without a pipeline. */
export const spread = (text: string): Parallel => parallelOf(planOf(text))

/** What `compile` takes for a plan with one. `change` turns its schedule into another. */
export function pipelined(
  config: LanguageConfig,
  text: string,
  name: string,
  stagesPerRank = 1,
  change: (schedule: Schedule) => Schedule = (schedule) => schedule,
): Parallel {
  return inStages(text, name, config.accumulate, stagesPerRank, change, (mesh, schedule) =>
    pipelineSources(config, vocab, mesh, 'pipe', schedule),
  )
}

/** The same for any model: `sources` are the programs of the places along the pipeline. */
export function inStages(
  text: string,
  name: string,
  microbatches: number,
  stagesPerRank: number,
  change: (schedule: Schedule) => Schedule,
  sources: (mesh: Mesh, schedule: Schedule) => StageSource[],
): Parallel {
  const plan = planOf(text)
  const { size } = plan.mesh.find((axis) => axis.name === 'pipe')!
  const schedule = change(makeSchedule(name, { ranks: size, microbatches, stagesPerRank }))
  const order: Order = name === 'dualpipe-v' ? 'zigzag' : stagesPerRank
  const mesh = plan.mesh.map((axis) => (axis.name === 'pipe' && order !== 1 ? { ...axis, order } : axis))
  return { ...parallelOf({ ...plan, mesh }), pipeline: { axis: 'pipe', stages: sources(mesh, schedule) } }
}

/** Deterministic values of a sensible kind for every input. */
export function fillInputs(program: Program): void {
  let seed = 1
  const random = (): number => (seed = (seed * 16807) % 2147483647) / 2147483647
  for (const [path, { dtype, shape }] of program.inputs) {
    const values = Array.from({ length: sizeOf(shape) }, () =>
      path === 'tokens' || path === 'labels'
        ? Math.floor(random() * vocab)
        : dtype === 'i32'
          ? 3
          : path.endsWith('.v')
            ? random() / 10
            : random() - 0.5,
    )
    program.write(path, values)
  }
}

/** FLOPs of all matrix products and convolutions, of all ranks together. */
export function productFlops({ func, cut }: Program): number {
  const of = (func: Func): number =>
    reachable(func.results).reduce((total, node) => {
      const inner = bodyOf(node)
      if (node.op === scanOp) return total + scanAttrs(node).length * of(inner!)
      return total + (inner ? of(inner) : node.op.kind === 'product' ? node.op.flops(node) : 0)
    }, 0)
  return cut ? cut.parts.reduce((total, { func, ranks }) => total + ranks.length * of(func), 0) : of(func)
}

/** A program that has run once. */
export async function ran(
  source: Pick<Source, 'inputs' | 'body'>,
  options: CompileOptions,
  fill: (program: Program) => void = fillInputs,
): Promise<Program> {
  const program = await compile(source.body, source.inputs, { target: 'reference', ...options })
  fill(program)
  program.runBlocking()
  return program
}

/** All outputs of two programs agree: loss, norm, parameters and optimizer state. */
export function assertAgree(what: string, one: Program, many: Program, within: number): void {
  for (const path of one.outputs.keys()) {
    const [want, got] = [Array.from(one.view(path)), Array.from(many.view(path))]
    const scale = want.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-3)
    const worst = want.reduce((most, x, i) => Math.max(most, Math.abs(x - got[i]!) / scale), 0)
    assert.ok(worst <= within, `${what}: ${path} differs by ${worst}`)
  }
}
