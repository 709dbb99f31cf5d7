/**
 * One run of the scaling study: our compiled training step on text that is drawn as it is needed and never repeats, a
 * curve, checkpoints, and at the end the loss on held-out text beside that text's exact -ln probability.
 *
 * A run can be killed at any moment. The curve so far, and the sum of losses since its last point, travel inside the
 * checkpoint they belong to, so a run that went on has the same curve, bit for bit, as one that was never stopped.
 */
import { join } from 'node:path'
import type { Program } from '../../compiler/index.ts'
import { makeFolder } from '../../data/files.ts'
import { openSafetensors } from '../../data/safetensors.ts'
import { failure } from '../../errors.ts'
import { loadCheckpoint, openSaver, useNewest } from '../../train/checkpoint.ts'
import { compileEvaluation, initialise } from '../../train/programs.ts'
import { specsOf } from '../../train/state.ts'
import { compileStep } from '../../train/step.ts'
import { configOf, type RunSettings } from './family.ts'
import { GrammarSampler } from './grammar.ts'
import { alphabet, sentenceEnd, studyGrammar } from './text.ts'

export interface CurvePoint {
  readonly step: number
  /** Mean nats a token over the steps since the point before. */
  readonly loss: number
}

export interface RunResult {
  /** Exact operations: those of a step times the steps. */
  readonly flops: number
  readonly tokens: number
  readonly curve: readonly CurvePoint[]
  /** Nats a token on held-out text, after the last step. */
  readonly loss: number
  /** Nats a token that the grammar itself gives that text: no model does better on average. */
  readonly floor: number
  readonly heldOutTokens: number
  /** Seconds of this machine; not part of what must agree between runs. */
  readonly seconds: number
}

export interface TrainScalingOptions {
  /** Holds the checkpoints. */
  readonly folder: string
  readonly threads?: number
  /** What the plan counted; a program that costs something else is not the one planned. */
  readonly flops?: number
  readonly signal?: AbortSignal
  readonly heldOutWindows?: number
  /** After every point of the curve. */
  readonly progress?: (at: { step: number; steps: number; loss: number; secondsLeft: number }) => void
}

const points = 100
const pointsPerCheckpoint = 5
const streams = { training: 0, heldOut: 1 }
const heldOutSeed = 0

/** What a checkpoint holds besides the program's state. */
interface Progress {
  readonly curve: CurvePoint[]
  sum: number
  count: number
  seconds: number
}

/** Trains, or goes on. Undefined: it was asked to stop, and saved. */
export async function trainScaling(
  run: RunSettings,
  options: TrainScalingOptions,
): Promise<RunResult | undefined> {
  const config = configOf(run, options.threads)
  const program = await compileStep(config, alphabet.length)
  try {
    const flops = run.steps * program.flops
    if (options.flops !== undefined && options.flops !== flops) {
      throw failure({
        where: options.folder,
        got: `a program of ${flops} FLOP`,
        expected: `the plan's ${options.flops}`,
        fix: 'the compiler has changed since: plan anew in another --folder',
      })
    }
    initialise(program, config, alphabet.length)
    makeFolder(options.folder)
    const found = await useNewest(
      options.folder,
      async (path) => {
        await loadCheckpoint(path, program, (name) => `state.${name}`)
        return progressIn(path, run)
      },
      () => undefined,
    )
    const progress = found?.value ?? { curve: [], sum: 0, count: 0, seconds: 0 }
    const step = await steps(run, program, options, found?.checkpoint.step ?? 0, progress)
    if (step < run.steps) return undefined
    const { loss, floor, tokens } = await heldOut(run, program, options)
    const { curve, seconds } = progress
    const trained = run.steps * run.batch * run.context
    return {
      flops,
      tokens: trained,
      curve,
      loss,
      floor,
      heldOutTokens: tokens,
      seconds,
    }
  } finally {
    program.close()
  }
}

/** The loop; returns the step it came to. */
async function steps(
  run: RunSettings,
  program: Program,
  { folder, signal, progress: tell }: TrainScalingOptions,
  from: number,
  progress: Progress,
): Promise<number> {
  const text = windowsOf(run, run.seed, streams.training)
  const saver = openSaver(program, { runDir: folder, segment: 0, keep: 2, saved: () => undefined })
  const every = Math.ceil(run.steps / points)
  const [began, before] = [performance.now(), progress.seconds]
  const save = async (step: number): Promise<void> =>
    saver.save(step, { run: JSON.stringify(run), progress: JSON.stringify(progress) })
  let step = from
  while (step < run.steps) {
    if (signal?.aborted) {
      await save(step)
      break
    }
    await program.run({ tokens: text(step * run.batch, run.batch), seed: [run.seed] })
    const loss = program.view('loss')[0]!
    if (!Number.isFinite(loss)) {
      throw failure({
        where: `${folder}, step ${step + 1}`,
        got: `a loss of ${loss}`,
        expected: 'a finite number; the training diverged',
        fix: 'plan with lower rates',
      })
    }
    step++
    progress.sum += loss
    progress.count++
    progress.seconds = before + (performance.now() - began) / 1000
    if (step % every !== 0 && step !== run.steps) continue
    progress.curve.push({ step, loss: progress.sum / progress.count })
    progress.sum = progress.count = 0
    const perStep = (performance.now() - began) / 1000 / (step - from)
    tell?.({
      step,
      steps: run.steps,
      loss: progress.curve.at(-1)!.loss,
      secondsLeft: perStep * (run.steps - step),
    })
    if (step % (every * pointsPerCheckpoint) === 0 || step === run.steps) await save(step)
  }
  await saver.settle()
  await saver.close()
  return step
}

function progressIn(path: string, run: RunSettings): Progress {
  const file = openSafetensors(path)
  const { run: of, progress } = file.metadata
  file.close()
  if (of !== JSON.stringify(run) || progress === undefined) {
    throw failure({
      where: path,
      got: 'a checkpoint of a run with other settings',
      expected: 'one of this plan',
      fix: `remove the folder ${join(path, '..', '..')}`,
    })
  }
  return JSON.parse(progress) as Progress
}

/** Windows number `first` to `first + count` of a stream as tokens [count, context + 1], each at a sentence's start. */
function windowsOf(
  { text, context }: RunSettings,
  seed: number,
  stream: number,
): (first: number, count: number, nats?: Float64Array) => Int32Array {
  const sampler = new GrammarSampler(studyGrammar(text))
  const tokenOf = new Map(alphabet.map((character, i) => [character, i]))
  const start = tokenOf.get(sentenceEnd)!
  return (first, count, nats) => {
    const tokens = new Int32Array(count * (context + 1))
    for (let row = 0; row < count; row++) {
      const own = nats?.subarray(row * context, (row + 1) * context)
      const window = sampler.window({ seed, stream, index: first + row }, context, own)
      tokens[row * (context + 1)] = start
      for (let i = 0; i < context; i++) tokens[row * (context + 1) + 1 + i] = tokenOf.get(window[i]!)!
    }
    return tokens
  }
}

/** Loss on held-out text, the same for every run of a study, and the text's own. */
async function heldOut(
  run: RunSettings,
  step: Program,
  { threads, heldOutWindows = 4096 }: TrainScalingOptions,
): Promise<{ loss: number; floor: number; tokens: number }> {
  const config = configOf(run, threads)
  const evaluation = await compileEvaluation(config, alphabet.length)
  try {
    for (const [path] of specsOf({ ...config.model, vocab: alphabet.length }))
      evaluation.write(`params.${path}`, step.view(`state.params.${path}`))
    const text = windowsOf(run, heldOutSeed, streams.heldOut)
    let [modelNats, textNats] = [0, 0]
    for (let first = 0; first < heldOutWindows; first += run.batch) {
      const wanted = Math.min(run.batch, heldOutWindows - first) * run.context
      const nats = new Float64Array(run.batch * run.context)
      const counted = new Float32Array(nats.length).fill(1, 0, wanted)
      await evaluation.run({ tokens: text(first, run.batch, nats), counted })
      modelNats += evaluation.view('nats')[0]!
      textNats += nats.subarray(0, wanted).reduce((a, b) => a + b, 0)
    }
    const tokens = heldOutWindows * run.context
    return { loss: modelNats / tokens, floor: textNats / tokens, tokens }
  } finally {
    evaluation.close()
  }
}
