/**
 * A run that is killed again and again ends where an undisturbed one does, to the last bit: 20 kills without notice at
 * seeded moments, many of them inside the writing of a checkpoint, and after all of them the same tensors and the same
 * history. Also Ctrl-C, which saves and says how to go on, and more steps for a run that had finished.
 *
 * Subtle: a kill is aimed by watching the run's folder from outside. The folder is looked at in a loop without pause,
 * since the unfinished file of a small checkpoint exists for about a millisecond.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { philoxUniform } from '../src/compiler/index.ts'
import { openSafetensors } from '../src/data/safetensors.ts'
import { parseStoredConfig, resolveConfig } from '../src/models/language/config.ts'
import { readRun } from '../src/runs/index.ts'
import type { Run } from '../src/runs/index.ts'
import { listCheckpoints } from '../src/train/checkpoint.ts'
import { resumeLanguage, trainLanguage } from '../src/train/language.ts'
import { anneal, start } from './launch.ts'
import type { Started } from './launch.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-resume-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const text = join(scratch, 'text.txt')
writeFileSync(text, Array.from({ length: 300 }, (_, i) => `${i * i} is the square of ${i}.\n`).join(''))

const steps = 240
const kills = 20
const settings = [
  `data=${text}`,
  'batch=2',
  'threads=1',
  'model.context=16',
  'model.layers=1',
  'model.width=16',
  'eval.every=25',
  'sample.every=40',
  'sample.tokens=4',
  'sample.prompt=1',
]

/** The run in a runs folder that holds one; undefined while there is none. */
function idOf(runsDir: string): string | undefined {
  if (!existsSync(runsDir)) return undefined
  return readdirSync(runsDir).find((name) => existsSync(join(runsDir, name, 'run.json')))
}

function theRun(runsDir: string): Run {
  const id = idOf(runsDir)
  assert.ok(id !== undefined, 'a run was started')
  return readRun(runsDir, id)
}

/** Bytes of every tensor of the newest checkpoint, whose checksums are verified on the way. */
function newestTensors({ dir }: Run): { readonly step: number; readonly tensors: Record<string, string> } {
  const newest = listCheckpoints(dir).at(-1)!
  const file = openSafetensors(join(dir, newest.file))
  assert.equal(file.verify(), true)
  const names = [...file.tensors.keys()].toSorted()
  const tensors = Object.fromEntries(
    names.map((name) => [name, Buffer.from(file.read(name)).toString('base64')]),
  )
  file.close()
  return { step: newest.step, tensors }
}

/** A line for everything measured, by step and name: equal lists mean every step exactly once, with equal values. */
function history({ points, samples }: Run): string[] {
  const measured = points.flatMap(({ step, tokens, flops, metrics }) =>
    Object.entries(metrics).map(([name, value]) => ({ step, name, line: `${value} ${tokens} ${flops}` })),
  )
  const ordered = measured.toSorted((a, b) => a.step - b.step || (a.name < b.name ? -1 : 1))
  return [
    ...ordered.map(({ step, name, line }) => `${step} ${name} ${line}`),
    ...samples.map(({ step, prompt, text: said }) => `${step} ${prompt}${said}`),
  ]
}

const lossSteps = ({ points }: Run): number[] =>
  points.flatMap(({ step, metrics }) => ('loss' in metrics ? [step] : []))

const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1)

/** Waits, without pause when `busy`, until the condition holds or the process has ended. */
async function until(condition: () => boolean, { process: child }: Started, busy: boolean): Promise<void> {
  const over = (): boolean => condition() || child.exitCode !== null || child.signalCode !== null
  while (!over()) {
    const sliceEnd = performance.now() + (busy ? 20 : 0)
    while (performance.now() < sliceEnd) if (condition()) return
    // Lets the exit of the child be noticed, and the cores be used by others.
    await sleep(busy ? 0 : 2)
  }
}

/** The unfinished file of a checkpoint is there. */
const isWriting = (dir: string): boolean => checkpointsOf(dir).some((name) => name.includes('.tmp-'))

/** Stops the process when it is seen writing. Too late, as the file shows, lets it go on and says no. */
function stopsWhileWriting({ process: child }: Started, dir: string): boolean {
  if (!isWriting(dir)) return false
  child.kill('SIGSTOP')
  const settled = performance.now() + 2
  while (performance.now() < settled);
  if (isWriting(dir)) return true
  child.kill('SIGCONT')
  return false
}

const checkpointsOf = (dir: string): string[] => filesIn(join(dir, 'checkpoints'))

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

test('20 kills without notice change neither the tensors nor the history', async (t) => {
  const whole = join(scratch, 'whole')
  const undisturbed = anneal('train', 'language', ...settings, `steps=${steps}`, '--runs', whole)
  assert.equal(undisturbed.code, 0, undisturbed.err)
  const expected = theRun(whole)

  const runsDir = join(scratch, 'killed')
  let random = 0
  const uniform = (): number => philoxUniform({ seed: 5, step: 0, stream: 0, salt: 0 }, random++)
  let whileWriting = 0
  for (let kill = 0; kill < kills; kill++) {
    const id = idOf(runsDir)
    const every = `save.every=${1 + (kill % 3)}`
    const job =
      id === undefined
        ? start('train', 'language', ...settings, `steps=${steps}`, every, '--runs', runsDir)
        : start('resume', id, every, '--runs', runsDir)
    await until(() => idOf(runsDir) !== undefined, job, false)
    const { dir } = theRun(runsDir)
    const segments = (): number => filesIn(join(dir, 'segments')).length
    const before = id === undefined ? 0 : segments()
    // Steps left over at the end, so that a fast machine does not finish before it is killed.
    const target = Math.round(((kill + uniform()) / kills) * 0.75 * steps)
    const newest = (): number => listCheckpoints(dir).at(-1)?.step ?? 0
    const started = listCheckpoints(dir).at(-1)?.step ?? 0
    if (kill % 5 === 4) {
      // Anywhere at all: most of these hit the start, before or while the new segment is opened.
      const moment = performance.now() + uniform() * 1500
      await until(() => performance.now() > moment || newest() > Math.max(target, started), job, false)
    } else {
      await until(() => segments() > before && newest() > Math.max(target, started), job, false)
      if (kill % 5 < 3) await until(() => stopsWhileWriting(job, dir), job, true)
      else await sleep(uniform() * 20)
    }
    job.process.kill('SIGKILL')
    const { code } = await job.ended
    assert.equal(code, null, `kill ${kill} came before the end`)
    if (isWriting(dir)) whileWriting++
    assert.equal(theRun(runsDir).status, 'interrupted')
  }
  const last = anneal('resume', idOf(runsDir)!, '--runs', runsDir)
  assert.equal(last.code, 0, last.err)
  const killed = theRun(runsDir)
  t.diagnostic(`${whileWriting} of ${kills} kills left an unfinished checkpoint behind`)
  assert.ok(whileWriting >= 6, `only ${whileWriting} kills came inside the writing of a checkpoint`)

  assert.equal(killed.status, 'finished')
  assert.deepEqual(killed.notes, [])
  const [got, wanted] = [history(killed), history(expected)]
  const differs = wanted.findIndex((line, i) => line !== got[i])
  assert.ok(differs < 0, `got ${got[differs]}, expected ${wanted[differs]}`)
  assert.equal(got.length, wanted.length)
  assert.deepEqual(lossSteps(killed), upTo(steps))
  assert.deepEqual(newestTensors(killed), newestTensors(expected))
  assert.deepEqual(
    checkpointsOf(killed.dir).filter((name) => name.includes('.tmp-')),
    [],
    'what killed writers left is cleaned up',
  )
})

test('Ctrl-C saves and prints how to go on; the run then ends like an undisturbed one, and can be extended', async () => {
  const runsDir = join(scratch, 'interrupted')
  const job = start('train', 'language', ...settings, 'steps=2000', 'eval.every=0', '--runs', runsDir)
  await until(() => idOf(runsDir) !== undefined && theRun(runsDir).points.length > 0, job, false)
  job.process.kill('SIGINT')
  const { code, out } = await job.ended
  assert.equal(code, 130)
  const stopped = theRun(runsDir)
  assert.equal(stopped.status, 'interrupted')
  const { step } = newestTensors(stopped)
  assert.equal(step, stopped.points.at(-1)?.step)
  const command = /^resume with: anneal (resume .*)$/m.exec(out)?.[1]
  assert.ok(command, out)

  assert.ok(step < 2000)
  const rest = anneal(...command.split(' '))
  assert.equal(rest.code, 0, rest.err)
  assert.equal(newestTensors(theRun(runsDir)).step, 2000)
  assert.equal(anneal(...command.split(' '), 'steps=2020', 'save.every=3').code, 0)
  const extended = theRun(runsDir)
  assert.equal(newestTensors(extended).step, 2020)
  assert.equal(extended.status, 'finished')
  assert.equal(extended.config['steps'], 2020, 'a later resume knows the new end')
  assert.deepEqual(lossSteps(extended), upTo(2020))
})

test('a second Ctrl-C ends the run at once, and what was saved before is there', async () => {
  const runsDir = join(scratch, 'twice')
  // A sample that takes hours keeps the first Ctrl-C waiting.
  const slow = ['steps=10', 'save.every=1', 'sample.every=1', 'sample.tokens=100000000']
  const job = start('train', 'language', ...settings, ...slow, '--runs', runsDir)
  await until(() => job.err().includes('sampling'), job, false)
  job.process.kill('SIGINT')
  await until(() => job.err().includes('Ctrl-C again'), job, false)
  // Signals closer together than this count as one key press.
  await sleep(600)
  const pressed = performance.now()
  job.process.kill('SIGINT')
  assert.equal((await job.ended).code, 130)
  assert.ok(performance.now() - pressed < 2000, 'it did not wait for the sample')
  assert.equal(newestTensors(theRun(runsDir)).step, 1)
  const rest = anneal('resume', idOf(runsDir)!, 'sample.tokens=4', 'sample.every=0', '--runs', runsDir)
  assert.equal(rest.code, 0, rest.err)
  assert.equal(newestTensors(theRun(runsDir)).step, 10)
})

test('bytes of moments and the loss scale come back from a checkpoint like everything else', async () => {
  const config = resolveConfig({
    data: text,
    steps: 30,
    batch: 2,
    threads: 1,
    precision: 'fp16',
    model: { block: 'gpt2', context: 16, layers: 1, width: 32 },
    optim: { name: 'adamw8bit', lossScale: 2 ** 20, lossScaleSteps: 4 },
    sample: { every: 0, tokens: 1, prompt: '1' },
  })
  const [whole, parts] = [join(scratch, 'bytes-whole'), join(scratch, 'bytes-parts')]
  await trainLanguage(config, { runsDir: whole })
  const control = new AbortController()
  const point = ({ step }: { readonly step: number }): void => {
    if (step === 13) control.abort()
  }
  const first = await trainLanguage(config, { runsDir: parts, signal: control.signal, observer: { point } })
  assert.deepEqual([first.status, first.step], ['interrupted', 13])
  const rest = await resumeLanguage(first.runId, { runsDir: parts })
  assert.deepEqual([rest.status, rest.step], ['finished', 30])
  const { tensors } = newestTensors(theRun(parts))
  assert.deepEqual(tensors, newestTensors(theRun(whole)).tensors)
  const codes = Buffer.from(tensors['optim.tokens.v']!, 'base64')
  assert.ok(new Set(codes).size > 20, 'a byte an element')
  const scale = Buffer.from(tensors['lossScale.scale']!, 'base64').readFloatLE()
  assert.ok(scale !== 2 ** 20 && Number.isInteger(Math.log2(scale)), `the scale has moved: ${scale}`)
})

test('a run stored before a setting was there goes on with its default', () => {
  const config = resolveConfig({ optim: { name: 'adamw' } })
  const { fp8Scaling, optim, ...old } = config
  const { relativeStep, lossScale, lossScaleSteps, ...oldOptim } = optim
  assert.deepEqual([fp8Scaling, relativeStep, lossScale, lossScaleSteps], ['row', false, 65_536, 2000])
  assert.deepEqual(parseStoredConfig({ ...old, optim: oldOptim }, 'run.json'), config)
})
