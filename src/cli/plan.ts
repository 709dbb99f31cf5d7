/**
 * `anneal plan <model> [key=value...]`: of all ways to spread a model over devices, those that fit, ranked by the time of a
 * simulated step. Nothing runs; for the language recipe on this machine the memory is that of the compiled program, and on
 * a measured cluster (`--cluster`) the step is too.
 */
import { availableParallelism } from 'node:os'
import { badUsage } from '../errors.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import type { Hardware } from '../parallel/hardware/index.ts'
import { settingsOf } from '../parallel/planner/candidate.ts'
import type { PlannedModel, Planned } from '../parallel/planner/index.ts'
import type { Command, Options } from './command.ts'
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatFlopRate,
  formatPercent,
  formatTable,
} from './format.ts'
import { parseOverrides } from './overrides.ts'
import { planOnCluster } from './plan-cluster.ts'
import { describePlan, rejectedLines } from './plan-words.ts'

export const plan: Command = {
  arguments: [
    'language, gpt3-175b, llama3-8b, llama3-70b or llama3-405b',
    'key=value of the language recipe, e.g. model.size=base optim.name=adamw',
  ],
  options: [
    ['--hardware <name>', 'h100, h200, a100 or this'],
    [
      '--cluster <file>',
      'a measured cluster, for the language recipe: simulates the compiled program of each plan',
    ],
    ['--ranks <n>', "devices, or ranks on this machine; 8, or the cluster's, unless said"],
    ['--global-batch <n>', 'windows a step'],
    ['--context <n>', 'tokens a window, for a published model'],
    ['--memory <GB>', 'what a rank may fill; most of what the device has unless said'],
    ['--price <usd>', 'of a device for an hour, for the cost'],
    ['--top <n>', 'plans shown', '10'],
  ],
  examples: [
    'anneal plan llama3-70b --ranks 1024 --global-batch 2048',
    'anneal plan gpt3-175b --hardware a100 --ranks 1024 --global-batch 1536 --price 2',
    'anneal plan language model.size=base batch=64 --ranks 2 --hardware this',
    'anneal plan language --cluster two-hosts.json',
  ],
  async run(io, [name = '', ...settings], options) {
    const { searchPlans, parameterCount } = await import('../parallel/planner/index.ts')
    const askedRanks = numberOf(options, 'ranks', 'ranks')
    const { model, recipe } = await modelOf(name, settings, numberOf(options, 'context', 'context'))
    const ranks = askedRanks ?? 8
    const hardwareName = String(options['hardware'] ?? (recipe ? 'this' : 'h100'))
    const globalBatch = numberOf(options, 'globalBatch', 'global-batch') ?? recipe?.config.batch ?? ranks
    const memory = numberOf(options, 'memory', 'memory', false)
    const price = numberOf(options, 'price', 'price', false)
    const top = numberOf(options, 'top', 'top')!
    const path = options['cluster']
    if (typeof path === 'string') {
      const other = ['hardware', 'price'].find((key) => options[key] !== undefined)
      if (!recipe || other !== undefined) {
        throw badUsage({
          where: '--cluster',
          got: recipe ? `--${other}` : name,
          expected: 'the language recipe, on that cluster',
          fix: 'anneal plan language --cluster FILE',
        })
      }
      const memoryBytes = memory === undefined ? undefined : memory * 1e9
      return planOnCluster(io, { path, model, ...recipe, ranks: askedRanks, memoryBytes, globalBatch, top })
    }
    const hardware = await hardwareOf(hardwareName, ranks)
    const began = performance.now()
    const found = searchPlans(model, {
      ranks,
      globalBatch,
      hardware,
      ...(memory === undefined ? {} : { memoryBytes: memory * 1e9 }),
      ...(recipe ? { leastPiece: 2 } : {}),
      simulated: Math.max(24, top),
    })
    const shown = found.plans.slice(0, top)
    const arenas = recipe && hardwareName === 'this' ? await arenasOf(recipe, shown) : undefined
    const seconds = (performance.now() - began) / 1000
    const head = [
      `${model.name}: ${formatCount(parameterCount(model))} parameters, windows of ${model.context} tokens, ${globalBatch} a step`,
      `${ranks} x ${hardware.name}, ${formatBytes(found.memoryBytes)} a rank, utilisation of ${formatFlopRate(found.peakFlops)} (${model.products}, dense)`,
      `${found.considered} plans, ${found.feasible} fit, ${found.plans.length} simulated, ${formatDuration(seconds)}`,
    ]
    const text = [
      ...head,
      '',
      shown.length > 0
        ? tableOf(shown, { ranks, price, arenas })
        : 'no plan fits: more ranks, or a smaller batch',
      '',
      ...rejectedLines(found.rejected),
    ]
    io.result(text.join('\n'), {
      model: model.name,
      parameters: parameterCount(model),
      hardware: hardware.name,
      ranks,
      globalBatch,
      peakFlops: found.peakFlops,
      memoryBytes: found.memoryBytes,
      considered: found.considered,
      feasible: found.feasible,
      plans: shown.map((one, i) => documentOf(one, { ranks, price, arena: arenas?.[i] ?? null })),
      rejected: found.rejected,
    })
    return shown.length > 0 ? 0 : 1
  },
}

interface Recipe {
  readonly config: LanguageConfig
  readonly vocab: number
}

async function modelOf(
  name: string,
  settings: readonly string[],
  context: number | undefined,
): Promise<{ readonly model: PlannedModel; readonly recipe?: Recipe }> {
  const { modelByName, plannedLanguage, withContext } = await import('../parallel/planner/index.ts')
  if (name !== 'language') {
    if (settings.length > 0) {
      throw badUsage({
        where: 'settings',
        got: `'${settings[0]}' for ${name}`,
        expected: 'settings with the language recipe only',
        fix: 'leave them out, or plan language',
      })
    }
    const model = modelByName(name)
    return { model: context === undefined ? model : withContext(model, context) }
  }
  const { languageConfigSchema, resolveConfig } = await import('../models/language/config.ts')
  const config = resolveConfig(parseOverrides(languageConfigSchema, settings))
  const vocab =
    config.tokenizer === 'bpe' ? config.vocab : config.tokenizer === 'bytes' ? 257 : bundledCharacters
  return { model: plannedLanguage(config, vocab), recipe: { config, vocab } }
}

/** Different characters of the bundled text. */
const bundledCharacters = 65

async function hardwareOf(name: string, ranks: number): Promise<Hardware> {
  const { hardwareByName, measureThisMachine, memoryLinks } = await import('../parallel/hardware/index.ts')
  if (name !== 'this') return hardwareByName(name)
  const threadsPerRank = Math.max(1, Math.floor(availableParallelism() / ranks))
  return memoryLinks(await measureThisMachine({ ranks, threadsPerRank, links: [] }))
}

async function arenasOf({ config, vocab }: Recipe, shown: readonly Planned[]): Promise<(number | null)[]> {
  const { arenaBytes } = await import('../train/plan-memory.ts')
  const arenas: (number | null)[] = []
  for (const { plan } of shown) arenas.push(await arenaBytes(config, vocab, plan))
  return arenas
}

interface Shown {
  readonly ranks: number
  readonly price: number | undefined
  readonly arenas: readonly (number | null)[] | undefined
}

/** US dollars for a billion tokens. */
const costOf = ({ tokensPerSecond }: Planned, ranks: number, price: number): number =>
  (1e9 / tokensPerSecond / 3600) * ranks * price

function tableOf(plans: readonly Planned[], { ranks, price, arenas }: Shown): string {
  const levels = plans[0]!.step.levels.map(({ name }) => name)
  const head = [
    '',
    'memory',
    'step',
    'bubble',
    'exposed',
    'MFU',
    'tokens/s/rank',
    ...levels.map((name) => `${name} sent`),
    ...(price === undefined ? [] : ['USD/1e9 tokens']),
    'plan',
  ]
  return formatTable([
    head,
    ...plans.map((one, i) => {
      const arena = arenas?.[i]
      return [
        String(i + 1),
        arena ? `${formatBytes(arena)} exact` : formatBytes(one.memory.total),
        one.step.seconds < 1
          ? `${(1000 * one.step.seconds).toFixed(1)} ms`
          : `${one.step.seconds.toFixed(2)} s`,
        formatPercent(one.step.bubbleShare),
        formatPercent(one.step.exposedShare),
        `${(100 * one.utilisation).toFixed(1)}%`,
        (one.tokensPerSecond / ranks).toFixed(0),
        ...one.step.levels.map(({ bytesOfBusiestRank }) => formatBytes(bytesOfBusiestRank)),
        ...(price === undefined ? [] : [costOf(one, ranks, price).toFixed(0)]),
        describePlan(one.plan),
      ]
    }),
  ])
}

function documentOf(
  one: Planned,
  { ranks, price, arena }: { ranks: number; price: number | undefined; arena: number | null },
) {
  const { bubbleShare, exposedShare, levels, seconds } = one.step
  return {
    plan: one.plan,
    settings: settingsOf(one.plan),
    seconds,
    bubbleShare,
    exposedShare,
    utilisation: one.utilisation,
    tokensPerSecond: one.tokensPerSecond,
    memory: one.memory,
    arenaBytes: arena,
    links: levels,
    ...(price === undefined ? {} : { usdPerBillionTokens: costOf(one, ranks, price) }),
  }
}

function numberOf(options: Options, key: string, flag: string, whole = true): number | undefined {
  const text = options[key]
  if (text === undefined) return undefined
  const value = Number(text)
  if (value > 0 && (!whole || Number.isInteger(value))) return value
  throw badUsage({
    where: `--${flag}`,
    got: `'${String(text)}'`,
    expected: whole ? 'a whole number of at least 1' : 'a positive number',
    fix: `write --${flag} 8`,
  })
}
