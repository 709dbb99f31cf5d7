/**
 * All runs of a folder as models, for a server that is there anyway: one is compiled when it is first asked for, and few
 * are open at once; the one that was asked for longest ago makes room when nobody uses it.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { listIndexedRuns } from '../runs/index-db.ts'
import { checkpointFolder } from '../train/checkpoint.ts'
import type { Engine } from './engine.ts'
import type { Engines } from './engines.ts'
import { serveRun, type RunServingOptions, type ServedRun } from './run.ts'

const mostOpen = 3

export interface RunEngines extends Engines {
  close(): Promise<void>
}

export function runEngines(options: RunServingOptions): RunEngines {
  const opening = new Map<string, Promise<ServedRun>>()
  const ready = new Map<string, Engine>()

  const hasCheckpoint = (id: string): boolean => {
    const folder = checkpointFolder(join(options.runsDir, id))
    return existsSync(folder) && readdirSync(folder).length > 0
  }

  async function makeRoom(): Promise<void> {
    for (const [name, engine] of ready) {
      if (opening.size < mostOpen) return
      if (engine.scheduler.running + engine.scheduler.waiting > 0) continue
      const served = opening.get(name)!
      ready.delete(name)
      opening.delete(name)
      await (await served).close()
    }
  }

  return {
    models: () =>
      listIndexedRuns(options.runsDir)
        .runs.filter(({ id }) => hasCheckpoint(id))
        .map(({ id, created }) => ({ id, created: Math.floor(Date.parse(created) / 1000) })),
    async engine(name) {
      let served = opening.get(name)
      if (!served) {
        await makeRoom()
        // Somebody else may have asked meanwhile.
        served = opening.get(name) ?? serveRun(name, options)
        opening.set(name, served)
        served.catch(() => opening.delete(name))
      }
      const { engine } = await served
      // Asked for last, so last to go.
      ready.delete(name)
      ready.set(name, engine)
      return engine
    },
    open: () => [...ready.values()],
    async close() {
      for (const served of opening.values()) await (await served.catch(() => undefined))?.close()
      opening.clear()
      ready.clear()
    },
  }
}
