/**
 * The matrix of parallel training: techniques, mixed plans, and which model they are for. A row is a line here; the tests
 * beside this file, and the table that `print.ts` makes for the documentation, follow from the lines. Settings are
 * written short: `data=2 zero=3` is `mesh.data=2 parallel.zero=3` on the command line.
 */
import type { LanguageOverrides } from '../../src/models/language/config.ts'
import type { ModelName } from './models.ts'

export interface Technique {
  readonly name: string
  /** What turns it on. */
  readonly settings: string
  /** The smallest plan that has it. */
  readonly alone: string
  /** The axis that a plan must have for it to mean anything. */
  readonly needs?: string
  readonly models: readonly ModelName[]
  /** Products of values rounded to few bits: f32 runs of plans that add in another order part ways. */
  readonly coarse?: true
  /** Takes no turn in mixed plans that others have: it is tried in its own plan. */
  readonly own?: true
  /** How far an f32 loss may be from that of one device, where 1e-5 is not held. */
  readonly within?: number
}

const all: readonly ModelName[] = ['language', 'mixture', 'convolutions']
const ofText: readonly ModelName[] = ['language', 'mixture']

const pipeline = (name: string, schedule = `schedule=${name}`): Technique => ({
  name: `pipeline: ${name}`,
  settings: `${schedule} accumulate=4`,
  alone: 'pipe=2',
  needs: 'pipe',
  models: ofText,
})

export const techniques: readonly Technique[] = [
  { name: 'data parallel', settings: '', alone: 'data=4', needs: 'data', models: all },
  { name: 'ZeRO 1', settings: 'zero=1', alone: 'data=2', needs: 'data', models: all },
  { name: 'ZeRO 2', settings: 'zero=2', alone: 'data=2', needs: 'data', models: all },
  { name: 'ZeRO 3', settings: 'zero=3', alone: 'data=2', needs: 'data', models: all },
  {
    name: 'tensor parallel, vocabulary too',
    settings: '',
    alone: 'tensor=2',
    needs: 'tensor',
    models: all,
  },
  { name: 'sequence parallel', settings: 'sequence', alone: 'tensor=2', needs: 'tensor', models: ofText },
  {
    name: 'context: ring, zig-zag',
    settings: 'attention=ring',
    alone: 'context=2',
    needs: 'context',
    models: ofText,
  },
  {
    name: 'context: heads exchanged',
    settings: 'attention=heads',
    alone: 'context=2',
    needs: 'context',
    models: ofText,
  },
  {
    name: 'context: keys gathered',
    settings: 'attention=gather',
    alone: 'context=2',
    needs: 'context',
    models: ofText,
  },
  pipeline('gpipe'),
  pipeline('1f1b'),
  pipeline('interleaved', 'schedule=interleaved stages=2'),
  pipeline('zb-h1'),
  pipeline('zb-h2'),
  pipeline('dualpipe-v'),
  {
    name: 'experts on ranks, bias balances',
    settings: 'balance=bias',
    alone: 'expert=2',
    needs: 'expert',
    models: ['mixture'],
  },
  {
    name: 'experts on ranks, loss balances',
    settings: 'balance=loss',
    alone: 'expert=2',
    needs: 'expert',
    models: ['mixture'],
  },
  { name: 'gradient accumulation', settings: 'accumulate=2', alone: 'data=2', models: all },
  { name: 'recompute everything', settings: 'recompute=full', alone: 'data=2', models: all },
  { name: 'bf16', settings: 'precision=bf16', alone: 'data=2', models: all, coarse: true },
  { name: 'fp16, scaled loss', settings: 'precision=fp16', alone: 'data=2', models: ofText, coarse: true },
  { name: 'fp8', settings: 'precision=fp8', alone: 'data=2', models: all, coarse: true },
  { name: 'Adafactor', settings: 'optimizer=adafactor', alone: 'data=2', models: all },
  { name: '8-bit AdamW', settings: 'optimizer=adamw8bit', alone: 'data=2', models: all, coarse: true },
  // Seen: 3.5e-5, a mixture over expert=2 data=2 zero=2, at a step where a token's choice turns; before and after it 1e-6. It
  // scales every direction of a gradient up to 1, roundings too: one device alone differs by 2.5e-5 from itself with leaves=4.
  { name: 'Muon', settings: 'optimizer=muon', alone: 'data=2', models: ofText, within: 5e-5 },
  {
    name: 'state and activations in a file',
    settings: 'offload=all',
    alone: 'data=2',
    models: all,
    own: true,
  },
]

/** Of two to eight ranks, each cut in more than one way. */
const dense = [
  'data=2 tensor=2 zero=3',
  'data=4 tensor=2 zero=2',
  'data=3 tensor=2 zero=1',
  'data=2 tensor=4',
] as const
const withTime = [
  'data=2 context=2 zero=2',
  'tensor=2 context=2 attention=heads',
  'tensor=2 context=4 sequence',
  'data=2 tensor=2 context=2 zero=1 sequence',
] as const
const withPipeline = [
  'data=2 pipe=2 zero=1',
  'data=3 pipe=2',
  'pipe=4 data=2 zero=1',
  'pipe=2 tensor=2 sequence schedule=gpipe',
  'pipe=2 context=2 schedule=zb-h1',
  'data=2 pipe=2 context=2 zero=3 schedule=zb-h2',
  'data=2 pipe=2 tensor=2 zero=2 schedule=dualpipe-v',
  'pipe=2 context=2 tensor=2 attention=heads schedule=interleaved stages=2',
] as const
const withExperts = [
  'expert=2 data=2 zero=2',
  'expert=2 tensor=2 zero=1',
  'expert=2 context=2',
  'expert=4 tensor=2',
  'expert=2 data=2 tensor=2 sequence',
  'expert=2 data=2 context=2 zero=3',
  'expert=2 context=2 tensor=2 attention=heads',
  'expert=2 pipe=2',
  'expert=2 pipe=2 tensor=2',
] as const
const ofImages = [0, 1, 2].flatMap((zero) => [`data=2 tensor=2 zero=${zero}`, `data=4 tensor=2 zero=${zero}`])

/** The plans that each model can run. */
export const mixedPlans: Readonly<Record<ModelName, readonly string[]>> = {
  language: [...dense, ...withTime, ...withPipeline],
  mixture: [...dense.slice(0, 3), ...withTime, ...withExperts].filter((plan) => possible('mixture', plan)),
  convolutions: [...dense, ...ofImages.filter((plan) => !dense.some((other) => other === plan))].concat(
    [1, 2, 3].map((zero) => `data=2 tensor=4 zero=${zero}`),
  ),
}

export interface Cell {
  readonly technique: Technique
  readonly model: ModelName
  /** Short settings: the plan's and what turns the technique on. */
  readonly settings: string
}

/** A plan with a technique on top; of two settings of a kind that of the technique. */
function cell(technique: Technique, model: ModelName, plan: string): Cell {
  const words = `${plan} ${technique.settings}`.split(' ').filter((word) => word !== '')
  const settings = new Map(words.map((word) => [word.split('=')[0], word]))
  return { technique, model, settings: [...settings.values()].join(' ') }
}

const techniquesOf = (model: ModelName): Technique[] =>
  techniques.filter(({ models, alone, settings }) => {
    return models.includes(model) && possible(model, `${alone} ${settings}`)
  })

/** The mixed plans in which a technique means something. */
const plansWith = ({ needs, settings }: Technique, model: ModelName): readonly string[] =>
  mixedPlans[model].filter(
    (plan) => (!needs || hasAxis(plan, needs)) && possible(model, `${plan} ${settings}`),
  )

/** Every technique by itself and in every plan that it goes with. */
export const allCells = (model: ModelName): Cell[] =>
  techniquesOf(model).flatMap((technique) =>
    [technique.alone, ...plansWith(technique, model)].map((plan) => cell(technique, model, plan)),
  )

/** A share of them for every run of the tests: each technique by itself and in one mixed plan, each technique in another. */
export const someCells = (model: ModelName): Cell[] =>
  techniquesOf(model).flatMap((technique, i) => {
    const plans = plansWith(technique, model)
    const mixed = plans[(5 * i) % plans.length]
    return [technique.alone, ...(mixed ? [mixed] : [])].map((plan) => cell(technique, model, plan))
  })

/** Every mixed plan, with techniques on top that need no axis of their own, in turns; and those with a plan of their own. */
export function mixedCells(model: ModelName): Cell[] {
  const free = techniquesOf(model).filter(({ needs, coarse, own }) => !needs && !coarse && !own)
  const plain = techniques[0]!
  const mixed = mixedPlans[model].map((plan, i) => {
    const technique = i % 2 === 0 ? plain : free[((i - 1) / 2) % free.length]!
    return cell(technique, model, plan)
  })
  const own = techniquesOf(model).filter((technique) => technique.own)
  return [...mixed, ...own.map((technique) => cell(technique, model, technique.alone))]
}

/** Products of few bits, and moments: over data-parallel ranks alone, where sums have a fixed order. */
export const coarseCells = (model: ModelName): Cell[] =>
  techniquesOf(model)
    .filter(({ coarse }) => coarse)
    .map((technique) => cell(technique, model, technique.alone))

function hasAxis(settings: string, axis: string): boolean {
  return settings.split(' ').some((word) => word.startsWith(`${axis}=`))
}

/**
 * Not here: pipelines of mixtures, which have a test of their own, and of steps that may be skipped, which are refused; and two
 * stages for each of four ranks, which the four layers do not fill.
 */
function possible(model: ModelName, settings: string): boolean {
  if (!hasAxis(settings, 'pipe')) return true
  if (settings.includes('pipe=4') && /stages=2|dualpipe-v/.test(settings)) return false
  return model !== 'mixture' && !settings.includes('fp16')
}

type Group = 'mesh' | 'parallel' | 'model' | 'run'
const groupOf: Readonly<Record<string, Group>> = {
  data: 'mesh',
  pipe: 'mesh',
  expert: 'mesh',
  context: 'mesh',
  tensor: 'mesh',
  zero: 'parallel',
  sequence: 'parallel',
  attention: 'parallel',
  schedule: 'parallel',
  stages: 'parallel',
  balance: 'model',
}

/** Short settings as those of a run; of two for the same the later holds. A pipeline goes over four microbatches. */
export function overridesOf(text: string): LanguageOverrides {
  const groups: Record<Group, Record<string, unknown>> = { mesh: {}, parallel: {}, model: {}, run: {} }
  if (hasAxis(text, 'pipe')) groups.run['accumulate'] = 4
  for (const word of text.split(' ').filter((word) => word !== '')) {
    const [name, value = 'true'] = word.split('=') as [string, string?]
    const given = /^\d+$/.test(value) ? Number(value) : value === 'true' ? true : value
    if (name === 'optimizer') groups.run['optim'] = { name: given }
    else if (!(name === 'accumulate' && hasAxis(text, 'pipe'))) groups[groupOf[name] ?? 'run'][name] = given
  }
  const { run, ...rest } = groups
  return { ...run, ...rest } as LanguageOverrides
}
