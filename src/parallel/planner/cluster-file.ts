/**
 * A cluster as it was measured, in a JSON file: where its ranks are, what messages between them take, and what kernel calls
 * took. `npm run bench links` writes one; `anneal plan --cluster` predicts from it. Seconds and bytes throughout.
 */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { failure } from '../../errors.ts'

const whole = z.int().min(0)
const size = z.number().min(0)
const positive = z.number().gt(0)

const link = z.strictObject({
  /** Of the quickest message. */
  latency: positive,
  /** How many ranks of a host sent at once through its port while this was measured. */
  sharing: z.int().min(1),
  samples: z
    .array(z.strictObject({ bytes: positive, seconds: positive }))
    .min(2)
    .refine((samples) => samples.every(({ bytes }, i) => i === 0 || bytes > samples[i - 1]!.bytes), {
      message: 'sizes must ascend',
    }),
})

const schema = z
  .strictObject({
    format: z.literal('anneal cluster 1'),
    /** How and on what, for people. */
    measured: z.string(),
    /** Of each rank, its host and its core. */
    hosts: z.array(whole).min(2),
    cores: z.array(whole).min(2),
    /** What a rank may fill. */
    memoryBytes: positive,
    /** How long the system lets one of several ranks on a core run before it is another's turn. */
    turnSeconds: positive,
    /** Messages up to this size go without asking the receiver. */
    eagerBytes: whole,
    /** Between ranks of one host, and between hosts; each where there are such ranks. */
    near: link.optional(),
    far: link.optional(),
    calls: z
      .array(z.strictObject({ ops: z.string().min(1), flops: size, bytes: size, seconds: positive }))
      .min(1),
  })
  .refine(({ hosts, cores }) => cores.length === hosts.length, {
    path: ['cores'],
    message: 'one for each rank, as in hosts',
  })
  .refine(({ hosts, far }) => far !== undefined || new Set(hosts).size === 1, {
    path: ['far'],
    message: 'missing, with ranks on several hosts',
  })
  .refine(({ hosts, near }) => near !== undefined || new Set(hosts).size === hosts.length, {
    path: ['near'],
    message: 'missing, with several ranks on a host',
  })
  .refine(
    ({ calls }) => calls.some(({ ops }) => ops.startsWith('dot ')) && calls.some(({ bytes }) => bytes > 0),
    { path: ['calls'], message: 'at least a product (dot), and something that moves bytes' },
  )

export type ClusterFile = z.infer<typeof schema>
export type ClusterLink = z.infer<typeof link>

/**
 * Reads a cluster file.
 *
 * @throws UserError when it cannot be read, is no JSON, or says something impossible, which is named.
 */
export function readCluster(path: string): ClusterFile {
  const damaged = (got: string): Error =>
    failure({
      where: path,
      got,
      expected: 'a cluster file',
      fix: 'measure it again: npm run bench links -- --cluster FILE',
    })
  let content: unknown
  try {
    content = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw damaged((error as Error).message.split('\n')[0]!)
  }
  const { success, data, error } = schema.safeParse(content)
  if (success) return data
  const { path: at, message } = error.issues[0]!
  throw damaged(`${at.join('.') || 'the file'}: ${message}`)
}

/** The text of a cluster file: a line for each sample and call. */
export function clusterText(cluster: ClusterFile): string {
  const list = (items: readonly object[], indent: string): string =>
    `[\n${items.map((item) => `${indent}  ${JSON.stringify(item)}`).join(',\n')}\n${indent}]`
  const fields = Object.entries(cluster).flatMap(([name, value]) => {
    if (value === undefined) return []
    if (name === 'calls') return [`  "calls": ${list(cluster.calls, '  ')}`]
    if (name !== 'near' && name !== 'far') return [`  "${name}": ${JSON.stringify(value)}`]
    const { latency, sharing, samples } = value as ClusterLink
    const text = `{ "latency": ${latency}, "sharing": ${sharing}, "samples": ${list(samples, '  ')} }`
    return [`  "${name}": ${text}`]
  })
  return `{\n${fields.join(',\n')}\n}\n`
}
