/** One run of a recipe with one seed, to the end it declares, to its budget, or to where whoever asked has seen enough. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { findCompiler } from '../../compiler/runtime/toolchain.ts'
import { machine } from '../../compiler/runtime/machine.ts'
import { failure } from '../../errors.ts'
import { sha256Of, type CurvePoint, type Run } from './board-files.ts'
import { chargedFlop, noPhases, type Measurement, type PhaseCounts, type Recipe, type Task } from './task.ts'

export interface Watch {
  readonly signal?: AbortSignal
  /** Sees every measurement; true ends the run. */
  point?(curve: readonly CurvePoint[], measured: Measurement): boolean | void
}

export interface Outcome {
  /** `enough`: whoever asked ended it. */
  readonly ended: Exclude<Run['ended'], 'reached'> | 'enough'
  readonly curve: readonly CurvePoint[]
  readonly phases: PhaseCounts
  readonly test?: number
  readonly wallMs: number
}

/** Null when it was interrupted. */
export async function trainOnce(
  task: Pick<Task, 'train' | 'evalEvery' | 'budgetFlop' | 'data'>,
  recipe: Recipe,
  seed: number,
  { signal, point }: Watch = {},
): Promise<Outcome | null> {
  checkData(task.data)
  const started = performance.now()
  const curve: CurvePoint[] = []
  let counts = noPhases
  const outcome = (ended: Outcome['ended'], test?: number): Outcome => ({
    ended,
    curve,
    phases: counts,
    ...(test === undefined ? {} : { test }),
    wallMs: Math.round(performance.now() - started),
  })
  const training = task.train({ recipe, seed, evalEvery: task.evalEvery })
  try {
    for (;;) {
      const next = await training.next()
      if (next.done) return outcome('declared', next.value.test)
      const measured = next.value
      counts = measured.phases
      if (signal?.aborted) return null
      if (!Number.isFinite(measured.metric)) return outcome('diverged')
      curve.push([chargedFlop(counts), measured.step, measured.samples, measured.metric])
      if (point?.(curve, measured) === true) return outcome('enough')
      if (chargedFlop(counts) >= task.budgetFlop) return outcome('budget')
    }
  } finally {
    await training.return({})
  }
}

const checked = new Set<string>()

/** Other data would be another task. */
function checkData(data: Task['data']): void {
  if (!data || checked.has(data.sha256)) return
  const found = sha256Of(readFileSync(fileURLToPath(new URL(`../../../${data.file}`, import.meta.url))))
  if (found !== data.sha256)
    throw failure({
      where: data.file,
      got: `sha256 ${found}`,
      expected: `${data.sha256}, the data of the task`,
      fix: 'restore the file',
    })
  checked.add(data.sha256)
}

/** What the bits of a metric depend on besides the program: processor, instructions, C compiler. */
export async function machineKind(): Promise<string> {
  const [{ cpuModel, features }, compiler] = [await machine(), await findCompiler()]
  return `${cpuModel}; ${features.join(' ')}; ${compiler.version}`
}
