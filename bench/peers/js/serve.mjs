/**
 * The peers' protocol (see ../torch_step.py) for JavaScript: says it is ready, then `run K` takes K steps and answers with
 * seconds and the last loss, `quit` ends it.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

/** The installed version of a package beside this file. */
export const versionOf = (name) =>
  JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), 'utf8')).version

/** A fixed batch of random tokens [batch, context + 1], as plain numbers. */
export function randomTokens({ batch, context, vocab }) {
  let state = 42
  return Array.from({ length: batch * (context + 1) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * vocab)
  })
}

/** Inputs and targets of windows, both [batch * context]. */
export function shifted(tokens, { batch, context }) {
  const take = (offset) =>
    Int32Array.from({ length: batch * context }, (_, i) => {
      const window = Math.floor(i / context)
      return tokens[window * (context + 1) + (i % context) + offset]
    })
  return { inputs: take(0), targets: take(1) }
}

/** Normal numbers (Box-Muller). */
export function normal(count, deviation) {
  return Float32Array.from(
    { length: count },
    () => deviation * Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  )
}

/** Names and shapes of the parameters of a GPT-2 without biases, with the deviation of their first values (null: ones). */
export function parameters({ layers, width, context, vocab }) {
  const deep = 0.02 / Math.sqrt(2 * layers)
  const list = [
    ['tokens', [vocab, width], 0.02],
    ['positions', [context, width], 0.02],
    ['norm', [width], null],
  ]
  for (let i = 0; i < layers; i++) {
    list.push(
      [`norm1.${i}`, [width], null],
      [`qkv.${i}`, [width, 3 * width], 0.02],
      [`out.${i}`, [width, width], deep],
      [`norm2.${i}`, [width], null],
      [`up.${i}`, [width, 4 * width], 0.02],
      [`down.${i}`, [4 * width, width], deep],
    )
  }
  return list
}

/** Takes orders until told to quit. `step` trains once and resolves with the loss. */
export async function serve({ version, threads, parameters }, step) {
  const say = (facts) => console.log(JSON.stringify(facts))
  await step()
  say({ ready: true, version, threads, parameters })
  for await (const line of createInterface({ input: process.stdin })) {
    const [order, count] = line.split(' ')
    if (order !== 'run') process.exit()
    const started = performance.now()
    let loss
    for (let i = 0; i < Number(count); i++) loss = await step()
    say({ seconds: (performance.now() - started) / 1000, steps: Number(count), loss })
  }
  process.exit()
}
