/**
 * What ranks cost: a step of the default recipe on one rank with the whole machine, beside the same step on ranks that
 * share it, in turns; how long ranks spend in collectives; and how fast messages between them are.
 */
import { sizeOf, type Program } from '../src/compiler/index.ts'
import { resolveConfig } from '../src/models/language/config.ts'
import { measureLink } from '../src/parallel/links.ts'
import { parallelOf } from '../src/parallel/plan.ts'
import { initialise } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'
import { readOptions } from './options.ts'
import { characters } from './recipes.ts'

const config = resolveConfig({})

export async function main(args: readonly string[]): Promise<void> {
  const { rounds, seconds, threads } = readOptions(args, { rounds: 7, seconds: 1 })
  const mesh = [{ name: 'data', size: 2 }]
  const contestants = await Promise.all([
    prepared(`1 rank x ${threads} threads`, { threads }),
    ...([0, 3] as const).map((zero) =>
      prepared(`2 ranks x ${threads / 2} threads, data=2${zero > 0 ? ` zero=${zero}` : ''}`, {
        threads: Math.max(1, Math.floor(threads / 2)),
        parallel: parallelOf({ mesh, zero, sequence: false, attention: 'gather' }),
      }),
    ),
  ])
  const times = contestants.map((): number[] => [])
  for (let round = 0; round < rounds; round++) {
    contestants.forEach(({ program }, i) => times[i]!.push(slice(program, seconds)))
  }
  const typical = times.map(median)
  contestants.forEach(({ name, program }, i) => {
    const { sites, runs } = program.profile()
    const waited = sites.reduce((sum, site) => sum + (site.communication ? site.seconds : 0), 0)
    const sent = program
      .traffic()
      .reduce((sum, { calls, bytesSent }) => sum + bytesSent[0]!.reduce((a, b) => a + b, 0) / calls, 0)
    console.log(
      `${name}: ${(1e3 * typical[i]!).toFixed(2)} ms a step, ${(typical[i]! / typical[0]!).toFixed(3)} of the first; ` +
        `collectives ${((1e3 * waited) / runs).toFixed(2)} ms, ${(sent / 1e6).toFixed(2)} MB sent by rank 0`,
    )
    program.close()
  })
  const { latency, bandwidth } = await measureLink(2)
  console.log(
    `threads: ${(1e6 * latency).toFixed(2)} us a message, ${(bandwidth / 1e9).toFixed(2)} GB/s each way`,
  )
}

async function prepared(
  name: string,
  options: Parameters<typeof compileStep>[2],
): Promise<{ readonly name: string; readonly program: Program }> {
  const program = await compileStep(config, characters, { profile: true, ...options })
  initialise(program, config, characters)
  const count = sizeOf(program.inputs.get('tokens')!.shape)
  program.write(
    'tokens',
    Int32Array.from({ length: count }, (_, i) => (i * 31) % characters),
  )
  program.runBlocking()
  program.profile()
  return { name, program }
}

/** Seconds a step, over about so many seconds. */
function slice(program: Program, seconds: number): number {
  const began = performance.now()
  let steps = 0
  do program.runBlocking()
  while (++steps < 1e6 && performance.now() - began < 1000 * seconds)
  return (performance.now() - began) / 1000 / steps
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
