/** `GET /v1/models` and `/v1/models/:model`. */
import { Hono } from 'hono'
import { find, type Engines, type ModelEntry } from '../engines.ts'

const describe = ({ id, created }: ModelEntry): object => ({
  id,
  object: 'model',
  created,
  owned_by: 'anneal',
})

export const models = (engines: Engines): Hono =>
  new Hono()
    .get('/', (c) => c.json({ object: 'list', data: engines.models().map(describe) }))
    .get('/:model{.+}', async (c) => {
      const name = c.req.param('model')
      const entry = engines.models().find(({ id }) => id === name)
      // Throws what says that there is none.
      if (!entry) await find(engines, name)
      return c.json(describe(entry!))
    })
