/**
 * The recipes one can train, by name. A recipe is a model's config and its training job; both are imported only
 * when used. Adding a recipe is one line here.
 */
import { badUsage, didYouMean } from '../errors.ts'

const recipes = {
  language: async () => ({
    ...(await import('../models/language/config.ts')),
    ...(await import('../train/language.ts')),
  }),
} as const

/** The recipe `anneal up` trains. */
export const defaultRecipe = 'language'

export type Recipe = Awaited<ReturnType<(typeof recipes)[keyof typeof recipes]>>

/**
 * Loads a recipe.
 * @throws UserError (exit 2) when there is none of that name.
 */
export async function loadRecipe(name: string): Promise<Recipe> {
  const load = Object.hasOwn(recipes, name) ? recipes[name as keyof typeof recipes] : undefined
  if (load !== undefined) return load()
  const names = Object.keys(recipes)
  const near = didYouMean(name, names)
  const isSetting = name.includes('=')
  throw badUsage({
    where: 'recipe',
    got: isSetting ? `a setting, '${name}', first` : `'${name}'`,
    expected: `one of ${names.join(', ')}`,
    fix: isSetting
      ? `name the recipe before its settings: anneal train ${defaultRecipe} ${name}`
      : near === undefined
        ? `use anneal train ${defaultRecipe}`
        : `did you mean ${near}?`,
  })
}
