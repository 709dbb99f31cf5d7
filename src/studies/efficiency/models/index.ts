/** Models of characters by the name that recipes call them. */
import { gpt2019, modern2024 } from './language.ts'
import type { TextModelKind } from './text-model.ts'

export const textModels: Readonly<Record<string, TextModelKind>> = {
  'gpt-2019': gpt2019,
  'modern-2024': modern2024,
}
