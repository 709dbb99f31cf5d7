/**
 * A compiled program as the simulator takes it: every rank's kernel calls in the order of the text, and between them the
 * very messages that the program sends. Nothing is assumed about the model or the plan; what a call and a message take is
 * asked of the `Cluster`, which was measured.
 *
 * What bounds a message over MPI, and is modelled: ranks of one host share its port; each byte is copied where a piece does
 * not lie in one run, and added up where partial results meet; a message beyond `eagerBytes` moves only while both its ends
 * are inside MPI, so it hides behind nothing that either of them calculates.
 */
import { groupRanks, groupSize, memberOf } from '../../compiler/graph/mesh.ts'
import type { Node } from '../../compiler/graph/node.ts'
import { bytesOf, sizeOf } from '../../compiler/graph/types.ts'
import type { Program } from '../../compiler/index.ts'
import { collectiveAttrs } from '../../compiler/ops/collective.ts'
import { messageAttrs, receiveOp, sendOp } from '../../compiler/ops/send.ts'
import type { Work } from '../../compiler/targets/c/work.ts'
import type { SendTask, SimulatedPlan, Task } from './plan.ts'

/** How ranks of one reach talk: within a host, or from host to host. */
export interface Wire {
  readonly name: string
  /** Seconds from the start of the smallest message until it has arrived. */
  readonly latency: number
  /** Seconds that a message of so many bytes holds its port, one way. */
  readonly busy: (bytes: number) => number
}

export interface Cluster {
  /** The host of each rank. */
  readonly hosts: readonly number[]
  /** Between ranks of one host, each of which has a port of its own. */
  readonly near: Wire
  /** Between hosts, each of which has one port. */
  readonly far: Wire
  /** Messages up to so many bytes go without their receiver. */
  readonly eagerBytes: number
  /** Seconds that a kernel call takes one rank, with all the others at work. */
  readonly call: (work: Work) => number
  /** Seconds to read or write so many bytes. */
  readonly memory: (bytes: number) => number
}

type Outline = Program['outline'][number]['phases']

/** One step of the program on this cluster, for `simulate`. */
export function compiledPlan(name: string, outline: Program['outline'], cluster: Cluster): SimulatedPlan {
  const wires = new Wires(cluster)
  const { tasks } = wires
  const { hosts } = cluster
  hosts.forEach((_, rank) => {
    const part = outline.find(({ ranks }) => ranks.includes(rank))
    const walk = new RankWalk(rank, cluster, wires)
    walk.phases(part!.phases)
    walk.finish()
  })
  return {
    name,
    ranks: hosts.map((_, rank) => ({ rank, count: 1, name: `rank ${rank}` })),
    lanes: ['compute'],
    levels: [cluster.near.name, cluster.far.name],
    links: wires.links,
    tasks,
    collectives: [],
  }
}

type Draft = Task & { readonly after: number[] }

/** All messages, each of which two ranks come to at different times, and the ports that they go through. */
class Wires {
  readonly tasks: Draft[] = []
  readonly links: { level: number; port: number; direction: 'out' | 'in' }[] = []
  readonly #cluster: Cluster
  readonly #messages = new Map<string, number>()
  readonly #ports = new Map<string, number>()

  constructor(cluster: Cluster) {
    this.#cluster = cluster
  }

  /** The task of the message of this name from one rank to another, opened by whichever side comes first. */
  message(label: string, from: number, to: number, bytes: number): number {
    const key = `${label}:${from}:${to}`
    const known = this.#messages.get(key)
    if (known !== undefined) return known
    const { hosts, near, far } = this.#cluster
    const level = hosts[from] === hosts[to] ? 0 : 1
    const wire = [near, far][level]!
    const port = (rank: number): number => (level === 0 ? rank : hosts[rank]!)
    const task: SendTask & { after: number[] } = {
      kind: 'send',
      rank: from,
      to,
      category: 'message',
      label,
      after: [],
      bytes,
      level,
      links: [this.#link(level, port(from), 'out'), this.#link(level, port(to), 'in')],
      busySeconds: wire.busy(bytes),
      latency: wire.latency,
    }
    this.#messages.set(key, this.tasks.length)
    return this.tasks.push(task) - 1
  }

  #link(level: number, port: number, direction: 'out' | 'in'): number {
    const key = `${level} ${port} ${direction}`
    const known = this.#ports.get(key)
    if (known !== undefined) return known
    this.#ports.set(key, this.links.length)
    return this.links.push({ level, port, direction }) - 1
  }
}

/** One rank on its way through the program. */
class RankWalk {
  readonly #rank: number
  readonly #cluster: Cluster
  readonly #wires: Wires
  /** Seconds of arithmetic since the last task, and the messages that it waits for. */
  #seconds = 0
  #waits: number[] = []
  #latest = -1
  /** Large messages to and from this rank that are begun, and move once it waits. */
  #begun: number[] = []
  /** How often it has come to a collective of each group. */
  readonly #turns = new Map<string, number>()

  constructor(rank: number, cluster: Cluster, wires: Wires) {
    this.#rank = rank
    this.#cluster = cluster
    this.#wires = wires
  }

  phases(phases: Outline): void {
    for (const { steps, together } of phases) {
      const meetings = steps.flatMap((step) => {
        const exchange = step.kind === 'call' && step.node ? this.#exchangeOf(step.node) : null
        return exchange && together ? [[step, exchange] as const] : []
      })
      for (const [, exchange] of meetings) this.#begin(exchange)
      const begun = new Map(meetings)
      const ends: Exchange[] = []
      for (const step of steps) {
        if (step.kind === 'loop') for (let i = 0; i < step.length; i++) this.phases(step.phases)
        else if (begun.has(step)) ends.push(begun.get(step)!)
        else if (step.node) this.#meet(step.node, step.work)
        else this.#seconds += this.#cluster.call(step.work)
      }
      for (const exchange of ends) this.#end(exchange)
    }
  }

  finish(): void {
    this.#wait([])
    this.#task('optimizer')
  }

  #meet(node: Node, work: Work): void {
    if (node.op === sendOp || node.op === receiveOp) return this.#letter(node)
    const exchange = this.#exchangeOf(node)
    // Taking one's own share of a value, or asking which rank this is: no message.
    if (!exchange) this.#seconds += this.#cluster.memory(work.bytes)
    else {
      this.#begin(exchange)
      this.#end(exchange)
    }
  }

  /** What this rank exchanges with the other members; null where nothing is sent. */
  #exchangeOf(node: Node): Exchange | null {
    const { name } = node.op
    if (!Object.hasOwn(exchanges, name)) return null
    const attrs = collectiveAttrs(node)
    const members = groupRanks(attrs, this.#rank)
    const turn = (this.#turns.get(members.join()) ?? 0) + 1
    this.#turns.set(members.join(), turn)
    const operand = bytesOf(node.inputs[0]!.type)
    const size = groupSize(attrs)
    const me = memberOf(attrs, this.#rank)
    const by = (node.attrs['by'] as number | undefined) ?? 0
    const others = members.filter((rank) => rank !== this.#rank)
    const [to, from] =
      name === 'shift'
        ? [[members[(((me + by) % size) + size) % size]!], [members[(((me - by) % size) + size) % size]!]]
        : [others, others]
    const piece = exchanges[name as keyof typeof exchanges](operand, size)
    return {
      label: `${name} ${members.join()} #${turn}`,
      to: to.filter((rank) => rank !== this.#rank),
      from: from.filter((rank) => rank !== this.#rank),
      bytes: piece,
      packed: !liesInRuns(node),
      combines: name === 'allReduce' || name === 'reduceScatter' ? size : 0,
      gathers: name === 'allReduce',
      kept: name === 'shift' ? 0 : piece,
    }
  }

  #begin({ label, to, from, bytes, packed }: Exchange): void {
    if (packed) this.#seconds += this.#cluster.memory(2 * bytes * to.length)
    this.#swap(label, to, from, bytes)
  }

  #end({ label, to, from, bytes, packed, combines, gathers, kept }: Exchange): void {
    const { memory } = this.#cluster
    if (combines === 0) this.#seconds += memory(2 * kept)
    this.#wait(this.#incoming(label, from, bytes))
    if (combines > 0) this.#seconds += memory((combines + 1) * bytes)
    else if (packed) this.#seconds += memory(2 * bytes * from.length)
    if (!gathers) return
    const again = `${label} gathered`
    this.#swap(again, to, from, bytes)
    this.#wait(this.#incoming(again, from, bytes))
  }

  /** Begins messages both ways. */
  #swap(label: string, to: readonly number[], from: readonly number[], bytes: number): void {
    for (const other of to) this.#send(this.#wires.message(label, this.#rank, other, bytes), bytes)
    if (bytes > this.#cluster.eagerBytes) this.#begun.push(...this.#incoming(label, from, bytes))
  }

  #incoming(label: string, from: readonly number[], bytes: number): number[] {
    return from.map((other) => this.#wires.message(label, other, this.#rank, bytes))
  }

  /** A message to another stage, of which a copy is sent, or one from there. */
  #letter(node: Node): void {
    const attrs = messageAttrs(node)
    const peer = groupRanks(attrs, this.#rank)[attrs.peer]!
    const sends = node.op === sendOp
    const bytes = bytesOf(sends ? node.inputs[0]!.type : node.type)
    const [from, to] = sends ? [this.#rank, peer] : [peer, this.#rank]
    const message = this.#wires.message(attrs.channel, from, to, bytes)
    if (!sends) {
      if (bytes > this.#cluster.eagerBytes) this.#begun.push(message)
      return this.#wait([message])
    }
    this.#seconds += this.#cluster.memory(2 * bytes)
    this.#send(message, bytes)
  }

  #send(message: number, bytes: number): void {
    if (bytes > this.#cluster.eagerBytes) this.#begun.push(message)
    else this.#wires.tasks[message]!.after.push(this.#task('F'))
  }

  #wait(incoming: readonly number[]): void {
    const here = this.#task('F')
    for (const message of this.#begun) this.#wires.tasks[message]!.after.push(here)
    this.#begun = []
    this.#waits.push(...incoming)
  }

  /** The arithmetic so far, as a task. */
  #task(category: 'F' | 'optimizer'): number {
    if (this.#latest >= 0 && this.#seconds === 0 && this.#waits.length === 0) return this.#latest
    this.#latest =
      this.#wires.tasks.push({
        kind: 'compute',
        rank: this.#rank,
        category,
        label: 'calls',
        after: this.#waits,
        seconds: this.#seconds,
      }) - 1
    this.#seconds = 0
    this.#waits = []
    return this.#latest
  }
}

interface Exchange {
  readonly label: string
  /** Ranks that this one sends to, and gets from, and the bytes of each message. */
  readonly to: readonly number[]
  readonly from: readonly number[]
  readonly bytes: number
  /** Pieces are gathered into messages and spread out of them. */
  readonly packed: boolean
  /** How many copies are added up, or 0. */
  readonly combines: number
  /** Afterwards everybody sends everybody the sum. */
  readonly gathers: boolean
  /** Bytes of its own that a rank copies to their place. */
  readonly kept: number
}

/** Bytes of the message from one member to another, given those of its operand: what ranks-mpi.h sends. */
const exchanges = {
  allReduce: (bytes: number, members: number) => bytes / members,
  reduceScatter: (bytes: number, members: number) => bytes / members,
  allToAll: (bytes: number, members: number) => bytes / members,
  allGather: (bytes: number) => bytes,
  shift: (bytes: number) => bytes,
} as const

/** Whether what goes to one member is contiguous on both sides. */
function liesInRuns(node: Node): boolean {
  const { dim, order, split } = collectiveAttrs(node)
  if (dim === undefined) return true
  return split === undefined && order === 'plain' && sizeOf(node.shape.slice(0, dim)) === 1
}
