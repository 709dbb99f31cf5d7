/**
 * How long a person waits before anything happens: `anneal --help`, and compiling the default recipe's training step
 * and that of GPT-2 124M with an empty cache and with a full one. Prints, asserts nothing. Run with `npm run bench startup`.
 *
 * Subtle: every number is the wall time of a whole process, the launcher and Node included, as a person meets it; the
 * compile seconds are those the plan of `--dry-run` reports, which leave out starting Node and measuring the machine.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { machineLine } from './facts.ts'
import { busyCores, disturbances } from './quiet.ts'
import { record } from './record.ts'
import { median } from './slices.ts'

const launcher = fileURLToPath(new URL('../bin/anneal.js', import.meta.url))
const repeats = 9

const gpt2 = fileURLToPath(new URL('compile-gpt2.ts', import.meta.url))

interface Timed {
  readonly out: string
  readonly ms: number
}

const anneal = (args: readonly string[], env: NodeJS.ProcessEnv = {}): Timed => node([launcher, ...args], env)

function node(args: readonly string[], env: NodeJS.ProcessEnv = {}): Timed {
  const started = performance.now()
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  if (status !== 0) throw new Error(`${args.join(' ')} exited with ${status}: ${stderr}`)
  return { out: stdout, ms: performance.now() - started }
}

/** Plans the default recipe; `compileSeconds` is tracing, passes, emission and the C compiler (or loading from the cache). */
function plan(cache: string): {
  readonly compileSeconds: number
  readonly cached: boolean
  readonly ms: number
} {
  const { out, ms } = anneal(['train', 'language', '--dry-run', '--json'], { ANNEAL_CACHE: cache })
  const document = JSON.parse(out) as { plan: { compileSeconds: number; cached: boolean } }
  return { ...document.plan, ms }
}

function compileGpt2(cache: string): number {
  return (JSON.parse(node([gpt2], { ANNEAL_CACHE: cache }).out) as { compileSeconds: number }).compileSeconds
}

/** Prints the times, as lines or as one JSON document. */
export async function main(args: readonly string[]): Promise<void> {
  anneal(['--help'])
  const help = median(Array.from({ length: repeats }, () => anneal(['--help']).ms))
  const cache = mkdtempSync(join(tmpdir(), 'anneal-startup-'))
  try {
    const cold = plan(cache)
    const warm = plan(cache)
    // The first run in an empty cache; then the median of several that find the library.
    const gpt2Cold = compileGpt2(cache)
    const gpt2Cached = median(Array.from({ length: 5 }, () => compileGpt2(cache)))
    const othersCores = await busyCores()
    const results = {
      helpMs: help,
      coldCompileSeconds: cold.compileSeconds,
      cachedCompileSeconds: warm.compileSeconds,
      coldDryRunSeconds: cold.ms / 1000,
      cachedDryRunSeconds: warm.ms / 1000,
      foundInCache: warm.cached,
      gpt2ColdCompileSeconds: gpt2Cold,
      gpt2CachedCompileSeconds: gpt2Cached,
    }
    const problems = disturbances(othersCores)
    if (problems.length === 0) record({ bench: 'startup', othersCores, ...results })
    if (args.includes('--json')) console.log(JSON.stringify(results))
    else {
      console.log([await machineLine(), ...problems].join('\n'))
      console.log(`anneal --help                  ${help.toFixed(0)} ms (median of ${repeats})`)
      console.log(`default recipe, compile        ${cold.compileSeconds.toFixed(2)} s cold`)
      console.log(`                               ${warm.compileSeconds.toFixed(2)} s cached`)
      console.log(`default recipe, whole dry run  ${(cold.ms / 1000).toFixed(2)} s cold`)
      console.log(`                               ${(warm.ms / 1000).toFixed(2)} s cached`)
      console.log(`GPT-2 124M step, compile       ${gpt2Cold.toFixed(2)} s cold`)
      console.log(`                               ${gpt2Cached.toFixed(3)} s cached (median of 5)`)
    }
  } finally {
    rmSync(cache, { recursive: true, force: true })
  }
}
