/** The models that the benchmarks of whole training steps share, and how the peers are told about them. */
import type { LanguageConfig, LanguageOverrides } from '../src/models/language/config.ts'

/** Characters of the bundled text. */
export const characters = 65

/** GPT-2 blocks trained as nanoGPT trains its character models. */
export const gpt2Blocks = (
  layers: number,
  width: number,
  heads: number,
  context: number,
  batch: number,
): LanguageOverrides => ({
  batch,
  model: { block: 'gpt2', layers, width, heads, context },
  optim: { name: 'adamw', lr: 1e-3, beta2: 0.99, weightDecay: 0.1, clip: 1 },
})

/** A configuration in the words of peers/torch_models.py. */
export function torchRecipe({ model, optim, batch }: LanguageConfig, vocab: number): object {
  const { layers, width, heads, context } = model
  const sizes = { layers, width, heads, context, batch, vocab }
  if (model.block === 'modern') return { block: 'modern', ...sizes, muonLr: optim.lr, adamLr: optim.adamLr }
  const { lr, beta1, beta2, weightDecay, clip } = optim
  return { block: 'classic', ...sizes, lr, betas: [beta1, beta2], eps: 1e-10, weightDecay, clip }
}

/** A configuration in words, without its name. */
export const describeConfig = ({ model, batch, threads, optim }: LanguageConfig): string =>
  `${model.layers} x ${model.width}, ${model.heads} heads, context ${model.context}, batch ${batch}, ` +
  `${optim.name}, f32, ${threads} threads`
