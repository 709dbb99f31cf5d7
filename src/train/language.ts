/**
 * The language recipe: text to tokens, a compiled step, the training loop with evaluation, checkpoints and samples,
 * and resume. A run can be killed at any moment: points are on disk before the checkpoint that would skip them, and
 * what a checkpoint's step still owed (evaluation, sample) is made up for on resume.
 */
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { sizeOf, type Program } from '../compiler/index.ts'
import { cacheDir } from '../compiler/runtime/cache.ts'
import { machine } from '../compiler/runtime/machine.ts'
import { measurePeak, type Peak } from '../compiler/runtime/peak.ts'
import { batchStarts } from '../data/order.ts'
import { prepareTokens, type PreparedTokens } from '../data/tokens.ts'
import { badUsage, failure, UserError } from '../errors.ts'
import {
  dataPath,
  parseStoredConfig,
  resolveConfig,
  type LanguageConfig,
  type LanguageOverrides,
} from '../models/language/config.ts'
import { countParameters, type ModelConfig } from '../models/language/model.ts'
import { createRun, readRun, reopenRun, type Run } from '../runs/index.ts'
import { listCheckpoints, loadCheckpoint, openSaver, useNewest, type CheckpointFile } from './checkpoint.ts'
import { evaluationFlops, Evaluator } from './evaluate.ts'
import { compileDecode } from '../models/decoder.ts'
import { decodable } from '../models/language/decode.ts'
import type { TrainObserver, TrainPlan, TrainPoint, TrainResult } from './events.ts'
import { StepProfiler, type ProfileSettings } from './profile.ts'
import { compileEvaluation, initialise } from './programs.ts'
import { batchPlaces } from './parallel.ts'
import { requireSameReplicas } from './replicas.ts'
import { compileStep } from './step.ts'
import { Sampler } from './sample.ts'
import {
  anyStops,
  checkReplicas,
  checkUnchanged,
  flipForTest,
  hostsOf,
  meet,
  openLog,
  type Log,
} from './together.ts'

export { sampleRun } from './sample.ts'

export interface TrainOptions {
  readonly runsDir: string
  readonly observer?: TrainObserver
  /** Aborting finishes the step under way, saves, and returns with status `interrupted`. */
  readonly signal?: AbortSignal
  /** This process is one of those of mpirun, and has one rank. */
  readonly processes?: boolean
  /** Told which run it is, and the host of each rank, before the first step. */
  readonly started?: (run: { readonly runId: string; readonly hosts: readonly string[] }) => void
  /** Profiles the first steps, then stops with status `interrupted`, saved. */
  readonly profile?: ProfileSettings
}

/** Everything a run needs before its first step. */
interface Prepared {
  readonly config: LanguageConfig
  readonly model: ModelConfig
  readonly data: PreparedTokens
  readonly program: Program
  readonly peak: Peak
  readonly plan: TrainPlan
}

/** What a run would do and cost: compiles the step, measures this machine, trains nothing. */
export async function planLanguage(config: LanguageConfig, observer: TrainObserver = {}): Promise<TrainPlan> {
  const { plan, program, data } = await prepare(config, observer)
  program.close()
  data.train.close()
  data.validation.close()
  return plan
}

async function prepare(
  config: LanguageConfig,
  observer: TrainObserver,
  { profile = false, processes = false } = {},
): Promise<Prepared> {
  // Read by the native program when it is opened.
  if (processes) process.env['ANNEAL_PATIENCE'] ??= String(config.parallel.patience)
  observer.phase?.('preparing data')
  const { context } = config.model
  const data = await prepareTokens({
    path: dataPath(config),
    tokenizer: config.tokenizer === 'auto' ? 'bytes' : config.tokenizer,
    vocab: config.vocab,
    validationFraction: 0.1,
    cacheDir: join(cacheDir(), 'tokens'),
    minTokens: context + 1,
  })
  const model: ModelConfig = { ...config.model, vocab: data.tokenizer.vocabSize }
  observer.phase?.('compiling the training step')
  const program = await compileStep(config, model.vocab, { profile }, processes ? 'mpi' : 'threads')
  observer.phase?.('measuring this machine')
  const threads = config.threads || (await machine()).cores
  const [peak, secondsPerStep] = [
    await measurePeak({ threads }),
    await timeStep(program, config, model, data),
  ]
  const evaluation = await compileEvaluation(config, model.vocab, { target: 'text', threads: config.threads })
  const plan: TrainPlan = {
    ...countParameters(model),
    tokens: config.steps * config.batch * context,
    flops: config.steps * program.flops,
    flopsPerStep: program.flops,
    operations: {
      ...program.operations,
      evaluation: evaluationFlops(config, evaluation, data.validation.length),
    },
    arenaBytes: program.memory.arenaBytes,
    offloadedBytes: program.memory.offloadedBytes,
    movedBytes: program.memory.movedBytes,
    ...(program.recomputed ? { recompute: program.recomputed } : {}),
    processBytes: await expectedPeak(config, model, evaluation),
    steps: config.steps,
    peakFlops: peak.flopsF32,
    threads,
    etaSeconds: config.steps * secondsPerStep,
    compileSeconds: program.compileSeconds,
    cached: program.cached,
    data: {
      name: config.data,
      trainTokens: data.train.length,
      validationTokens: data.validation.length,
      vocabSize: model.vocab,
      tokenizer: data.tokenizer.kind,
      skipped: data.skipped,
    },
  }
  return { config, model, data, program, peak, plan }
}

/**
 * The most memory this process will hold. Node, the data and the step's arena are there by now, all of it touched by the
 * trial steps, so they are measured; what the evaluation and the sampler will add is the arena of each.
 */
async function expectedPeak(
  config: LanguageConfig,
  model: ModelConfig,
  evaluation: Program,
): Promise<number> {
  const text = { target: 'text', threads: config.threads } as const
  const sampler = await compileDecode(decodable({ ...model, dropout: 0 }), 1, text)
  const later = evaluation.memory.arenaBytes + sampler.memory.arenaBytes
  return Math.max(process.resourceUsage().maxRSS * 1024, process.memoryUsage.rss() + later)
}

/** Seconds of one step, from a trial on the initial state, which is then set back. */
async function timeStep(
  program: Program,
  config: LanguageConfig,
  model: ModelConfig,
  data: PreparedTokens,
): Promise<number> {
  reset(program, config, model.vocab)
  const tokens = readBatch(config, data, 0)
  await program.run({ tokens, seed: [config.seed] })
  const started = performance.now()
  await program.run({ tokens, seed: [config.seed] })
  const seconds = (performance.now() - started) / 1000
  reset(program, config, model.vocab)
  return seconds
}

function reset(program: Program, config: LanguageConfig, vocab: number): void {
  for (const [path, { shape }] of program.inputs) {
    if (path.startsWith('state.')) program.write(path, new Float32Array(sizeOf(shape)))
  }
  initialise(program, config, vocab)
}

/** Tokens of the windows of one step: [batch, context + 1], row-major. */
function readBatch(config: LanguageConfig, data: PreparedTokens, step: number): Int32Array {
  const { context } = config.model
  const starts = batchStarts({
    tokens: data.train.length,
    context,
    batch: config.batch,
    seed: config.seed,
    step,
  })
  const tokens = new Int32Array(config.batch * (context + 1))
  const places = batchPlaces(config)
  starts.forEach((start, i) => data.train.copyInto(tokens, places[i]! * (context + 1), start, context + 1))
  return tokens
}

/** Trains a new run. */
export async function trainLanguage(config: LanguageConfig, options: TrainOptions): Promise<TrainResult> {
  const observer = options.observer ?? {}
  const { processes = false } = options
  const prepared = await prepare(config, observer, { profile: options.profile !== undefined, processes })
  observer.plan?.(prepared.plan)
  const here = await machine()
  const writer = openLog(prepared.program, () =>
    createRun(options.runsDir, { recipe: 'language', config, plan: prepared.plan, machine: here }),
  )
  return loop(prepared, writer, options, { step: 0, seconds: 0, done: new Set(), saved: false })
}

/** Goes on with a run from its newest intact checkpoint, exactly as if it had not stopped. */
export async function resumeLanguage(
  runId: string,
  options: TrainOptions & { readonly overrides?: LanguageOverrides },
): Promise<TrainResult> {
  const observer = options.observer ?? {}
  const run = readRun(options.runsDir, runId)
  const stored = parseStoredConfig(run.config, run.dir)
  const config = withOverrides(stored, options.overrides ?? {})
  requireSameReplicas(stored, config)
  const prepared = await prepare(config, observer, { processes: options.processes ?? false })
  requireSameData(run.meta.plan['data'], prepared.plan.data, runId)
  observer.plan?.(prepared.plan)
  const { program } = prepared
  const newest = await useNewest(
    run.dir,
    (path) => loadCheckpoint(path, program, (name) => `state.${name}`),
    (text) => observer.note?.(text),
  )
  const checkpoint = newest?.checkpoint
  const step = checkpoint?.step ?? 0
  if (step === 0) reset(program, config, prepared.model.vocab)
  const changed = isDeepStrictEqual(config, stored) ? {} : { config }
  const writer = openLog(program, () => reopenRun(options.runsDir, runId, { fromStep: step, ...changed }))
  if (checkpoint && !run.checkpoints.some((known) => known.file === checkpoint.file))
    writer.checkpoint(checkpoint)
  const before = run.points.filter((point) => point.step <= step)
  const at = new Set(
    before.filter((point) => point.step === step).flatMap((point) => Object.keys(point.metrics)),
  )
  const done = new Set<Duty>()
  if (at.has('validationLoss')) done.add('evaluate')
  if (run.samples.some((sample) => sample.step === step)) done.add('sample')
  return loop(prepared, writer, options, {
    step,
    seconds: before.at(-1)?.seconds ?? 0,
    done,
    saved: checkpoint !== undefined,
  })
}

/**
 * A new run that starts from a checkpoint of another, with settings changed. Its first act is a checkpoint of its own, so
 * that it no longer needs its parent.
 */
export async function forkLanguage(
  parentId: string,
  options: TrainOptions & {
    readonly overrides?: LanguageOverrides
    /** Step of the checkpoint; default the newest that is there. */
    readonly fromStep?: number | undefined
  },
): Promise<TrainResult> {
  const observer = options.observer ?? {}
  const parent = readRun(options.runsDir, parentId)
  const { step, file } = checkpointAt(parent, options.fromStep)
  const config = withOverrides(parseStoredConfig(parent.config, parent.dir), options.overrides ?? {})
  if (config.steps <= step) {
    throw badUsage({
      where: 'steps',
      got: `steps=${config.steps}, which step ${step} has reached already`,
      expected: 'steps after those of the checkpoint',
      fix: `set steps=${step + 500}, say`,
    })
  }
  const prepared = await prepare(config, observer)
  requireSameData(parent.meta.plan['data'], prepared.plan.data, `fork of ${parentId}`)
  observer.plan?.(prepared.plan)
  const { program, plan } = prepared
  const here = await machine()
  await loadCheckpoint(join(parent.dir, file), program, (name) => `state.${name}`)
  const origin = { run: parentId, step }
  const writer = openLog(program, () =>
    createRun(options.runsDir, { recipe: 'language', config, plan, machine: here, parent: origin }),
  )
  const seconds = parent.points.findLast((point) => point.step <= step)?.seconds ?? 0
  return loop(prepared, writer, options, { step, seconds, done: new Set(), saved: false })
}

/** The checkpoint of a step, or the newest, among those still there. */
function checkpointAt(run: Run, step: number | undefined): CheckpointFile {
  const present = listCheckpoints(run.dir)
  const found = step === undefined ? present.at(-1) : present.find((known) => known.step === step)
  if (found) return found
  throw failure({
    where: run.dir,
    got: step === undefined ? 'no checkpoint' : `no checkpoint of step ${step}`,
    expected:
      present.length === 0 ? 'one' : `one of the steps ${present.map((known) => known.step).join(', ')}`,
    fix: 'train it further, or fork from a step that was saved',
  })
}

function withOverrides(config: LanguageConfig, overrides: LanguageOverrides): LanguageConfig {
  const merged = {
    ...config,
    ...overrides,
    model: { ...config.model, ...overrides.model },
    optim: { ...config.optim, ...overrides.optim },
    mesh: { ...config.mesh, ...overrides.mesh },
    parallel: { ...config.parallel, ...overrides.parallel },
    eval: { ...config.eval, ...overrides.eval },
    save: { ...config.save, ...overrides.save },
    sample: { ...config.sample, ...overrides.sample },
  }
  return resolveConfig(merged)
}

function requireSameData(recorded: unknown, now: TrainPlan['data'], runId: string): void {
  const then = recorded as Partial<TrainPlan['data']> | undefined
  const differs = then?.trainTokens !== now.trainTokens || then.vocabSize !== now.vocabSize
  if (then && differs) {
    throw failure({
      where: `resume ${runId}`,
      got: `data of ${now.trainTokens} tokens, vocabulary ${now.vocabSize}`,
      expected: `the data it was started with: ${then.trainTokens} tokens, vocabulary ${then.vocabSize}`,
      fix: 'restore the text, or start a new run with anneal train',
    })
  }
}

type Duty = 'evaluate' | 'sample'

interface Start {
  readonly step: number
  /** Seconds spent by earlier segments. */
  readonly seconds: number
  /** What was already done at this step. */
  readonly done: ReadonlySet<Duty>
  /** An intact checkpoint of this step exists. */
  readonly saved: boolean
}

async function loop(
  prepared: Prepared,
  writer: Log,
  options: TrainOptions,
  start: Start,
): Promise<TrainResult> {
  const { config, model, data, program, peak } = prepared
  const observer = options.observer ?? {}
  const began = performance.now()
  const tokensPerStep = config.batch * config.model.context
  const evaluator = new Evaluator(config, model, data)
  const sampler = new Sampler(model, data.tokenizer, { threads: config.threads })
  const profiler = options.profile && new StepProfiler(program, options.profile, config.steps - start.step)
  const hosts = hostsOf(program)
  options.started?.({ runId: writer.id, hosts })
  let step = start.step
  program.process?.countFrom(step)
  let savedStep = start.saved ? step : undefined
  let validationLoss: number | null = null
  let sample: string | null = null
  const pointAt = (metrics: Record<string, number>): TrainPoint => ({
    step,
    tokens: step * tokensPerStep,
    seconds: start.seconds + (performance.now() - began) / 1000,
    flops: step * program.flops,
    metrics,
  })
  const saver = openSaver(program, {
    runDir: writer.dir,
    segment: writer.segment,
    keep: config.save.keep,
    saved(file) {
      writer.checkpoint(file)
      observer.checkpoint?.(file)
    },
  })
  const due = (every: number): boolean => step === config.steps || (every > 0 && step % every === 0)
  let comparedStep: number | undefined
  const compare = (): void => {
    if (comparedStep !== step) checkReplicas(program, hosts, step)
    comparedStep = step
  }
  const save = async (): Promise<void> => {
    // A checkpoint is what a run goes back to when ranks differ: it must be from before that.
    if (config.parallel.check > 0) compare()
    writer.flush({ sync: true })
    const metadata = {
      run: writer.id,
      config: JSON.stringify(config),
      tokenizer: JSON.stringify(data.tokenizer),
    }
    await saver.save(step, metadata)
    savedStep = step
  }
  const evaluate = async (): Promise<void> => {
    observer.phase?.('evaluating')
    validationLoss = await evaluator.run(program)
    const point = pointAt({ validationLoss })
    writer.point(point)
    observer.evaluation?.(point)
  }
  const writeSample = async (): Promise<void> => {
    observer.phase?.('sampling')
    const { prompt, tokens, temperature } = config.sample
    const { text } = await sampler.run(program, 'state.params.', {
      prompt,
      tokens,
      temperature,
      topK: 0,
      seed: config.seed,
    })
    sample = text
    writer.sample({ step, prompt, text })
    observer.sample?.({ step, prompt, text })
  }
  const duties = async (done: ReadonlySet<Duty>): Promise<void> => {
    if (due(config.eval.every) && !done.has('evaluate')) await evaluate()
    if (due(config.sample.every) && !done.has('sample')) await writeSample()
  }
  try {
    // A fork owns nothing yet, and must not begin anew when it is killed before its first checkpoint.
    if (step > 0 && !start.saved) await save()
    if (step > 0) await duties(start.done)
    while (step < config.steps) {
      if (anyStops(program, options.signal?.aborted === true || profiler?.done === true)) {
        if (savedStep !== step) await save()
        await saver.settle()
        writer.close('interrupted', { step })
        meet(program)
        return result('interrupted')
      }
      flipForTest(program, writer, step)
      if (comparedStep === step) checkUnchanged(program, hosts, step)
      await program.run({ tokens: readBatch(config, data, step), seed: [config.seed] })
      step++
      profiler?.stepped()
      const { check } = config.parallel
      if (check > 0 && step % check === 0) compare()
      const point = pointAt(measured(program))
      requireFinite(point, writer)
      writer.point(point)
      observer.point?.(point)
      // Saved before anything that could fail for want of memory.
      if (due(config.save.every)) await save()
      await duties(new Set())
    }
    await saver.settle()
    writer.close('finished', { step })
    // None leaves before the checkpoint is complete.
    meet(program)
    return result('finished')
  } catch (error) {
    // What is being written is whole, and belongs into the log before its last line.
    await saver.close()
    closeFailed(writer, step, error)
    throw error
  } finally {
    await saver.close()
    evaluator.close()
    await sampler.close()
    program.close()
    data.train.close()
    data.validation.close()
  }

  function result(status: TrainResult['status']): TrainResult {
    const { seconds, flops } = pointAt({})
    const profile = profiler?.finish(writer.id, writer.dir, peak)
    return {
      runId: writer.id,
      runDir: writer.dir,
      status,
      step,
      validationLoss,
      flops,
      seconds,
      sample,
      ...(profile ? { profile } : {}),
    }
  }
}

/** Records a failure. On a full disk even that can be refused; the error that came first is the one to report. */
function closeFailed(writer: Log, step: number, error: unknown): void {
  try {
    writer.close('failed', { step, reason: (error as Error).message })
  } catch (second) {
    if (!(second instanceof UserError)) throw second
  }
}

const scalarOf = (program: Program, path: string): number => program.view(path)[0]!

/** What a step says of itself. One that was skipped because gradients overflowed has no gradient norm. */
function measured(program: Program): Record<string, number> {
  const metrics = (...names: string[]): Record<string, number> =>
    Object.fromEntries(names.map((name) => [name, scalarOf(program, name)]))
  const routing = program.outputs.has('imbalance') ? ['imbalance'] : []
  if (!program.outputs.has('lossScale')) return metrics('loss', 'gradNorm', 'lr', ...routing)
  const skipped = scalarOf(program, 'skipped') === 1
  if (skipped && scalarOf(program, 'lossScale') === 1) throw overflowing()
  return metrics('loss', ...(skipped ? [] : ['gradNorm']), 'lr', ...routing, 'lossScale')
}

const overflowing = (): UserError =>
  failure({
    where: 'precision=fp16',
    got: 'gradients that overflow with a loss scale of 1',
    expected: 'gradients below 65,504',
    fix: 'lower optim.lr, or use precision=bf16',
  })

function requireFinite(point: TrainPoint, writer: Log): void {
  const bad = Object.entries(point.metrics).find(([, value]) => !Number.isFinite(value))
  if (!bad) return
  const last = listCheckpoints(writer.dir).at(-1)
  throw failure({
    where: `step ${point.step}`,
    got: `${bad[0]} = ${bad[1]}`,
    expected: 'a finite number; the training diverged',
    fix: `lower optim.lr or set optim.clip=1${last ? `; the checkpoint of step ${last.step} is intact` : ''}`,
  })
}
