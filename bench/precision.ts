/**
 * A training step in f32, bf16 and fp16, taking turns so that both see the same machine: `npm run bench precision`. The
 * default is a character model of six layers by 384, 256 tokens, batch 16.
 */
import { parseArgs } from 'node:util'
import { resolveConfig } from '../src/models/language/config.ts'
import { languageStepBench } from '../src/train/bench-step.ts'

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string', default: '7' },
      layers: { type: 'string', default: '6' },
      width: { type: 'string', default: '384' },
      batch: { type: 'string', default: '16' },
      threads: { type: 'string', default: '0' },
    },
  })
  const [rounds, layers, width] = [Number(values.rounds), Number(values.layers), Number(values.width)]
  const benches = await Promise.all(
    (['f32', 'bf16', 'fp16'] as const).map(async (precision) => {
      const config = resolveConfig({
        precision,
        batch: Number(values.batch),
        threads: Number(values.threads),
        model: { block: 'gpt2', layers, width, heads: width / 64, context: 256 },
        optim: { name: 'adamw', lr: 1e-3 },
      })
      return { precision, bench: await languageStepBench(config), seconds: [] as number[] }
    }),
  )
  for (const { bench } of benches) await bench.run(1)
  for (let round = 0; round < rounds; round++)
    for (const { bench, seconds } of benches) seconds.push(await bench.run(1))
  const medians = benches.map(({ precision, bench, seconds }) => {
    const median = seconds.toSorted((a, b) => a - b)[Math.floor(seconds.length / 2)]!
    const rate = bench.flopsPerStep / median / 1e9
    const tokens = bench.tokensPerStep / median
    console.log(
      `${precision.padEnd(4)}  ${median.toFixed(3)} s a step (best ${Math.min(...seconds).toFixed(3)}), ` +
        `${rate.toFixed(0)} GFLOP/s, ${tokens.toFixed(0)} tokens/s`,
    )
    bench.close()
    return median
  })
  console.log(
    `bf16 is ${(medians[0]! / medians[1]!).toFixed(2)} times as fast, fp16 ${(medians[0]! / medians[2]!).toFixed(2)} times`,
  )
}
