/**
 * The safetensors layout and its rules: 8 bytes little-endian header length N, N bytes of JSON (name -> dtype, shape,
 * data_offsets; `__metadata__` -> strings), then one buffer that the tensors cover exactly, without holes or overlaps.
 * The subtle thing is that nothing may be believed: each rule below is one a damaged or hostile file breaks.
 */
import { createHash } from 'node:crypto'
import { failure } from '../../errors.ts'
import type { UserError } from '../../errors.ts'
import { jsonProblem } from '../files.ts'

/** Bytes an element, by the format's dtype names. */
export const DTYPE_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
} as const

export type Dtype = keyof typeof DTYPE_BYTES

export interface TensorInfo {
  readonly dtype: Dtype
  /** Row-major; [] is a scalar, a 0 anywhere makes the tensor empty. */
  readonly shape: readonly number[]
  readonly bytes: number
}

/** A tensor and where its bytes begin in the buffer. */
export interface PlacedTensor extends TensorInfo {
  readonly begin: number
}

export interface Header {
  readonly metadata: Readonly<Record<string, string>>
  readonly tensors: ReadonlyMap<string, PlacedTensor>
}

/** The length before the header. */
export const PREFIX_BYTES = 8
/** The reference implementation refuses longer headers; so nobody writes them. */
export const MAX_HEADER_BYTES = 100_000_000
export const METADATA = '__metadata__'

/** Hexadecimal SHA-256 of the buffer, in files written here. */
export const BUFFER_DIGEST = 'anneal.sha256'
/**
 * Hexadecimal SHA-256 of prefix and header, its own digits read as zeros. The two keys also vouch for each other: a file
 * with only one of them has lost the other to damage.
 */
export const HEADER_DIGEST = 'anneal.header'
export const NO_DIGEST = '0'.repeat(64)

/** Number of elements of a shape; NaN when it is no list of whole numbers or too large to count. */
export function countElements(shape: readonly unknown[]): number {
  let count = 1
  for (const size of shape) {
    if (!isCount(size)) return Number.NaN
    count *= size
  }
  return Number.isSafeInteger(count) ? count : Number.NaN
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

/**
 * Parses and checks a header against every rule of the format.
 *
 * @param raw prefix and header as in the file.
 * @param bufferBytes bytes of the file after the header.
 * @param file named in errors.
 * @throws UserError naming the file, the tensor and the rule.
 */
export function parseHeader(raw: Uint8Array, bufferBytes: number, file: string): Header {
  const text = decodeJsonText(raw.subarray(PREFIX_BYTES), file)
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw damaged(file, `a header that is no JSON (${jsonProblem(error)})`, 'a JSON object')
  }
  const repeated = duplicateKey(text)
  if (repeated !== undefined) throw damaged(file, `the key ${quote(repeated)} twice`, 'every name once')

  let metadata: Header['metadata'] = {}
  const tensors = new Map<string, PlacedTensor>()
  for (const [name, entry] of Object.entries(json as object)) {
    if (name === METADATA) metadata = checkMetadata(entry, file)
    else tensors.set(name, checkTensor(name, entry, bufferBytes, file))
  }
  checkCover(tensors, bufferBytes, file)
  checkHeaderDigest(raw, text, metadata, file)
  return { metadata, tensors }
}

function decodeJsonText(bytes: Uint8Array, file: string): string {
  if (bytes[0] !== 0x7b) throw damaged(file, 'a header that does not begin with {', 'a JSON object')
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw damaged(file, 'a header that is not UTF-8', 'a JSON object')
  }
}

/**
 * The first key that an object of valid JSON text holds twice. JSON.parse keeps the last one silently, and two readers
 * that choose differently would see two models in one file.
 */
export function duplicateKey(json: string): string | undefined {
  const objects: Set<string>[] = []
  for (let i = 0; i < json.length; i++) {
    const c = json[i]
    if (c === '{') objects.push(new Set())
    else if (c === '}') objects.pop()
    if (c !== '"') continue
    const start = i++
    while (json[i] !== '"') i += json[i] === '\\' ? 2 : 1
    let after = i + 1
    while (' \t\n\r'.includes(json[after] ?? '-')) after++
    if (json[after] !== ':') continue
    const key = JSON.parse(json.slice(start, i + 1)) as string
    const keys = objects.at(-1)!
    if (keys.has(key)) return key
    keys.add(key)
  }
  return undefined
}

function checkMetadata(value: unknown, file: string): Header['metadata'] {
  const strings =
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((item) => typeof item === 'string')
  if (!strings) throw damaged(`${file}: ${METADATA}`, quote(value), 'an object of strings')
  return value as Header['metadata']
}

function checkTensor(name: string, entry: unknown, bufferBytes: number, file: string): PlacedTensor {
  const where = `${file}: tensor ${quote(name)}`
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) {
    throw damaged(where, quote(entry), 'an object with dtype, shape and data_offsets')
  }
  const { dtype, shape, data_offsets: offsets } = entry as Readonly<Record<string, unknown>>
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    throw damaged(where, `dtype ${quote(dtype)}`, `one of ${Object.keys(DTYPE_BYTES).join(', ')}`)
  }
  const elementBytes = DTYPE_BYTES[dtype as Dtype]
  const bytes = (Array.isArray(shape) ? countElements(shape) : Number.NaN) * elementBytes
  if (!Number.isSafeInteger(bytes))
    throw damaged(where, `shape ${quote(shape)}`, 'a list of sizes that can be stored')
  const [begin, end] = (Array.isArray(offsets) ? offsets : []) as readonly unknown[]
  if (!isCount(begin) || !isCount(end) || (offsets as unknown[]).length !== 2 || begin > end) {
    throw damaged(where, `data_offsets ${quote(offsets)}`, 'two rising byte positions')
  }
  if (end > bufferBytes) {
    throw damaged(
      where,
      `data_offsets ${quote(offsets)}`,
      `positions within the ${bufferBytes} bytes of data in the file`,
    )
  }
  if (end - begin !== bytes) {
    throw damaged(where, `${end - begin} bytes of data`, `${bytes} for ${dtype} ${quote(shape)}`)
  }
  return { dtype: dtype as Dtype, shape: shape as number[], bytes, begin }
}

/** Together the tensors must be the whole buffer: a byte between or behind them could hide anything. */
function checkCover(tensors: Header['tensors'], bufferBytes: number, file: string): void {
  const placed = [...tensors].toSorted(([, a], [, b]) => a.begin - b.begin || a.bytes - b.bytes)
  let covered = 0
  for (const [name, { begin, bytes }] of placed) {
    if (begin !== covered) {
      const where = `${file}: tensor ${quote(name)}`
      const what =
        begin < covered
          ? 'overlapping the tensor before it'
          : `leaving ${begin - covered} bytes unused before it`
      throw damaged(where, `data at ${begin}, ${what}`, `data at ${covered}`)
    }
    covered += bytes
  }
  if (covered !== bufferBytes) {
    throw damaged(file, `${bufferBytes} bytes of data`, `the ${covered} bytes its tensors take`)
  }
}

function checkHeaderDigest(raw: Uint8Array, text: string, metadata: Header['metadata'], file: string): void {
  const buffer = metadata[BUFFER_DIGEST]
  const header = metadata[HEADER_DIGEST]
  if (buffer === undefined && header === undefined) return
  const field = `"${HEADER_DIGEST}":"`
  const at = text.indexOf(`${field}${header}"`)
  if (buffer === undefined || header?.length !== NO_DIGEST.length || at < 0) {
    throw damaged(file, 'a header without one of its two checksums', `${BUFFER_DIGEST} and ${HEADER_DIGEST}`)
  }
  const zeroed =
    text.slice(0, at + field.length) + NO_DIGEST + text.slice(at + field.length + NO_DIGEST.length)
  const actual = headerDigest(raw.subarray(0, PREFIX_BYTES), zeroed)
  if (actual !== header)
    throw damaged(file, `a header with SHA-256 ${actual.slice(0, 12)}...`, `${header.slice(0, 12)}...`)
}

/** The value of HEADER_DIGEST for a header in which it still reads NO_DIGEST. */
export function headerDigest(prefix: Uint8Array, json: string): string {
  return createHash('sha256').update(prefix).update(json).digest('hex')
}

/** JSON of a value, cut to a length that fits an error line. */
export function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

/** The error for a file that is not what it should be; the remedy is the same whichever rule it broke. */
export function damaged(where: string, got: string, expected: string): UserError {
  return failure({
    where,
    got,
    expected,
    fix: 'the file is damaged or cut short: use an earlier checkpoint, or fetch it again',
  })
}
