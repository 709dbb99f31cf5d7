/** Parameters of the study's models, with the distributions they start from. */
import type { ParameterSpec } from '../../../models/language/model.ts'

/** A tree whose leaves are parameters. */
export type ParameterSpecs = { readonly [name: string]: ParameterSpec | ParameterSpecs }
