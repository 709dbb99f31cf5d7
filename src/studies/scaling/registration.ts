/**
 * A prediction that cannot be made afterwards. `register` fits the law to the small runs and writes what it says of the
 * larger one, dated and hashed, and refuses once that run exists in any part. `check` compares, but first verifies the
 * hashes, and that the prediction is what the stored runs give: an edit of the file, of its hashes too, or of a run
 * comes to light. When it was written is for the history of the repository to witness, so commit it first.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { failure } from '../../errors.ts'
import { listCheckpoints } from '../../train/checkpoint.ts'
import type { PlannedRun } from './family.ts'
import { expectationsOf } from './grammar.ts'
import { fitLaw, forecast, type Forecast, type Law } from './law.ts'
import {
  isDone,
  lineOf,
  pointsOf,
  readFitRuns,
  readJson,
  readPlan,
  readStoredRun,
  runPath,
  writeJson,
  type Plan,
} from './store.ts'
import { studyGrammar } from './text.ts'

/** What the small runs say. */
export interface Analysis {
  readonly law: Law
  readonly forecast: Forecast
  readonly power: Law
  readonly powerForecast: Forecast
}

export interface Registration extends Analysis {
  /** ISO, to the second. */
  readonly registered: string
  readonly target: PlannedRun
  readonly runs: readonly { readonly name: string; readonly flops: number; readonly loss: number }[]
  /** SHA-256 of each field above as JSON, and of all of them together. */
  readonly sha256: Readonly<Record<string, string>>
}

export const registrationPath = (folder: string): string => join(folder, 'prediction.json')

export function analyse(folder: string, plan: Plan): Analysis {
  const points = pointsOf(readFitRuns(folder, plan))
  const { flops } = plan.target
  return {
    law: fitLaw(points, true),
    forecast: forecast(points, flops, true),
    power: fitLaw(points, false),
    powerForecast: forecast(points, flops, false),
  }
}

const runsOf = (folder: string, plan: Plan): Registration['runs'] =>
  readFitRuns(folder, plan).map(({ name, flops, loss }) => ({ name, flops, loss }))

/** @param work where the checkpoints of the target would be. */
export function register(folder: string, work: string, now: Date): Registration {
  const plan = readPlan(folder)
  const { target } = plan
  const path = registrationPath(folder)
  const begun = listCheckpoints(work).length > 0
  if (isDone(folder, target.name) || begun) {
    throw failure({
      where: begun ? work : runPath(folder, target.name),
      got: `a run that ${begun ? 'has begun' : 'is done'}`,
      expected: 'a prediction registered before the run',
      fix: 'predict a larger run, in a series of its own',
    })
  }
  if (existsSync(path)) {
    throw failure({
      where: path,
      got: 'a registered prediction',
      expected: 'none, or it would be replaced',
      fix: 'go on with anneal study scaling run --target',
    })
  }
  const content = {
    registered: `${now.toISOString().slice(0, 19)}Z`,
    target,
    runs: runsOf(folder, plan),
    ...analyse(folder, plan),
  }
  const registration = { ...content, sha256: hashesOf(content) }
  writeJson(path, registration)
  return registration
}

/** A registration whose hashes hold, and which says what the stored runs give. */
export function readRegistration(folder: string): Registration {
  const path = registrationPath(folder)
  if (!existsSync(path)) {
    throw failure({
      where: path,
      got: 'no registered prediction',
      expected: 'one from before the run',
      fix: 'register it with anneal study scaling register',
    })
  }
  const { sha256, ...content } = readJson(path)
  const recorded = (sha256 ?? {}) as Record<string, string>
  const hashes = hashesOf(content)
  for (const field of new Set([...Object.keys(recorded), ...Object.keys(hashes)])) {
    if (recorded[field] === hashes[field]) continue
    const where = field === 'all' ? 'sha256' : field
    throw refusal(path, where, `'${where}' with hash ${hashes[field]?.slice(0, 12) ?? 'none'}`, {
      expected: `${recorded[field]?.slice(0, 12) ?? 'none'}, as registered: it was edited afterwards`,
    })
  }
  const plan = readPlan(folder)
  requireAgreement(path, content, { target: plan.target, runs: runsOf(folder, plan) })
  requireAgreement(path, content, { ...analyse(folder, plan) })
  return { ...content, sha256 } as unknown as Registration
}

function requireAgreement(path: string, content: Record<string, unknown>, now: object): void {
  for (const [field, value] of Object.entries(now)) {
    if (agrees(value, content[field])) continue
    throw refusal(path, field, `a '${field}' that the stored runs do not give`, {
      expected: 'what anneal study scaling fit says: the file, the plan or a run was edited afterwards',
    })
  }
}

/** The same tree; numbers up to what another machine's logarithms may differ by. */
function agrees(now: unknown, then: unknown): boolean {
  if (typeof now === 'number' && typeof then === 'number') return Math.abs(now - then) <= 1e-6 * Math.abs(now)
  if (typeof now !== 'object' || now === null || typeof then !== 'object' || then === null)
    return now === then
  const [left, right] = [now as Record<string, unknown>, then as Record<string, unknown>]
  const keys = new Set([...Object.keys(left), ...Object.keys(right)])
  return [...keys].every((key) => agrees(left[key], right[key]))
}

const refusal = (path: string, field: string, got: string, { expected }: { expected: string }) =>
  failure({
    where: `${path}, line ${lineOf(path, field)}`,
    got,
    expected,
    fix: 'restore the file from the repository',
  })

function hashesOf(content: Readonly<Record<string, unknown>>): Record<string, string> {
  const hash = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex')
  const fields = Object.entries(content).map(([field, value]) => [field, hash(value)] as const)
  return { ...Object.fromEntries(fields), all: hash(fields) }
}

export interface Check {
  readonly predicted: number
  readonly interval: readonly [number, number]
  readonly actual: number
  /** (predicted - actual) / actual */
  readonly relativeError: number
  readonly inside: boolean
  readonly powerPredicted: number
  readonly powerRelativeError: number
  /** The grammar's own nats a token on the held-out text. */
  readonly floor: number
  /** (c - floor) / floor */
  readonly constantError: number
  /** Of the endless text, from the grammar. */
  readonly entropyRate: number
  readonly constantErrorOfRate: number
}

/** The target's loss beside what was registered. */
export function check(folder: string): Check {
  const { law, forecast: said, powerForecast, target } = readRegistration(folder)
  const { loss: actual, floor, settings } = readStoredRun(folder, target)
  const { rate } = expectationsOf(studyGrammar(settings.text))
  const found: Check = {
    predicted: said.loss,
    interval: said.interval,
    actual,
    relativeError: (said.loss - actual) / actual,
    inside: said.interval[0] <= actual && actual <= said.interval[1],
    powerPredicted: powerForecast.loss,
    powerRelativeError: (powerForecast.loss - actual) / actual,
    floor,
    constantError: (law.c - floor) / floor,
    entropyRate: rate,
    constantErrorOfRate: (law.c - rate) / rate,
  }
  writeJson(join(folder, 'check.json'), found)
  return found
}
