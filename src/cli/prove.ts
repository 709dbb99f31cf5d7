/**
 * `anneal prove <recipe> mesh.data=2 …`: runs a parallel plan beside one device and prints how far they differ: in
 * float64 on simulated ranks, then in the run's own precision on ranks that are threads, with the time, memory and bytes
 * of both. Fails when they are not the same calculation.
 */
import type { Comparison } from '../train/prove.ts'
import type { Command } from './command.ts'
import { formatBytes, formatTable } from './format.ts'
import { parseOverrides } from './overrides.ts'
import { defaultRecipe, findRecipe } from './recipes.ts'

/** Loss of f32 against one device: rounding, which grows with the steps. */
const lossWithin = 1e-5

export const prove: Command = {
  arguments: [`what to train: ${defaultRecipe}`, 'key=value, among them a mesh: mesh.data=2 mesh.tensor=2'],
  options: [['--steps <n>', 'steps on threads', '5']],
  examples: [
    'anneal prove language mesh.data=2',
    'anneal prove language mesh.data=2 mesh.tensor=2 parallel.zero=3 parallel.sequence=true',
    'anneal prove language mesh.pipe=2 accumulate=4 parallel.schedule=1f1b',
  ],
  async run(io, [name = '', ...settings], options) {
    const recipe = findRecipe(name)
    const { languageConfigSchema, resolveConfig } = await recipe.config()
    const config = resolveConfig(parseOverrides(languageConfigSchema, settings))
    const { comparePlan, cutDown, exactWithin } = await import('../train/prove.ts')
    const { badUsage } = await import('../errors.ts')
    const steps = Number(options['steps'])
    if (!Number.isInteger(steps) || steps < 1) {
      throw badUsage({
        where: '--steps',
        got: String(options['steps']),
        expected: 'a whole number from 1',
        fix: 'use --steps 5',
      })
    }
    io.note('in float64, on simulated ranks…')
    const small = cutDown(config)
    const exact = await comparePlan(small, 16 * config.mesh.tensor, { steps: 2, target: 'reference' })
    io.note('on ranks that are threads…')
    const real = await comparePlan(config, 64, { steps, target: 'c' }, (done, of) =>
      io.note(`step ${done} of ${of}`),
    )
    const worst = exact.differences[0]!
    const worstLoss = Math.max(...real.losses)
    const proved = worst.relative <= exactWithin && worstLoss <= lossWithin
    io.result(describe(exact, real, proved).join('\n'), {
      proved,
      exact: summary(exact),
      real: summary(real),
    })
    return proved ? 0 : 1
  },
}

const summary = ({ config, ...rest }: Comparison): object => ({
  ...rest,
  mesh: config.mesh,
  differences: rest.differences.slice(0, 10),
})

function describe(exact: Comparison, real: Comparison, proved: boolean): string[] {
  const { model, batch } = exact.config
  const [worst] = exact.differences
  const sent = real.traffic.map(({ bytesSent, calls }) => {
    const total = bytesSent.flat().reduce((a, b) => a + b, 0)
    return { total: total / real.steps, calls: calls / real.steps }
  })
  const bytes = sent.reduce((sum, { total }) => sum + total, 0)
  const messages = sent.reduce((sum, { calls }) => sum + calls, 0)
  const rows = [
    [
      'float64',
      `${exact.ranks} simulated ranks, ${model.layers} layers of width ${model.width}, batch ${batch}: worst of ` +
        `${exact.differences.length} results after ${exact.steps} steps differs by ${worst!.relative.toExponential(1)} (${worst!.path})`,
    ],
    [
      'threads',
      real.sameBits
        ? `${real.ranks} ranks: the same bits after ${real.steps} steps`
        : `${real.ranks} ranks: loss differs by at most ${Math.max(...real.losses).toExponential(1)} in ${real.steps} steps`,
    ],
    [
      'memory',
      `${formatBytes(real.arenaBytes.plan)} a rank; ${formatBytes(real.arenaBytes.one)} on one device`,
    ],
    ['sent', `${formatBytes(bytes)} a step by all ranks together, in ${Math.round(messages)} collectives`],
    ['time', `${milliseconds(real.seconds.plan)} a step; ${milliseconds(real.seconds.one)} on one device`],
    ['verdict', proved ? 'the plan computes what one device computes' : 'NOT the same calculation'],
  ]
  return [formatTable(rows)]
}

const milliseconds = (seconds: number): string => `${(1000 * seconds).toPrecision(3)} ms`
