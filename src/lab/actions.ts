/**
 * What the page can do: train, resume, fork and stop runs, say something about them, delete them. Stopping is the same
 * signal as Ctrl-C, so the run saves first. Deleting asks for the run's id once more and refuses a run that is written.
 */
import { Hono } from 'hono'
import { renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { badUsage, failure } from '../errors.ts'
import { annotate, isRunFolder, lockHolder, readStatus } from '../runs/index.ts'
import type { Annotations } from '../runs/index.ts'
import { ask } from './ask.ts'
import { Jobs, settingWords } from './jobs.ts'
import { json, noSuchRun, readBody } from './json.ts'
import type { LabOptions } from './options.ts'
import { storeData } from './store-data.ts'

export function actionRoutes(options: LabOptions): Hono {
  const { runsDir, recipes } = options
  const jobs = new Jobs(options)
  const app = new Hono()
  const existing = (id: string): string => {
    if (!isRunFolder(runsDir, id)) throw noSuchRun(id)
    return id
  }
  const recipeOf = (name: unknown): string => {
    const names = recipes.map((recipe) => recipe.name)
    if (typeof name === 'string' && names.includes(name)) return name
    throw badUsage({
      where: 'recipe',
      got: JSON.stringify(name) ?? 'nothing',
      expected: `one of ${names.join(', ')}`,
      fix: `send {"recipe": "${names[0] ?? ''}"}`,
    })
  }

  app.post('/runs', async (c) => {
    const { recipe, settings } = await readBody(c)
    return json(jobs.start(['train', recipeOf(recipe), ...settingWords(settings)]), 202)
  })
  app.get('/jobs/:job', (c) => json(jobs.look(c.req.param('job'))))

  app.post('/runs/:id/resume', async (c) => {
    const id = existing(c.req.param('id'))
    const { settings } = await readBody(c)
    requireStill(runsDir, id)
    return json(jobs.start(['resume', id, ...settingWords(settings)], id), 202)
  })
  app.post('/runs/:id/fork', async (c) => {
    const id = existing(c.req.param('id'))
    const { settings, step } = await readBody(c)
    const from = Number.isSafeInteger(step) ? ['--from', String(step)] : []
    return json(jobs.start(['fork', id, ...settingWords(settings), ...from]), 202)
  })
  app.post('/runs/:id/stop', (c) => {
    const dir = join(runsDir, existing(c.req.param('id')))
    const pid = lockHolder(dir)
    if (pid === undefined) {
      throw failure({
        where: c.req.param('id'),
        got: 'no process of this machine that writes it',
        expected: 'a run that is being trained here',
        fix:
          readStatus(dir).status === 'running'
            ? 'stop it on the machine where it runs'
            : 'nothing needs to be stopped',
      })
    }
    process.kill(pid, 'SIGINT')
    return json({ stopping: true }, 202)
  })

  app.put('/runs/:id/notes', async (c) => {
    const dir = join(runsDir, existing(c.req.param('id')))
    const { tags, note, archived } = await readBody(c)
    const change = Object.fromEntries(
      Object.entries({ tags, note, archived }).filter(([, value]) => value !== undefined),
    )
    return json(annotate(dir, change as Partial<Annotations>))
  })
  app.delete('/runs/:id', (c) => {
    const id = existing(c.req.param('id'))
    if (c.req.query('confirm') !== id) {
      throw badUsage({
        where: id,
        got: 'no confirmation',
        expected: 'the id once more, since nothing brings a deleted run back',
        fix: `add ?confirm=${id}`,
      })
    }
    requireStill(runsDir, id)
    // Out of the list at once, whatever deleting the files takes.
    const aside = join(runsDir, `.${id}.deleted-${process.pid}`)
    renameSync(join(runsDir, id), aside)
    rmSync(aside, { recursive: true, force: true })
    return json({ deleted: id })
  })

  app.post('/data', async (c) => json(await storeData(runsDir, await c.req.formData())))
  app.post('/plan', async (c) => {
    const { recipe, settings } = await readBody(c)
    const words = ['train', recipeOf(recipe), ...settingWords(settings), '--dry-run']
    return json(await ask(options, words, c.req.raw.signal))
  })
  let machine: Promise<object> | undefined
  app.get('/machine', async () => {
    machine ??= ask(options, ['doctor'], new AbortController().signal)
    // Asked again after a failure.
    machine.catch(() => (machine = undefined))
    return json(await machine)
  })
  return app
}

function requireStill(runsDir: string, id: string): void {
  if (readStatus(join(runsDir, id)).status !== 'running') return
  throw failure({
    where: id,
    got: 'a run that is being trained',
    expected: 'one that nobody writes',
    fix: 'stop it first',
  })
}
