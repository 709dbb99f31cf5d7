/**
 * A training loop that several processes go through together, each with one rank. Whatever decides where the loop goes
 * (the run's folder, an interrupt) is decided for all, between steps; only the process of rank 0 writes the run.
 */
import { hostname } from 'node:os'
import type { Program } from '../compiler/index.ts'
import { failure, UserError } from '../errors.ts'
import type { RunWriter } from '../runs/index.ts'

/** What the loop needs of a run's writer. */
export type Log = Pick<
  RunWriter,
  'id' | 'dir' | 'segment' | 'flush' | 'point' | 'sample' | 'checkpoint' | 'close'
>

const encoder = new TextEncoder()
const decoder = new TextDecoder()
const room = 4096

/** What every process says, in the order of ranks; of one process alone what it says. */
export function tellAll<T>(program: Program, said: T): T[] {
  if (!program.process) return [said]
  const mine = new Uint8Array(room)
  encoder.encodeInto(JSON.stringify(said) ?? 'null', mine)
  return program.process
    .exchange(mine)
    .map((bytes) => JSON.parse(decoder.decode(bytes.subarray(0, bytes.indexOf(0)))) as T)
}

/** Whether any process has been asked to stop: then all do, after the same step. */
export function anyStops(program: Program, stop: boolean): boolean {
  if (!program.process) return stop
  return program.process
    .exchange(Uint8Array.of(Number(stop), 0, 0, 0, 0, 0, 0, 0))
    .some(([word]) => word === 1)
}

/** Opens the run's log in the process of rank 0; in the others one that writes nothing, for the same run. */
export function openLog(program: Program, open: () => RunWriter): Log {
  const own = (program.process?.rank ?? 0) === 0
  const writer = own ? open() : undefined
  const [first] = tellAll(program, writer && { id: writer.id, dir: writer.dir, segment: writer.segment })
  if (writer) return writer
  return { ...first!, flush() {}, point() {}, sample() {}, checkpoint() {}, close() {} }
}

/**
 * For the test of comparisons: `ANNEAL_TEST_FLIP=1,60` flips a bit of rank 1 between steps 60 and 61, in the first segment
 * only, as a broken memory would, in a weight that every step uses. Nothing else sets it.
 */
export function flipForTest(program: Program, { segment }: Log, step: number): void {
  const [rank, at] = (process.env['ANNEAL_TEST_FLIP'] ?? '').split(',').map(Number)
  if (at !== step || segment !== 1 || program.process?.rank !== rank) return
  const { data } = program.pieces('state.params.layers.attn.q')[0]! as unknown as { data: Float32Array }
  new Uint8Array(data.buffer, data.byteOffset)[0]! ^= 1
}

/** Compares what ranks hold alike, and says where and when it was found to differ. */
export const checkReplicas = (program: Program, hosts: readonly string[], step: number): void =>
  located(hosts, step, () => program.checkReplicas())

/** That nothing has changed since the comparison after this step; each rank checks itself. */
export const checkUnchanged = (program: Program, hosts: readonly string[], step: number): void =>
  located(hosts, step, () => program.checkUnchanged())

function located(hosts: readonly string[], step: number, check: () => void): void {
  try {
    check()
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    const { where, ...complaint } = error.complaint
    const ranks = (/ on rank (.*)$/.exec(where)?.[1] ?? '').split(' and ').map(Number)
    const places = ranks.map((rank) => `rank ${rank} on ${hosts[rank] ?? hosts[0]}`).join(' or ')
    throw failure({ ...complaint, where: `${places}, step ${step}, ${where}` })
  }
}

/** The host of each rank. */
export const hostsOf = (program: Program): string[] => tellAll(program, hostname())

/** Comes back when every process has come here. */
export const meet = (program: Program): void => void anyStops(program, false)
