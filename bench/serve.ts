/**
 * `npm run bench serve`: what the server makes of the decoder. Tokens per second of one request and of sixteen; a prompt
 * that begins with 512 tokens the cache holds beside one it does not know; a thousand answers under a JSON schema by a
 * model that knows nothing; and, with `--load SECONDS`, 64 clients that ask without a pause. What a quiet machine gives is
 * recorded.
 */
import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { dense } from '../src/models/language/config.ts'
import type { ModelConfig } from '../src/models/language/model.ts'
import type { Engine } from '../src/serve/engine.ts'
import { enginesOf } from '../src/serve/engines.ts'
import type { Generation } from '../src/serve/generation.ts'
import { serveHttp } from '../src/serve/http.ts'
import { openaiRoutes } from '../src/serve/routes.ts'
import type { Sampling } from '../src/serve/sampling.ts'
import { drawWeights, randomEngine, smallModel } from '../src/serve/testing.ts'
import { busyCores, disturbances } from './quiet.ts'
import { record } from './record.ts'

const base: ModelConfig = {
  size: 'base',
  block: 'modern',
  layers: 6,
  width: 384,
  heads: 6,
  kvHeads: 6,
  context: 1024,
  dropout: 0,
  vocab: 256,
  ...dense,
}

const greedy: Sampling = {
  temperature: 0,
  topP: 1,
  topK: 0,
  seed: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  logitBias: new Map(),
}

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      threads: { type: 'string', default: String(availableParallelism()) },
      load: { type: 'string', default: '0' },
      json: { type: 'string', default: '1000' },
    },
  })
  const [threads, load, json] = [Number(values.threads), Number(values.load), Number(values.json)]
  console.log(`${cpus()[0]?.model}, ${threads} threads, 6 x 384, bytes as tokens`)
  const othersCores = await busyCores()
  const problems = disturbances(othersCores)
  for (const line of problems) console.log(line)
  const engine = await randomEngine(base, { threads, slots: 16 })
  const facts = {
    bench: 'serve',
    threads,
    othersCores,
    ...(await batching(engine)),
    ...(await prefixes(engine)),
    ...(load > 0 ? { load: await underLoad(engine, load) } : {}),
  }
  await engine.close()
  const result = { ...facts, ...(json > 0 ? { schemas: await schemas(json, threads) } : {}) }
  if (problems.length === 0) record(result)
}

const start = (engine: Engine, prompt: readonly number[], maxTokens: number): Generation =>
  engine.generate({ prompt, maxTokens, sampling: greedy })[0]!

async function finish(answers: readonly Generation[]): Promise<void> {
  await Promise.all(
    answers.map(async (answer) => {
      for await (const token of answer) void token
    }),
  )
}

const numbers = (length: number, seed: number): number[] =>
  Array.from({ length }, (_, i) => (i * 31 + seed * 17 + ((i * seed) >> 3)) % 256)

/** Best of three, so that a neighbour's burst does not count. */
async function batching(engine: Engine): Promise<{ tokensPerSecond: { one: number; sixteen: number } }> {
  const tokens = 200
  const rates: number[] = []
  for (const count of [1, 16]) {
    let best = 0
    for (let round = 0; round < 3; round++) {
      const began = performance.now()
      await finish(Array.from({ length: count }, (_, i) => start(engine, numbers(4, i + 1), tokens)))
      best = Math.max(best, (count * tokens * 1000) / (performance.now() - began))
    }
    rates.push(best)
    console.log(`${count} at once: ${best.toFixed(0)} tokens/s`)
  }
  const [one, sixteen] = rates as [number, number]
  console.log(`16 give ${(sixteen / one).toFixed(1)} times the tokens of 1`)
  return { tokensPerSecond: { one, sixteen } }
}

/** Time to the first token of prompts that begin with the same 512 tokens. */
async function prefixes(engine: Engine): Promise<{ knownPrefix: number }> {
  const ratios: number[] = []
  for (let round = 1; round <= 5; round++) {
    const shared = numbers(512, 100 + round)
    const took: number[] = []
    for (const end of [1, 2]) {
      const answer = start(engine, [...shared, ...numbers(8, end)], 1)
      await finish([answer])
      took.push(answer.firstMs!)
    }
    ratios.push(took[1]! / took[0]!)
    if (round === 5)
      console.log(
        `520 tokens of prompt: ${took[0]!.toFixed(1)} ms, the second time ${took[1]!.toFixed(1)} ms`,
      )
  }
  const knownPrefix = ratios.toSorted((a, b) => a - b)[2]!
  console.log(`a known beginning of 512 tokens: ${(100 * knownPrefix).toFixed(1)} % of the time`)
  return { knownPrefix }
}

interface LoadResult {
  readonly clients: number
  readonly seconds: number
  readonly answers: number
  readonly errors: number
  /** Milliseconds to the first piece of an answer, as its client sees it. */
  readonly firstMs: { readonly p50: number; readonly p99: number }
  /** Mean resident memory of this process, clients included, in each fifth of the time. */
  readonly memoryMB: readonly number[]
}

/** Clients over HTTP, each asking again as soon as it is answered. */
async function underLoad(engine: Engine, seconds: number): Promise<LoadResult> {
  const clients = 64
  const server = await serveHttp(openaiRoutes(enginesOf(engine)))
  const ends = performance.now() + seconds * 1000
  const first: number[] = []
  const memory: number[] = []
  let [answers, errors] = [0, 0]
  const ask = async (body: object): Promise<boolean> => {
    const began = performance.now()
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      body: JSON.stringify(body),
    })
    let pieces = 0
    let end = ''
    for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
      if (pieces++ === 0) first.push(performance.now() - began)
      end = (end + piece).slice(-40)
    }
    return response.status === 200 && end.includes('data: [DONE]')
  }
  const client = async (number: number): Promise<void> => {
    for (let i = 0; performance.now() < ends; i++) {
      const prompt = `client ${number}, ${i % 7}: `
      const body = { model: 'random', prompt, max_tokens: 16 + (i % 17), stream: true }
      const fine = await ask(body).catch(() => false)
      if (fine) answers++
      else errors++
    }
  }
  const sampler = setInterval(() => memory.push(process.memoryUsage().rss / 1e6), 1000)
  await Promise.all(Array.from({ length: clients }, (_, i) => client(i)))
  clearInterval(sampler)
  await server.close()
  first.sort((a, b) => a - b)
  const at = (share: number): number => Math.round(first[Math.floor(share * (first.length - 1))] ?? NaN)
  const firstMs = { p50: at(0.5), p99: at(0.99) }
  const memoryMB = [0, 1, 2, 3, 4].map((part) => {
    const some = memory.slice((memory.length * part) / 5, (memory.length * (part + 1)) / 5)
    return Math.round(some.reduce((sum, x) => sum + x, 0) / some.length)
  })
  console.log(
    `${clients} clients for ${seconds} s: ${answers} answers, ${errors} errors; first token p50 ${firstMs.p50} ms, p99 ${firstMs.p99} ms`,
  )
  const growth = (100 * (memoryMB[4]! - memoryMB[1]!)) / memoryMB[1]!
  console.log(
    `memory (clients included) by fifths of the time: ${memoryMB.join(', ')} MB; from the second to the last ${growth.toFixed(1)} %`,
  )
  return { clients, seconds, answers, errors, firstMs, memoryMB }
}

const form = z.object({
  name: z.string().max(40),
  size: z.number(),
  level: z.int().min(1).max(10),
  kind: z.enum(['circle', 'square', 'a "quoted" one']),
  tags: z.array(z.string()).max(5),
  inner: z.object({ x: z.int(), y: z.boolean().nullable() }).optional(),
})

async function schemas(count: number, threads: number): Promise<{ valid: number; of: number }> {
  const engine = await randomEngine(smallModel, { threads, slots: 16 })
  const compiled = engine.schema(z.toJSONSchema(form), 'schema')
  let valid = 0
  const began = performance.now()
  for (let seed = 0; seed < count; seed += 50) {
    await engine.load(`seed-${seed}`, drawWeights(smallModel, seed))
    await Promise.all(
      Array.from({ length: Math.min(50, count - seed) }, async (_, i) => {
        const maxTokens = compiled.least + 2 * i
        const sampling = { ...greedy, temperature: 1, seed: seed + i }
        const [answer] = engine.generate({ prompt: numbers(5, i), maxTokens, sampling }, 1, () =>
          compiled.begin(),
        )
        let text = ''
        for await (const token of answer!) text += token.text
        if (form.safeParse(JSON.parse(text + answer!.rest)).success) valid++
      }),
    )
  }
  const seconds = (performance.now() - began) / 1000
  console.log(`answers under a schema, drawn weights: ${valid} of ${count} valid, ${seconds.toFixed(0)} s`)
  await engine.close()
  return { valid, of: count }
}
