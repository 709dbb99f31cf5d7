/**
 * The configuration of the language recipe: one flat page of settings with a single dial, `model.size`.
 *
 * A person gives overrides; `resolveConfig` fills in the rest and checks the whole. What comes out is plain JSON in
 * which nothing is left open (no `auto`, no missing key, data paths absolute), so a run stores it and a later
 * version with other defaults still resumes that run as it was. Subtle: defaults follow from other settings (heads
 * from width and layers, learning rate from the optimizer), hence a function instead of zod defaults.
 */
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { badUsage, failure, UserError } from '../../errors.ts'
import { checkConfig } from '../check.ts'

const count = z.int().min(1)
const countOrOff = z.int().min(0)
const fraction = z.number().min(0).max(1)
const rate = z.number().gt(0)

const units: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
}

/** Bytes, as a number or as text with a unit. */
const bytes = z.union([z.string(), z.number()]).transform((given, context) => {
  const [, amount, unit] = /^(\d+\.?\d*) *([KMG]?i?B|)$/.exec(String(given)) ?? []
  const value = Math.floor(Number(amount) * (units[unit ?? '?'] ?? Number.NaN))
  if (Number.isSafeInteger(value)) return value
  context.addIssue({ code: 'custom', message: 'bytes, or text like 512MiB or 1.5GiB' })
  return z.NEVER
})

const modelSchema = z.strictObject({
  size: z
    .enum(['nano', 'micro', 'mini', 'small', 'base', 'gpt2'])
    .describe('the one dial; sets layers, width, context'),
  block: z
    .enum(['modern', 'gpt2'])
    .describe('modern: RoPE, RMSNorm, ReLU^2; gpt2: learned positions, LayerNorm, GELU'),
  layers: count,
  width: count,
  heads: count.describe('query heads; width / heads is the head size'),
  kvHeads: count.describe('key and value heads; fewer than heads is grouped-query attention'),
  context: z.int().min(2).describe('tokens a window'),
  dropout: z.number().min(0).lt(1),
})

const optimSchema = z.strictObject({
  name: z.enum(['muon', 'adamw', 'momentum', 'sgd']),
  lr: rate.describe('peak learning rate of the chosen optimizer'),
  adamLr: rate.describe('with muon: learning rate of embeddings, head and scalars'),
  warmup: countOrOff.describe('steps of linear warm-up'),
  cooldown: fraction.describe('fraction of the steps spent on a linear decay to zero'),
  weightDecay: z.number().min(0),
  beta1: z.number().min(0).lt(1),
  beta2: z.number().min(0).lt(1),
  momentum: z.number().min(0).lt(1),
  clip: z.number().min(0).describe('largest global gradient norm; 0 = off'),
})

/** The complete, concrete configuration. Ranges live here; what depends on two settings lives in `resolveConfig`. */
export const languageConfigSchema = z.strictObject({
  data: z.string().min(1).describe("'shakespeare' (bundled), or a text file, JSONL file or folder"),
  tokenizer: z
    .enum(['auto', 'chars', 'bytes', 'bpe'])
    .describe('auto: chars for the bundled text, else bytes'),
  vocab: z.int().min(257).max(65_536).describe('vocabulary of a bpe tokenizer'),
  steps: count,
  batch: count.describe('windows a step'),
  accumulate: count.describe('microbatches the batch is split into'),
  seed: z.int().min(0).max(0xffff_ffff),
  threads: z.int().min(0).max(1024).describe('0 = all cores'),
  precision: z.enum(['f32', 'bf16']),
  recompute: z
    .preprocess(
      (given) => (typeof given === 'boolean' ? (given ? 'full' : 'none') : given),
      z.enum(['none', 'full', 'auto']),
    )
    .describe('activations computed again in the backward pass: none, all, or what memory= needs (auto)'),
  memory: bytes
    .default(0)
    .describe('for recompute=auto: most memory of a training step, e.g. 512MiB; 0 = no limit'),
  offload: z
    .enum(['none', 'optimizer'])
    .default('none')
    .describe('optimizer: its state lies in a file instead of in memory'),
  model: modelSchema,
  optim: optimSchema,
  eval: z.strictObject({ every: countOrOff.describe('steps between evaluations; 0 = only at the end') }),
  save: z.strictObject({
    every: countOrOff.describe('steps between checkpoints; 0 = only at the end'),
    keep: count.describe('checkpoints kept'),
  }),
  sample: z.strictObject({
    every: countOrOff.describe('steps between samples; 0 = only at the end'),
    prompt: z.string().min(1),
    tokens: count,
    temperature: z.number().min(0).describe('0 = always the likeliest token'),
  }),
})

export type LanguageConfig = Readonly<z.output<typeof languageConfigSchema>>

/** Settings given by a person: any subset, nested as in `LanguageConfig`. */
export type LanguageOverrides = {
  readonly [K in Exclude<keyof LanguageConfig, 'recompute' | 'memory'>]?: Overrides<LanguageConfig[K]>
} & {
  /** true: full; false: none. */
  readonly recompute?: LanguageConfig['recompute'] | boolean
  /** Bytes, or text like '512MiB'; asks for recompute=auto. */
  readonly memory?: number | string
}
type Overrides<T> = T extends object ? { readonly [K in keyof T]?: T[K] } : T

export type ModelSize = LanguageConfig['model']['size']

interface Size {
  readonly layers: number
  readonly width: number
  readonly context: number
}

/** The dial: depth sets width, and the head size follows (32 below 8 layers, else 64). */
export const sizes = {
  nano: { layers: 3, width: 64, context: 256 },
  micro: { layers: 4, width: 96, context: 256 },
  mini: { layers: 4, width: 128, context: 256 },
  small: { layers: 6, width: 192, context: 256 },
  base: { layers: 6, width: 384, context: 256 },
  gpt2: { layers: 12, width: 768, context: 1024 },
} as const satisfies Record<ModelSize, Size>

/** Peak learning rates that train the small sizes well; adamw's is nanoGPT's for character models. */
const learningRates = { muon: 0.03, adamw: 1e-3, momentum: 0.05, sgd: 0.2 } as const

const bundledText = fileURLToPath(new URL('../../../data/text/tinyshakespeare.txt', import.meta.url))

/** Where the text of a config lies: the bundled file for 'shakespeare', else the path itself. */
export const dataPath = (config: Pick<LanguageConfig, 'data'>): string =>
  config.data === 'shakespeare' ? bundledText : config.data

/**
 * Fills in every setting that was not given and checks the result. `cwd` is where a relative `data` path starts.
 * @throws UserError (exit 2) naming the setting, what was got and what was expected.
 */
export function resolveConfig(
  overrides: LanguageOverrides = {},
  cwd: string = process.cwd(),
): LanguageConfig {
  const { model = {}, optim = {}, eval: evaluation = {}, save = {}, sample = {}, ...top } = overrides
  const size = sizes[model.size ?? 'nano'] ?? sizes.nano
  const layers = model.layers ?? size.layers
  const width = model.width ?? size.width
  const heads = model.heads ?? defaultHeads(layers, width)
  const optimizer = optim.name ?? 'muon'
  const steps = top.steps ?? 1465
  const cooldown = optim.cooldown ?? 0.5
  const bundled = (top.data ?? 'shakespeare') === 'shakespeare'
  const tokenizer = top.tokenizer ?? 'auto'

  const config = checkConfig(languageConfigSchema, {
    vocab: 1024,
    batch: 16,
    accumulate: 1,
    seed: 1,
    threads: 0,
    precision: 'f32',
    recompute: top.memory === undefined || top.memory === 0 ? 'none' : 'auto',
    memory: 0,
    offload: 'none',
    ...top,
    steps,
    data:
      bundled || typeof top.data !== 'string' || top.data === ''
        ? (top.data ?? 'shakespeare')
        : resolve(cwd, top.data),
    tokenizer: tokenizer === 'auto' ? (bundled ? 'chars' : 'bytes') : tokenizer,
    model: {
      size: 'nano',
      block: 'modern',
      context: size.context,
      dropout: 0,
      kvHeads: heads,
      ...model,
      layers,
      width,
      heads,
    },
    optim: {
      name: optimizer,
      lr: learningRates[optimizer] ?? learningRates.muon,
      adamLr: 0.01,
      warmup: Math.min(20, Math.floor(steps * (1 - cooldown))),
      cooldown,
      weightDecay: 0,
      beta1: 0.9,
      beta2: 0.95,
      momentum: 0.95,
      clip: 0,
      ...optim,
    },
    eval: { every: 250, ...evaluation },
    save: { every: 250, keep: 2, ...save },
    sample: { every: 500, prompt: bundled ? 'ROMEO:' : '\n', tokens: 200, temperature: 0.8, ...sample },
  })
  checkTogether(config)
  return config
}

/**
 * Checks a configuration that a run stored.
 * @param where the file or folder it was read from, for the error.
 * @throws UserError (exit 1) naming the setting that was damaged.
 */
export function parseStoredConfig(stored: unknown, where: string): LanguageConfig {
  try {
    return checkConfig(languageConfigSchema, stored)
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    const { where: key, got, expected } = error.complaint
    const fix = 'restore its run.json, or start a new run with anneal train'
    throw failure({ where: `${where}: ${key}`, got, expected, fix })
  }
}

/** Head size 32 below 8 layers, else 64; one head when the width does not reach one. */
function defaultHeads(layers: number, width: number): number {
  const headSize = layers < 8 ? 32 : 64
  if (!(width > headSize)) return 1
  if (width % headSize !== 0) {
    throw badUsage({
      where: 'model.width',
      got: `model.width=${width}`,
      expected: `a multiple of ${headSize}, the head size of a model with ${layers} layers`,
      fix: `use model.width=${Math.round(width / headSize) * headSize}, or choose model.heads yourself`,
    })
  }
  return width / headSize
}

/** What no single range can say. */
function checkTogether(config: LanguageConfig): void {
  const { model, batch, accumulate, optim, steps, recompute, memory } = config
  if ((recompute === 'auto') !== memory > 0) {
    throw badUsage({
      where: 'recompute',
      got: `recompute=${recompute} with ${memory > 0 ? `memory=${memory}` : 'no limit of memory'}`,
      expected: 'recompute=auto and a limit, or neither',
      fix: memory > 0 ? 'leave recompute out' : 'add memory=, e.g. memory=512MiB',
    })
  }
  const { width, heads, kvHeads, block } = model
  demand(
    width % heads === 0,
    'model.heads',
    heads,
    `a divisor of model.width=${width}`,
    `try one of ${divisors(width)}`,
  )
  demand(
    block !== 'modern' || (width / heads) % 2 === 0,
    'model.heads',
    heads,
    `an even head size (rotary positions turn pairs), not ${width}/${heads} = ${width / heads}`,
    'change model.heads or model.width, or use model.block=gpt2',
  )
  demand(
    heads % kvHeads === 0,
    'model.kvHeads',
    kvHeads,
    `a divisor of model.heads=${heads}`,
    `try one of ${divisors(heads)}`,
  )
  demand(
    batch % accumulate === 0,
    'accumulate',
    accumulate,
    `a divisor of batch=${batch}`,
    `try one of ${divisors(batch)}`,
  )
  const decaySteps = Math.round(steps * optim.cooldown)
  demand(
    optim.warmup + decaySteps <= steps,
    'optim.warmup',
    optim.warmup,
    `warm-up and cool-down (${decaySteps} steps) to fit into steps=${steps}`,
    `use optim.warmup=${steps - decaySteps} or a smaller optim.cooldown`,
  )
}

function demand(met: boolean, key: string, value: number, expected: string, fix: string): void {
  if (!met) throw badUsage({ where: key, got: `${key}=${value}`, expected, fix })
}

/** The divisors of `n` up to 64, as a list to choose from. */
function divisors(n: number): string {
  const candidates = Array.from({ length: Math.min(n, 64) }, (_, i) => i + 1)
  return candidates.filter((d) => n % d === 0).join(', ')
}
