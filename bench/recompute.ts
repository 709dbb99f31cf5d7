/**
 * `npm run bench recompute`: peak memory against step time of the 6x384 recipe, from keeping everything for the backward
 * pass to keeping as little as can be. Each point is a budget that the compiler solves, then a process of its own that
 * runs it: its memory is the peak of the process less what it held before its first step. Writes the curve as
 * docs/images/recompute.svg.
 */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { resolveConfig } from '../src/models/language/config.ts'
import { compileStep } from '../src/train/step.ts'
import { readOptions } from './options.ts'
import { characters, describeConfig, gpt2Blocks } from './recipes.ts'
import { curve } from './recompute-plot.ts'

export interface Point {
  readonly budgetBytes: number
  /** What the compiler plans. */
  readonly plannedBytes: number
  readonly heldBytes: number
  readonly extraFlops: number
  readonly seconds: number
  readonly predictedSeconds: number
}

const blocks = gpt2Blocks(6, 384, 6, 256, 16)
const numPoints = 9

export async function main(args: readonly string[]): Promise<void> {
  const { threads, rounds } = readOptions(args, { rounds: 3, seconds: 1 })
  const base = resolveConfig({ ...blocks, threads })
  const arena = async (recompute: 'none' | 'full'): Promise<number> =>
    (await compileStep({ ...base, recompute }, characters, { target: 'text' })).memory.arenaBytes
  const [most, least] = [await arena('none'), await arena('full')]
  console.log(`${describeConfig(base)}\n`)
  console.log(' budget  planned     held  differ  more FLOPs   step  predicted')
  const points: Point[] = []
  for (let i = 0; i < numPoints; i++) {
    const budgetBytes = Math.ceil(most + ((least - most) * i) / (numPoints - 1))
    const { planned, held, flops, extraFlops, extraSeconds, seconds } = inProcess(
      budgetBytes,
      threads,
      rounds,
    )
    // The only time that is measured beforehand is that of the first point; the rest is the compiler's cost model.
    const predictedSeconds = (points[0]?.seconds ?? seconds) + extraSeconds
    points.push({
      budgetBytes,
      plannedBytes: planned,
      heldBytes: held,
      extraFlops,
      seconds,
      predictedSeconds,
    })
    const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`.padStart(8)
    const percent = (share: number): string => `${(share * 100).toFixed(1)} %`
    console.log(
      `${mebibytes(budgetBytes)} ${mebibytes(planned)} ${mebibytes(held)} ` +
        `${percent(held / planned - 1).padStart(6)}  ${percent(extraFlops / (flops - extraFlops)).padStart(10)} ` +
        `${seconds.toFixed(2).padStart(5)} s ${predictedSeconds.toFixed(2).padStart(7)} s`,
    )
  }
  const file = new URL('../docs/images/recompute.svg', import.meta.url)
  writeFileSync(file, curve(points, describeConfig(base)))
  console.log(`\nwritten: docs/images/recompute.svg`)
}

interface Measured {
  readonly planned: number
  readonly held: number
  readonly flops: number
  readonly extraFlops: number
  readonly extraSeconds: number
  readonly seconds: number
}

/** One budget in a fresh process: median seconds of a step, and its peak memory beyond what it held before. */
function inProcess(budgetBytes: number, threads: number, rounds: number): Measured {
  const from = (path: string): string => JSON.stringify(new URL(`../${path}`, import.meta.url).href)
  const source = `
    const { resolveConfig } = await import(${from('src/models/language/config.ts')})
    const { compileStep } = await import(${from('src/train/step.ts')})
    const config = resolveConfig(${JSON.stringify({ ...blocks, threads, memory: budgetBytes })})
    const program = await compileStep(config, ${characters})
    gc()
    const before = process.memoryUsage.rss()
    // In place, since arrays made here would count as held.
    for (const path of program.inputs.keys()) {
      const values = path.startsWith('state.params') ? program.view(path) : []
      for (let i = 0; i < values.length; i++) values[i] = ((i * 7919) % 1000) * 4e-5 - 0.02
    }
    const tokens = Int32Array.from(program.view('tokens'), (_, i) => (i * 7919 + (i >> 4)) % ${characters})
    const times = []
    for (let i = 0; i <= ${rounds}; i++) {
      const started = performance.now()
      await program.run({ tokens, seed: [1] })
      times.push((performance.now() - started) / 1000)
    }
    const seconds = times.slice(1).toSorted((a, b) => a - b)[${Math.floor(rounds / 2)}]
    const held = process.resourceUsage().maxRSS * 1024 - before
    const { memory, flops, recomputed } = program
    console.log(JSON.stringify({
      planned: memory.arenaBytes, held, flops, seconds,
      extraFlops: recomputed.extraFlops, extraSeconds: recomputed.extraSeconds }))`
  const out = execFileSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', source])
  return JSON.parse(out.toString()) as Measured
}
