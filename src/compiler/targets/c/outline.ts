/**
 * What one rank does in a step of the emitted program, for those who want to know its time before it runs: kernel calls in
 * the order of the text, in the phases that end with a barrier. A collective or message has its node with it.
 */
import type { Node } from '../../graph/node.ts'
import type { Block } from './lower.ts'
import type { Work } from './work.ts'

export interface OutlinedCall {
  readonly kind: 'call'
  readonly work: Work
  /** Of a collective or message, which says who takes part and with what. */
  readonly node?: Node
}

export interface OutlinedLoop {
  readonly kind: 'loop'
  readonly length: number
  readonly phases: readonly OutlinedPhase[]
}

export type OutlinedStep = OutlinedCall | OutlinedLoop

export interface OutlinedPhase {
  readonly steps: readonly OutlinedStep[]
  /** Its collectives are all begun before its other work, and ended after it. */
  readonly together: boolean
}

export const outlineOf = ({ phases }: Block): OutlinedPhase[] =>
  phases.map((phase) => ({
    together: phase.length > 1,
    steps: phase.flatMap(({ steps }) =>
      steps.map((step): OutlinedStep =>
        step.kind === 'loop'
          ? { kind: 'loop', length: step.length, phases: outlineOf(step.block) }
          : { kind: 'call', work: step.work, ...(step.node ? { node: step.node } : {}) },
      ),
    ),
  }))
