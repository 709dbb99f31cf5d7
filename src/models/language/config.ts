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
const powerOfTwo = z.number().refine((x) => x >= 1 && Number.isInteger(Math.log2(x)), 'a power of two')

/** The settings of experts, for a model without any. */
export const dense = {
  experts: 0,
  topK: 1,
  sharedExperts: 0,
  expertHidden: 0,
  routing: 'softmax',
  balance: 'bias',
  balanceRate: 0,
  capacity: 0,
} as const

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
  experts: countOrOff.describe('experts of each MLP, of which a token uses some; 0 = one dense MLP'),
  topK: count.describe('experts a token uses'),
  sharedExperts: countOrOff.describe('experts that every token uses besides'),
  expertHidden: countOrOff.describe(
    'hidden width of an expert; by default those of a token together are as wide as a dense MLP',
  ),
  routing: z.enum(['softmax', 'sigmoid']).describe('how the router scores experts'),
  balance: z
    .enum(['bias', 'loss', 'none'])
    .describe('evens the load: a bias on the choice, moved every step, or an auxiliary loss'),
  balanceRate: z
    .number()
    .min(0)
    .describe('what the bias moves by in a step; the weight of the auxiliary loss'),
  capacity: z
    .number()
    .min(0)
    .describe(
      '1.25: in training an expert takes 1.25 times its even share, and drops the rest; 0 = takes all',
    ),
})

const optimSchema = z.strictObject({
  name: z.enum(['muon', 'adamw', 'adamw8bit', 'adafactor', 'momentum', 'sgd']),
  lr: rate.describe('peak learning rate of the chosen optimizer'),
  adamLr: rate.describe('with muon: learning rate of embeddings, head and scalars'),
  warmup: countOrOff.describe('steps of linear warm-up'),
  cooldown: fraction.describe('fraction of the steps spent on a linear decay to zero'),
  weightDecay: z.number().min(0),
  beta1: z.number().min(0).lt(1),
  beta2: z.number().min(0).lt(1),
  momentum: z.number().min(0).lt(1),
  clip: z.number().min(0).describe('largest global gradient norm; 0 = off'),
  // Defaults in the schema: runs stored before these settings were there go on.
  relativeStep: z
    .boolean()
    .default(false)
    .describe('with adafactor: steps in proportion to the size of a parameter'),
  lossScale: powerOfTwo.default(65_536).describe('with fp16: the loss scale of the first step'),
  lossScaleSteps: count.default(2000).describe('with fp16: good steps before the loss scale doubles'),
})

const meshSchema = z.strictObject({
  data: count.describe('data parallel: ranks that share out the batch'),
  pipe: count.describe('pipeline parallel: ranks that share out the layers'),
  expert: count.describe('expert parallel: ranks that share out experts, and the batch once more'),
  context: count.describe('context parallel: ranks that share out the tokens of a window'),
  tensor: count.describe('tensor parallel: ranks that share out heads, hidden units and vocabulary'),
})

const parallelSchema = z.strictObject({
  zero: z
    .int()
    .min(0)
    .max(3)
    .describe('what data-parallel ranks share out: 1 optimizer state, 2 gradients too, 3 parameters too'),
  sequence: z.boolean().describe('with mesh.tensor: share out time between its products'),
  attention: z
    .enum(['gather', 'heads', 'ring'])
    .describe('with mesh.context: how attention sees the keys of other ranks'),
  schedule: z
    .enum(['gpipe', '1f1b', 'interleaved', 'zb-h1', 'zb-h2', 'dualpipe-v'])
    .describe('with mesh.pipe: the order of forward and backward passes'),
  stages: count.describe('with an interleaved schedule: stages on each pipeline rank'),
  compress: z
    .enum(['none', 'powersgd'])
    .default('none')
    .describe('with mesh.data: gradients travel as products of two thin matrices'),
  rank: count.default(4).describe('with compress=powersgd: columns of the thin matrices'),
  local: countOrOff
    .default(0)
    .describe(
      'with mesh.data: optimizer steps that each rank takes alone before all agree again, which is one step of the run; 0 = off',
    ),
  outerLr: rate.default(0.7).describe('with local: rate of the step that all ranks take together'),
  outerMomentum: z.number().min(0).lt(1).default(0.9).describe('with local: its Nesterov momentum'),
  // Defaults in the schema: runs stored before these settings were there go on.
  patience: z
    .number()
    .min(0)
    .default(120)
    .describe(
      'with ranks as processes: seconds a rank waits for another before it is given up; 0 = for ever',
    ),
  check: countOrOff
    .default(100)
    .describe('steps between comparisons of what ranks hold alike, which checkpoints make too; 0 = never'),
  restarts: countOrOff
    .default(3)
    .describe('with ranks as processes: how often a run that lost a rank goes on from its last checkpoint'),
  shrink: z
    .boolean()
    .default(false)
    .describe('with ranks as processes: when restarts are used up, go on without the lost rank'),
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
  precision: z.enum(['f32', 'bf16', 'fp16', 'fp8']).describe('what products are made of; fp8 is emulated'),
  fp8Scaling: z
    .enum(['tensor', 'row', 'block', 'mx'])
    .default('row')
    .describe('with fp8: what shares a scale'),
  recompute: z
    .preprocess(
      (given) => (typeof given === 'boolean' ? (given ? 'full' : 'none') : given),
      z.enum(['none', 'full', 'auto']),
    )
    .describe('activations computed again in the backward pass: none, all, or what memory= needs (auto)'),
  memory: bytes
    .default(0)
    .describe('for recompute=auto: most memory of a training step on each rank, e.g. 512MiB; 0 = no limit'),
  offload: z
    .enum(['none', 'optimizer', 'activations', 'all'])
    .default('none')
    .describe('what lies in a file instead of in memory: state of the optimizer, activations, or both (all)'),
  leaves: z
    .literal([0, 1, 2, 4, 8, 16, 32, 64])
    .default(0)
    .describe(
      'parts of the batch that are summed apart: any device count up to it gives the same bits; 0 = off',
    ),
  model: modelSchema,
  optim: optimSchema,
  mesh: meshSchema,
  parallel: parallelSchema,
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

/** One device: what every run was before there were others. */
const oneDevice = {
  mesh: { data: 1, pipe: 1, expert: 1, context: 1, tensor: 1 },
  parallel: {
    zero: 0,
    sequence: false,
    attention: 'ring',
    schedule: '1f1b',
    stages: 1,
    compress: 'none',
    rank: 4,
    local: 0,
    outerLr: 0.7,
    outerMomentum: 0.9,
    patience: 120,
    check: 100,
    restarts: 3,
    shrink: false,
  },
} as const

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
const learningRates = {
  muon: 0.03,
  adamw: 1e-3,
  adamw8bit: 1e-3,
  adafactor: 3e-3,
  momentum: 0.05,
  sgd: 0.2,
} as const

/** The bias must reach its place in runs of some hundred steps; trillions of tokens do with 1e-3. */
const balanceRates = { bias: 1e-2, loss: 1e-2, none: 0 } as const

/** With the active experts of a token together as wide as a dense MLP; whole vectors. */
const evenHidden = (width: number, active: number): number =>
  Math.max(16, Math.round((4 * width) / active / 16) * 16)

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
  const {
    model = {},
    optim = {},
    mesh = {},
    parallel = {},
    eval: evaluation = {},
    save = {},
    sample = {},
    ...top
  } = overrides
  const size = sizes[model.size ?? 'nano'] ?? sizes.nano
  const layers = model.layers ?? size.layers
  const width = model.width ?? size.width
  const heads = model.heads ?? defaultHeads(layers, width)
  const optimizer = optim.name ?? 'muon'
  // A step of local steps takes as many batches.
  const local = Math.max(1, Math.floor(Number(parallel.local ?? 0)) || 1)
  const steps = top.steps ?? Math.ceil(1465 / local)
  const cooldown = optim.cooldown ?? 0.5
  const experts = model.experts ?? 0
  const topK = model.topK ?? (experts > 1 ? 2 : 1)
  const sharedExperts = model.sharedExperts ?? 0
  const balance = model.balance ?? 'bias'
  const bundled = (top.data ?? 'shakespeare') === 'shakespeare'
  const tokenizer = top.tokenizer ?? 'auto'

  const config = checkConfig(languageConfigSchema, {
    vocab: 1024,
    batch: 16 * local,
    accumulate: 1,
    seed: 1,
    threads: 0,
    precision: 'f32',
    fp8Scaling: 'row',
    recompute: top.memory === undefined || top.memory === 0 ? 'none' : 'auto',
    memory: 0,
    offload: 'none',
    leaves: 8,
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
      ...dense,
      balanceRate: experts === 0 ? 0 : balanceRates[balance],
      expertHidden: experts === 0 ? 0 : evenHidden(width, topK + sharedExperts),
      ...model,
      layers,
      width,
      heads,
      experts,
      topK,
      sharedExperts,
      balance,
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
      relativeStep: false,
      lossScale: 65_536,
      lossScaleSteps: 2000,
      ...optim,
    },
    mesh: { ...oneDevice.mesh, ...mesh },
    parallel: { ...oneDevice.parallel, ...parallel },
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
    return checkConfig(languageConfigSchema, { ...oneDevice, ...(withExperts(stored) as object) })
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    const { where: key, got, expected } = error.complaint
    const fix = 'restore its run.json, or start a new run with anneal train'
    throw failure({ where: `${where}: ${key}`, got, expected, fix })
  }
}

/** Runs from before there were experts say nothing of them. */
function withExperts(stored: unknown): unknown {
  const { model } = (stored ?? {}) as { readonly model?: unknown }
  if (typeof model !== 'object' || model === null) return stored
  return { ...(stored as object), model: { ...dense, ...model } }
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
  const { model, batch, accumulate, optim, steps, recompute, memory, mesh, parallel } = config
  if ((recompute === 'auto') !== memory > 0) {
    throw badUsage({
      where: 'recompute',
      got: `recompute=${recompute} with ${memory > 0 ? `memory=${memory}` : 'no limit of memory'}`,
      expected: 'recompute=auto and a limit, or neither',
      fix: memory > 0 ? 'leave recompute out' : 'add memory=, e.g. memory=512MiB',
    })
  }
  const { width, heads, kvHeads, block, layers, context } = model
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
  const { experts, topK, sharedExperts, expertHidden, capacity } = model
  if (experts > 0) {
    demand(
      topK <= experts,
      'model.topK',
      topK,
      `at most model.experts=${experts}`,
      'use fewer, or more experts',
    )
    demand(expertHidden > 0, 'model.expertHidden', expertHidden, 'at least 1', 'leave it out for the default')
    demand(
      capacity === 0 || capacity >= topK / experts,
      'model.capacity',
      capacity,
      `0 or at least ${topK / experts}, with room for the tokens of one expert`,
      'use 1.25',
    )
  } else {
    for (const [key, value] of Object.entries({ topK: topK - 1, sharedExperts, expertHidden, capacity }))
      demand(
        value === 0,
        `model.${key}`,
        value,
        'model.experts, which it is about',
        'set model.experts=8, say',
      )
  }
  demand(
    batch % accumulate === 0,
    'accumulate',
    accumulate,
    `a divisor of batch=${batch}`,
    `try one of ${divisors(batch)}`,
  )
  const shared = (key: string, value: number, axis: keyof typeof mesh, parts = mesh[axis]): void =>
    demand(
      value % parts === 0,
      `mesh.${axis}`,
      mesh[axis],
      `ranks that share out ${key}=${value} evenly`,
      `try one of ${divisors(value)}`,
    )
  checkReplicas(config)
  const [parts, windows] =
    parallel.local > 0 ? ['accumulate / parallel.local', parallel.local] : ['accumulate', 1]
  demand(
    (batch / accumulate) % windows === 0,
    'parallel.local',
    parallel.local,
    `a divisor of batch / accumulate=${batch / accumulate}: the batch is that of all local steps`,
    `use batch=${16 * accumulate * parallel.local}`,
  )
  const each = batch / accumulate / windows
  shared(`batch / ${parts}`, each, 'data')
  shared(`batch / ${parts}`, each, 'expert', mesh.data * mesh.expert)
  const stages = parallel.schedule === 'interleaved' ? mesh.pipe * parallel.stages : mesh.pipe
  if (mesh.pipe > 1)
    shared('model.layers', layers, 'pipe', parallel.schedule === 'dualpipe-v' ? 2 * mesh.pipe : stages)
  // Around a ring every rank has two chunks of the window.
  if (mesh.context > 1) {
    shared(
      'model.context',
      context,
      'context',
      parallel.attention === 'ring' ? 2 * mesh.context : mesh.context,
    )
  }
  shared('model.kvHeads', kvHeads, 'tensor')
  const decaySteps = Math.round(steps * optim.cooldown)
  demand(
    optim.warmup + decaySteps <= steps,
    'optim.warmup',
    optim.warmup,
    `warm-up and cool-down (${decaySteps} steps) to fit into steps=${steps}`,
    `use optim.warmup=${steps - decaySteps} or a smaller optim.cooldown`,
  )
}

/** Replicas with state of their own (train/replicas.ts) go with some plans only. */
function checkReplicas({ mesh, parallel, precision }: LanguageConfig): void {
  const { compress, local, zero } = parallel
  const refuse = (got: string, expected: string, fix: string): never => {
    const where = local > 0 ? 'parallel.local' : 'parallel.compress'
    throw badUsage({ where, got: `${where}=${local > 0 ? local : compress} with ${got}`, expected, fix })
  }
  if (local === 0 && compress === 'none') return
  if (local > 0 && compress !== 'none')
    refuse(`parallel.compress=${compress}`, 'one of the two', 'leave parallel.compress out')
  if (mesh.data === 1) refuse('mesh.data=1', 'ranks that share out the batch', 'add mesh.data=2')
  if (mesh.pipe > 1)
    refuse(`mesh.pipe=${mesh.pipe}`, 'ranks that have all layers', 'use mesh.tensor instead of mesh.pipe')
  if (zero > 0)
    refuse(
      `parallel.zero=${zero}`,
      'parallel.zero=0: ranks along mesh.data hold state of their own',
      'leave parallel.zero out',
    )
  if (precision === 'fp16')
    refuse(
      'precision=fp16',
      'f32, bf16 or fp8: whether to skip a step is not agreed on between ranks',
      'use precision=bf16',
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
