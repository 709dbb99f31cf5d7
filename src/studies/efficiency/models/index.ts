/** Models of characters by the name that recipes call them. */
import { gpt2019, modern2024 } from './language.ts'
import { lstm2013, lstm2015, recurrent2012 } from './recurrent.ts'
import type { TextModelKind } from './text-model.ts'
import { transformer2017, transformer2023 } from './transformer.ts'

export const textModels: Readonly<Record<string, TextModelKind>> = {
  'rnn-2012': recurrent2012,
  'lstm-2013': lstm2013,
  'lstm-2015': lstm2015,
  'transformer-2017': transformer2017,
  'gpt-2019': gpt2019,
  'transformer-2023': transformer2023,
  'modern-2024': modern2024,
}
