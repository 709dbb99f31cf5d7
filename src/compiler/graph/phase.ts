/**
 * The phases of training. Each node of a program belongs to one, by who asked for it: what user code writes is forward,
 * what differentiation makes is backward, what is computed a second time to save memory is recompute, and what is written
 * inside `inPhase` is what is said there. An expression that two phases ask for is one node, computed once, and of the
 * phase that asked first. Nothing but the meter (meter.ts) looks at phases.
 */
export const phases = ['forward', 'backward', 'recompute', 'optimizer', 'data'] as const

export type Phase = (typeof phases)[number]
