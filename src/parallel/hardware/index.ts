/** Hardware files by name. */
import { badUsage, didYouMean } from '../../errors.ts'
import { a100, h100, h200 } from './gpus.ts'
import type { Hardware } from './hardware.ts'

export { memorySeconds, productEfficiency, productSeconds } from './hardware.ts'
export type { Hardware, LinkLevel, ProductModel, ProductType } from './hardware.ts'
export { measureThisMachine, memoryLinks, type ThisMachineOptions } from './this-machine.ts'

const files: Readonly<Record<string, Hardware>> = { h100, h200, a100 }

/**
 * The hardware file of a name.
 *
 * @throws UserError when there is none.
 */
export function hardwareByName(name: string): Hardware {
  if (Object.hasOwn(files, name)) return files[name]!
  const near = didYouMean(name, Object.keys(files))
  throw badUsage({
    where: 'hardware',
    got: name,
    expected: `one of ${Object.keys(files).join(', ')}`,
    fix: near ? `did you mean ${near}?` : 'choose one of them',
  })
}
