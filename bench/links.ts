/**
 * `npm run bench links`: what the planner says of plans for four ranks on two hosts, and what they take. The hosts are network
 * namespaces joined by a cable of 1 Gbit/s, each with half of the cores (two-hosts.sh), which needs root. A prediction is
 * made as `anneal plan --cluster` makes it: of the links, measured with all ranks sending; of kernel calls, measured on ranks
 * that are threads, without any network; and of the messages in the program's text. Nothing in it knows the plan's step.
 * `--cluster FILE` keeps what was measured, for `anneal plan`.
 */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { availableParallelism, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { parseOverrides } from '../src/cli/overrides.ts'
import { sizeOf, type Program } from '../src/compiler/index.ts'
import { findMpi } from '../src/compiler/runtime/mpi.ts'
import { compileShared } from '../src/compiler/runtime/toolchain.ts'
import { failure } from '../src/errors.ts'
import { languageConfigSchema, resolveConfig, type LanguageConfig } from '../src/models/language/config.ts'
import { typicalLink, type LinkMeasure } from '../src/parallel/links.ts'
import { callSamples, uniqueSamples, type CallSample } from '../src/parallel/planner/call-rates.ts'
import { clusterText, type ClusterFile } from '../src/parallel/planner/cluster-file.ts'
import { stepOnCluster } from '../src/parallel/planner/on-cluster.ts'
import { rankCorrelation } from '../src/parallel/planner/rank-correlation.ts'
import { initialise } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'
import { formatTable } from '../src/cli/format.ts'
import { machineLine } from './facts.ts'
import { busyCores, disturbances } from './quiet.ts'
import { characters } from './recipes.ts'
import { record } from './record.ts'
import { median } from './slices.ts'

/** What each process is asked. */
export interface Asked {
  /** Of the recipe, for all plans. */
  readonly settings: readonly string[]
  /** Settings of each plan, as the command line takes them. */
  readonly plans: readonly string[]
  readonly rounds: number
  readonly steps: number
}

export interface Answer {
  /** Which host each rank was on. */
  readonly hosts: readonly number[]
  /** Of the links within hosts and between them, one a round. */
  readonly probes: readonly { readonly near: LinkMeasure; readonly far: LinkMeasure }[]
  /** Of each plan, seconds a step in each round. */
  readonly measured: readonly (readonly number[])[]
}

const ranks = 4

const plans = [
  'mesh.data=4',
  'mesh.data=4 parallel.zero=1',
  'mesh.data=4 parallel.zero=2',
  'mesh.data=4 parallel.zero=3',
  'mesh.data=2 mesh.tensor=2',
  'mesh.data=2 mesh.tensor=2 parallel.sequence=true',
  'mesh.data=2 mesh.tensor=2 parallel.zero=3',
  'mesh.data=2 mesh.context=2',
  'mesh.data=2 mesh.context=2 parallel.attention=heads',
  'mesh.data=2 mesh.context=2 parallel.attention=gather',
  'mesh.context=2 mesh.tensor=2',
  'mesh.context=4',
]

/** With a layer more than the default recipe, which four stages can share. */
const pipelines = [
  'mesh.data=4',
  'mesh.pipe=2 mesh.data=2 accumulate=4',
  'mesh.pipe=4 accumulate=4',
  'mesh.pipe=4 accumulate=8',
  'mesh.pipe=4 accumulate=8 parallel.schedule=gpipe',
  'mesh.pipe=2 mesh.tensor=2 accumulate=4',
  'mesh.pipe=2 mesh.context=2 accumulate=4',
]

export const configOf = (plan: string, settings: readonly string[]): LanguageConfig =>
  resolveConfig(parseOverrides(languageConfigSchema, [...settings, ...plan.split(' ')]))

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string', default: '5' },
      steps: { type: 'string', default: '3' },
      rate: { type: 'string', default: '1gbit' },
      turns: { type: 'boolean', default: false },
      pipelines: { type: 'boolean', default: false },
      compile: { type: 'boolean', default: false },
      only: { type: 'string' },
      cluster: { type: 'string' },
    },
  })
  const asked: Asked = {
    settings: values.pipelines ? ['model.layers=4'] : [],
    plans: values.only?.split(',') ?? (values.pipelines ? pipelines : plans),
    rounds: Number(values.rounds),
    steps: Number(values.steps),
  }
  // Into the cache, once, instead of by all processes at once.
  const programs: Program[] = []
  for (const plan of asked.plans) programs.push(await compileForAll(plan, asked.settings))
  if (values.compile) return
  const othersCores = await busyCores()
  const kernels: (readonly CallSample[])[] = []
  for (const plan of asked.plans) kernels.push(await measureKernels(plan, asked.settings))
  const answer = await onTwoHosts(asked, values.rate, values.turns)
  const cluster = clusterOf(answer, kernels.flat(), `${asked.plans.length} plans, cable of ${values.rate}`)
  if (values.cluster !== undefined) writeFileSync(values.cluster, clusterText(cluster))
  const rows = asked.plans.map((plan, i) => {
    const step = stepOnCluster(plan, programs[i]!.outline, cluster)
    const measured = median(answer.measured[i]!)
    return {
      plan,
      predicted: step.seconds,
      // With what the calls of this very program took instead of what they took in all of them.
      ownCalls: stepOnCluster(plan, programs[i]!.outline, cluster, kernels[i]!).seconds,
      measured,
      rounds: answer.measured[i]!,
      // What a core calculates, for all of its ranks, and how long the busiest direction of the cable is held.
      arithmetic: step.coreSeconds,
      cable: step.levels[1]!.busyShare * step.seconds,
      bytes: step.levels.map(({ totalBytes }) => totalBytes),
    }
  })
  const correlation = rankCorrelation(
    rows.map(({ predicted }) => predicted),
    rows.map(({ measured }) => measured),
  )
  const near = rows.filter(({ predicted, measured }) => Math.abs(predicted / measured - 1) <= 0.15).length
  console.log(await machineLine())
  const ms = (seconds: number): string => (1e3 * seconds).toFixed(1)
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1)
  console.log(
    `within a host ${linkLine(cluster.near!)}; between hosts, two at once, ${linkLine(cluster.far!)}`,
  )
  console.log(
    formatTable([
      [
        'plan',
        'own calls',
        'predicted',
        'measured',
        'ratio',
        'arithmetic',
        'cable',
        'MB near',
        'MB far',
        'rounds',
      ],
      ...rows.map(({ plan, predicted, ownCalls, measured, arithmetic, cable, bytes, rounds }) => [
        plan.replaceAll(/mesh\.|parallel\./g, ''),
        ms(ownCalls),
        ms(predicted),
        ms(measured),
        (predicted / measured).toFixed(2),
        ms(arithmetic),
        ms(cable),
        ...bytes.map(megabytes),
        rounds.map(ms).join(' '),
      ]),
    ]),
  )
  console.log(
    `${near} of ${rows.length} within 15 %; Spearman correlation of the rankings ${correlation.toFixed(3)}`,
  )
  const notes = disturbances(othersCores)
  for (const note of notes) console.log(note)
  if (notes.length > 0 || values.only !== undefined) return
  record({
    bench: values.pipelines ? 'links-pipelines' : 'links',
    rate: values.rate,
    place: values.turns ? 'turns' : 'blocks',
    othersCores,
    near: cluster.near!.samples,
    far: cluster.far!.samples,
    correlation,
    rows,
  })
}

const linkLine = ({ samples }: Pick<LinkMeasure, 'samples'>): string => {
  const of = (bytes: number): number => samples.find((sample) => sample.bytes === bytes)!.seconds
  return `${(1e6 * of(4096)).toFixed(0)} us for 4 KiB, ${(1e3 * of(1 << 20)).toFixed(2)} ms for 1 MiB`
}

/** The program of a plan, and its machine code in the cache. */
async function compileForAll(plan: string, settings: readonly string[]): Promise<Program> {
  const config = configOf(plan, settings)
  const program = await compileStep(config, characters, { threads: 1, target: 'text' }, 'mpi')
  const { flags } = await findMpi()
  await compileShared({ name: 'train-step', source: program.source, flags })
  const threads = await compileStep(config, characters, { threads: 1, profile: 'cpu' })
  threads.close()
  return program
}

/** What the plan's kernels cost where as many ranks share a core as will: on ranks that are threads of this process. */
async function measureKernels(plan: string, settings: readonly string[]): Promise<readonly CallSample[]> {
  const config = configOf(plan, settings)
  const program = await compileStep(config, characters, { threads: 1, profile: 'cpu' })
  try {
    initialise(program, config, characters)
    const count = sizeOf(program.inputs.get('tokens')!.shape)
    program.write(
      'tokens',
      Int32Array.from({ length: count }, (_, i) => (i * 31) % characters),
    )
    for (let step = 0; step < 2; step++) program.runBlocking()
    program.profile()
    for (let step = 0; step < 10; step++) program.runBlocking()
    return callSamples(program.profile().sites)
  } finally {
    program.close()
  }
}

/** Messages up to this size Open MPI sends over TCP without asking first (btl_tcp_eager_limit). */
const eagerBytes = 65_536

/** Each host has half of the cores, which its ranks share out: the first of a host has the first, and so on. */
const coresOf = (hosts: readonly number[]): number[] => {
  const half = Math.max(1, Math.floor(availableParallelism() / 2))
  return hosts.map((host, rank) => {
    const before = hosts.slice(0, rank).filter((other) => other === host).length
    return host * half + (before % half)
  })
}

/** What was measured, as `anneal plan` takes it. */
function clusterOf({ hosts, probes }: Answer, calls: readonly CallSample[], of: string): ClusterFile {
  const names = [...new Set(hosts)]
  const numbered = hosts.map((host) => names.indexOf(host))
  const near = typicalLink(probes.map((probe) => probe.near))
  const far = typicalLink(probes.map((probe) => probe.far))
  return {
    format: 'anneal cluster 1',
    measured: `npm run bench links on ${new Date().toISOString().slice(0, 10)}: ${of}`,
    hosts: numbered,
    cores: coresOf(numbered),
    memoryBytes: Math.floor(totalmem() / ranks),
    // What the Linux scheduler gives on a few cores.
    turnSeconds: 1.4e-3,
    eagerBytes,
    near: { latency: near.latency, sharing: 1, samples: [...near.samples] },
    far: { latency: far.latency, sharing: ranks / 2, samples: [...far.samples] },
    calls: uniqueSamples(calls),
  }
}

async function onTwoHosts(asked: Asked, rate: string, turns: boolean): Promise<Answer> {
  const script = fileURLToPath(new URL('two-hosts.sh', import.meta.url))
  const program = fileURLToPath(new URL('links-rank.ts', import.meta.url))
  const words = [script, rate, String(ranks), process.execPath, program, JSON.stringify(asked)]
  try {
    const { stdout } = await promisify(execFile)('sh', words, {
      env: { ...process.env, PLACE: turns ? 'turns' : 'blocks' },
      maxBuffer: 1 << 26,
    })
    return JSON.parse(stdout) as Answer
  } catch (error) {
    const { stderr = String(error) } = error as { readonly stderr?: string }
    throw failure({
      where: 'two hosts',
      got: stderr.trim().split('\n')[0] ?? '',
      expected: 'network namespaces, tc and MPI',
      fix: 'run it as root on Linux with iproute2; anneal doctor says whether MPI is there',
    })
  }
}
