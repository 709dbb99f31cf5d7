/**
 * `npm run bench js`: the 4x128 training step of `npm run bench step` beside the other two ways to train in JavaScript,
 * jax-js and TensorFlow.js, both on their WebAssembly backends in Node.
 */
import { resolveConfig } from '../src/models/language/config.ts'
import { languageStepBench } from '../src/train/bench-step.ts'
import { readOptions } from './options.ts'
import { jsInstalled, startJs } from './peer.ts'
import { characters, describeConfig, gpt2Blocks, torchRecipe } from './recipes.ts'
import { sideBySide } from './side-by-side.ts'

export async function main(args: readonly string[]): Promise<void> {
  const options = readOptions(args, { rounds: 5, seconds: 1 })
  const config = resolveConfig({ ...gpt2Blocks(4, 128, 4, 64, 12), threads: options.threads })
  console.error('js: preparing…')
  const recipe = torchRecipe(config, characters)
  const ours = new Map([['Anneal', await languageStepBench(config, characters)]])
  const peers = jsInstalled()
    ? [
        await startJs('jax-js', 'jax.mjs', recipe, options.threads),
        await startJs('TensorFlow.js', 'tfjs.mjs', recipe, 1),
      ]
    : []
  const notes = jsInstalled()
    ? [
        `jax-js ${peers[0]?.version} runs on ${peers[0]?.threads} threads; TensorFlow.js ${peers[1]?.version} on one, the most its WebAssembly backend has in Node`,
      ]
    : ['jax-js and TensorFlow.js are not installed here (bench/peers/js/install.sh): ours only']
  await sideBySide({ bench: 'js', name: '4x128', title: describeConfig(config), ours, peers, notes }, options)
}
