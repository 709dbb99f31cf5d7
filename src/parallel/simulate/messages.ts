/**
 * Messages between pipeline ranks while a plan is built. The two sides of a message are met at different times, in the
 * programs of two ranks, so each is kept open, with what it waits for and what waits for it, until all programs have been
 * walked.
 */
import type { Action, Message } from '../schedule/index.ts'
import type { PlanCosts } from './costs.ts'
import type { SendTask } from './plan.ts'
import type { Ports } from './ports.ts'
import type { Symmetry } from './symmetry.ts'

export interface OpenMessage {
  /** What makes it. */
  readonly producer: Action
  from: number
  to: number
  /** Tasks it waits for. */
  readonly after: number[]
  /** Tasks that wait for it. */
  readonly before: number[]
  /** Messages that its ranks, if messages block, have to be through with. */
  readonly follows: OpenMessage[]
  task: number
}

/** By what a message carries, and by the places of its ranks along all axes but the pipeline's. */
export type OpenMessages = Map<string, OpenMessage>

function keyOf(
  symmetry: Symmetry,
  pipeline: number,
  rank: number,
  { kind, stage, microbatch }: Action,
): string {
  const place = symmetry.classes[rank]!.place
  return `${kind} ${stage} ${microbatch} ${place.map((i, axis) => (axis === pipeline ? '' : i)).join()}`
}

/** The message of an instruction, opened by whichever side comes first. */
export function messageOf(
  open: OpenMessages,
  symmetry: Symmetry,
  pipeline: number,
  rank: number,
  { kind, stage, microbatch, direction }: Message,
): OpenMessage {
  const forward = direction === 'forward'
  const source = kind === 'send' ? stage : forward ? stage - 1 : stage + 1
  const producer: Action = { kind: forward ? 'F' : 'B', stage: source, microbatch }
  const key = keyOf(symmetry, pipeline, rank, producer)
  let message = open.get(key)
  if (!message) {
    message = { producer, from: -1, to: -1, after: [], before: [], follows: [], task: -1 }
    open.set(key, message)
  }
  return message
}

/** The message that an action reads, if its rank has met one. */
export function inputOf(
  open: OpenMessages,
  symmetry: Symmetry,
  pipeline: number,
  rank: number,
  { kind, stage, microbatch }: Action,
): OpenMessage | undefined {
  if (kind === 'W') return undefined
  const source = kind === 'F' ? stage - 1 : stage + 1
  return open.get(keyOf(symmetry, pipeline, rank, { kind, stage: source, microbatch }))
}

/** The task of a message. */
export function sendTask({ links, stages }: PlanCosts, ports: Ports, message: OpenMessage): SendTask {
  const { producer, from, to, after } = message
  const { kind, stage, microbatch } = producer
  const level = ports.levelBetween(from, to)
  const { latency, bandwidth, achieved } = links[level]!
  // A gradient has the size of what it is the gradient of: the output of the stage before.
  const bytes = stages[kind === 'F' ? stage : stage - 1]!.outputBytes
  const delay = Math.max(ports.delay([from], level), ports.delay([to], level))
  return {
    kind: 'send',
    rank: from,
    to,
    category: 'message',
    label: `${kind}${microbatch}`,
    stage,
    microbatch,
    after,
    bytes,
    level,
    links: [ports.link(from, level, 'out'), ports.link(to, level, 'in')],
    busySeconds: (bytes * delay) / (bandwidth * achieved),
    latency,
  }
}
