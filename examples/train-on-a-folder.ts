/**
 * Trains a small language model on a folder of text and lets it write. Run it with
 * `npx node examples/train-on-a-folder.ts [FOLDER] [STEPS]`; without a folder it trains on this repository's sources.
 * In a project of your own, import from 'anneal'.
 */
import { fileURLToPath } from 'node:url'
import { gpt, text, train } from '../src/index.ts'

const [folder = fileURLToPath(new URL('../src/compiler', import.meta.url)), steps = '60'] =
  process.argv.slice(2)

const data = await text(folder, { tokenizer: 'bytes' })
console.log(`${data.documents} documents, ${data.bytes} bytes, ${data.skipped.length} files skipped`)

const run = await train(gpt({ layers: 2, width: 64, context: 64 }), {
  data,
  steps: Number(steps),
  batch: 8,
  eval: { every: 0 },
  save: { every: 0 },
  sample: { every: 0, tokens: 1 },
  runsDir: process.env['ANNEAL_RUNS'] ?? 'runs',
  observer: {
    plan: (plan) => console.log(`${plan.parameters} parameters, ${plan.flopsPerStep} FLOPs a step`),
    point: ({ step, metrics }) => {
      if (step % 20 === 0) console.log(`step ${step}  loss ${metrics['loss']!.toFixed(3)}`)
    },
  },
})

console.log(`validation loss ${run.validationLoss!.toFixed(3)} nats a byte; run ${run.id}`)
console.log(`export ${await run.sample('export ', { tokens: 80 })}`)
