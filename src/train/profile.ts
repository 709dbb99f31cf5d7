/**
 * A look at the first steps of a run through the profiler: a few steps to warm up, some that count, then the run stops as
 * if it had been interrupted, saved, so that `resume` goes on from there at full speed. The run's folder keeps what was
 * found: `profile.json`, and `trace.json` for a trace viewer.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chromeTrace, type Profile, type Program } from '../compiler/index.ts'
import type { Peak } from '../compiler/runtime/peak.ts'

export interface ProfileSettings {
  /** Steps that are run first and not counted. */
  readonly warmup: number
  readonly steps: number
}

export const defaultProfile: ProfileSettings = { warmup: 3, steps: 10 }

/** What was measured, what it is to be held against, and where it was written. */
export interface StepProfile {
  readonly profile: Profile
  readonly peak: Peak
  readonly profilePath: string
  readonly tracePath: string
}

export class StepProfiler {
  readonly #program: Program
  readonly #settings: ProfileSettings
  #steps = 0

  /** A run that is shorter than the settings is profiled as far as it goes: its last step always counts. */
  constructor(program: Program, { warmup, steps }: ProfileSettings, stepsLeft: number) {
    this.#program = program
    this.#settings = { warmup: Math.min(warmup, Math.max(0, stepsLeft - 1)), steps }
    // Forgets the trial steps that told how long one takes.
    program.profile()
  }

  /** To be called after each step. */
  stepped(): void {
    this.#steps++
    if (this.#steps === this.#settings.warmup) this.#program.profile()
  }

  get done(): boolean {
    return this.#steps >= this.#settings.warmup + this.#settings.steps
  }

  /** Reads the profile and writes both files; undefined when the run was stopped before the first step that counts. */
  finish(runId: string, dir: string, peak: Peak): StepProfile | undefined {
    const profile = this.#program.profile()
    if (this.#steps <= this.#settings.warmup) return undefined
    const [profilePath, tracePath] = [join(dir, 'profile.json'), join(dir, 'trace.json')]
    writeFileSync(profilePath, JSON.stringify({ version: 1, peak, profile }))
    writeFileSync(tracePath, JSON.stringify(chromeTrace(runId, profile)))
    return { profile, peak, profilePath, tracePath }
  }
}
