/**
 * A row of a board run again: integers must be equal, everywhere; metrics must have the same bits on the same kind of machine
 * (processor, instructions, C compiler), and elsewhere the difference is told.
 */
import { failure } from '../../errors.ts'
import type { BoardEntry, CurvePoint } from './board-files.ts'
import { phases, type Task } from './task.ts'
import { machineKind, trainOnce, type Watch } from './train-once.ts'

export interface Verified {
  readonly points: number
  readonly flop: number
  readonly sameMachine: boolean
  /** Of metrics; 0 on the same kind of machine. */
  readonly largestDifference: number
}

/** Null when interrupted. */
export async function verifyRun(
  task: Task,
  { folder, recipe, runs }: BoardEntry,
  seed: number,
  watch: Watch = {},
): Promise<Verified | null> {
  const stored = runs.find((run) => run.seed === seed)
  if (!stored)
    throw failure({
      where: folder,
      got: `no seed ${seed}`,
      expected: `one of 0 to ${runs.length - 1}`,
      fix: 'choose another --seed',
    })
  const done = await trainOnce(task, recipe, seed, watch)
  if (!done) return null
  const refuse = (got: string, expected: string): never => {
    throw failure({
      where: `${folder}, seed ${seed}`,
      got,
      expected,
      fix: 'if the change is meant, run the entry again; else find what changed the program',
    })
  }
  const sameMachine = stored.machine === (await machineKind())
  let largestDifference = 0
  const check = (found: CurvePoint, i: number): void => {
    const wanted = stored.curve[i]!
    for (const [k, name] of (['FLOP', 'step', 'samples'] as const).entries())
      if (found[k] !== wanted[k])
        refuse(`${found[k]} ${name} at evaluation ${i + 1}`, `${wanted[k]}, as stored`)
    if (sameMachine && !Object.is(found[3], wanted[3]))
      refuse(
        `${found[3]} ${task.metric} at evaluation ${i + 1}`,
        `${wanted[3]}, to the bit, on this kind of machine`,
      )
    largestDifference = Math.max(largestDifference, Math.abs(found[3] - wanted[3]))
  }
  done.curve.slice(0, stored.curve.length).forEach(check)
  // Where a metric differs in its last bits, a run may diverge or end elsewhere.
  if (done.curve.length !== stored.curve.length && sameMachine)
    refuse(`${done.curve.length} evaluations`, `${stored.curve.length}, as stored`)
  if (done.curve.length === stored.curve.length)
    for (const phase of phases)
      if (done.phases[phase] !== stored.phases[phase])
        refuse(`${done.phases[phase]} FLOP ${phase}`, `${stored.phases[phase]}, as stored`)
  return { points: done.curve.length, flop: done.curve.at(-1)?.[0] ?? 0, sameMachine, largestDifference }
}
