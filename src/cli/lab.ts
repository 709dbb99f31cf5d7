/**
 * Opens the lab: one server with the page, the API over the runs and the OpenAI routes over their checkpoints. What the
 * lab must know of the command line (recipes, how it is called) is put together here.
 */
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import type { LabRecipe } from '../lab/index.ts'
import { serveLab } from '../lab/server.ts'
import { openaiRoutes, runEngines, type HttpServer } from '../serve/index.ts'
import { self } from './command.ts'
import { builtPages } from './pages.ts'
import { findRecipe, recipeNames } from './recipes.ts'

export interface LabSettings {
  readonly runsDir: string
  readonly host: string
  readonly port: number
  readonly note: (text: string) => void
}

/** Program and arguments that run this command line again, in a process of its own. */
export const command: readonly [string, string] = [
  process.execPath,
  fileURLToPath(new URL('../../bin/anneal.js', import.meta.url)),
]

/** Opens the lab's server. Close it when done. */
export async function openLab({ runsDir, host, port, note }: LabSettings): Promise<HttpServer> {
  const [pages, recipes] = [await builtPages(note), await labRecipes()]
  const apiKey = process.env['ANNEAL_API_KEY']
  const engines = runEngines({ runsDir, note })
  const report = (error: unknown): void => note(error instanceof Error ? error.message : String(error))
  const others = [openaiRoutes(engines, { report })]
  const server = await serveLab({ runsDir, recipes, command, self, pages, host, port, apiKey, others })
  return {
    ...server,
    async close() {
      await server.close()
      await engines.close()
    },
  }
}

/** The recipes with their schemas and defaults. */
export async function labRecipes(): Promise<LabRecipe[]> {
  return Promise.all(
    recipeNames.map(async (name) => {
      const { languageConfigSchema, resolveConfig } = await findRecipe(name).config()
      return {
        name,
        schema: z.toJSONSchema(languageConfigSchema, { io: 'input', unrepresentable: 'any' }),
        defaults: resolveConfig(),
      }
    }),
  )
}
