/**
 * The bundled digits (data/images/README.md): handwritten, 28 x 28 grey, 8,000 to train and 2,000 to test. Every file must
 * be the one whose hash SHA256SUMS has.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { failure } from '../errors.ts'
import { readIdx } from './idx.ts'

export const digitsFolder = fileURLToPath(new URL('../../data/images/mnist-10k', import.meta.url))

export interface LabelledImages {
  readonly count: number
  /** Rows and columns. */
  readonly pixels: readonly [number, number]
  /** [count, rows, columns], 0 to 255. */
  readonly images: Uint8Array
  /** [count], 0 to 9. */
  readonly labels: Uint8Array
}

/** @throws UserError naming the file that is damaged, or does not belong to the other. */
export function readDigits(part: 'train' | 'test', folder: string = digitsFolder): LabelledImages {
  const [imagePath, labelPath] = [`${part}-images-idx3-ubyte.gz`, `${part}-labels-idx1-ubyte.gz`].map(
    (name) => checkedPath(folder, name),
  ) as [string, string]
  const [images, labels] = [readIdx(imagePath), readIdx(labelPath)]
  const [count = 0, rows = 0, columns = 0] = images.extents
  if (images.extents.length !== 3)
    throw wrong(imagePath, `${images.extents.length} axes`, '3: images, rows, columns')
  if (labels.extents.length !== 1 || labels.extents[0] !== count)
    throw wrong(labelPath, `extents ${labels.extents.join(' x ')}`, `${count}, a label for each image`)
  const other = labels.bytes.findIndex((label) => label > 9)
  if (other >= 0) throw wrong(labelPath, `label ${labels.bytes[other]} of image ${other}`, '0 to 9')
  return { count, pixels: [rows, columns], images: images.bytes, labels: labels.bytes }
}

function checkedPath(folder: string, name: string): string {
  const path = join(folder, name)
  const sums = readFileSync(join(folder, 'SHA256SUMS'), 'utf8')
  const wanted = sums
    .split('\n')
    .find((line) => line.endsWith(`  ${name}`))
    ?.slice(0, 64)
  const found = createHash('sha256').update(readFileSync(path)).digest('hex')
  if (found !== wanted) throw wrong(path, `sha256 ${found}`, `${wanted ?? 'a line'} of SHA256SUMS`)
  return path
}

const wrong = (where: string, got: string, expected: string): Error =>
  failure({ where, got, expected, fix: 'restore the file' })
