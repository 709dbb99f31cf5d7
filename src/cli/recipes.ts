/**
 * The recipes one can train, by name. A recipe is a model's config and its training job, imported apart: a mistyped
 * setting is refused before anything heavy loads. Adding a recipe is one entry here.
 */
import { badUsage, didYouMean } from '../errors.ts'

const recipes = {
  language: {
    config: () => import('../models/language/config.ts'),
    job: () => import('../train/language.ts'),
  },
} as const

export const recipeNames: readonly string[] = Object.keys(recipes)

/** The recipe `anneal up` trains. */
export const defaultRecipe = 'language'

export type Recipe = (typeof recipes)[keyof typeof recipes]

/** Whether there is a recipe of that name. */
export const isRecipe = (name: string): boolean => Object.hasOwn(recipes, name)

/**
 * The recipe of that name.
 * @throws UserError (exit 2) when there is none.
 */
export function findRecipe(name: string): Recipe {
  if (Object.hasOwn(recipes, name)) return recipes[name as keyof typeof recipes]
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
