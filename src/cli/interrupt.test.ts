/**
 * Ctrl-C, pressed on a real process: copies of one press are one press, a later press ends the process at once.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'

const job = `
  import { withInterrupt } from ${JSON.stringify(new URL('./interrupt.ts', import.meta.url).href)}
  const saveMs = Number(process.argv[1])
  await withInterrupt(() => process.stdout.write('stopping '), async (signal) => {
    process.stdout.write('ready ')
    const alive = setInterval(() => undefined, 1000)
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    await new Promise((resolve) => setTimeout(resolve, saveMs))
    clearInterval(alive)
  })
  process.stdout.write('saved')`

/** Starts a job that takes `saveMs` to save, sends SIGINT after each of `pauses` ms, and waits for its end. */
async function press(
  saveMs: number,
  pauses: readonly number[],
): Promise<{ code: number | null; out: string }> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', job, String(saveMs)])
  const ended = once(child, 'exit') as Promise<[number | null]>
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  await once(child.stdout, 'data')
  for (const pause of pauses) {
    await wait(pause)
    child.kill('SIGINT')
  }
  const [code] = await ended
  return { code, out }
}

test('the first press saves, and its copies change nothing', async () => {
  assert.deepEqual(await press(300, [0, 30, 30]), { code: 0, out: 'ready stopping saved' })
})

test('a second press quits at once', async () => {
  const start = performance.now()
  assert.deepEqual(await press(60_000, [0, 700]), { code: 130, out: 'ready stopping ' })
  assert.ok(performance.now() - start < 20_000)
})
