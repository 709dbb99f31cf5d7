/**
 * A model over a paged key/value cache: any rows of any sequences in one call, so that prompts are read and texts written
 * together. Who owns which page is the caller's business (serve/pages.ts); here a row just names the pages its sequence
 * lies in. A few programs share weights and cache and differ only in how many rows they take; a call goes to the
 * smallest that holds it.
 *
 * A row gives the same bits whichever program it runs in and whatever runs beside it. That is why none takes fewer than
 * four rows, or reads out fewer: products of a single row are added up in another order than those of several.
 */
import { InternalError } from '../errors.ts'
import { compile, valueType, type CompileOptions, type Program, type Tensors } from '../compiler/index.ts'
import type { Tensorised } from '../compiler/index.ts'
import type { CachedRows, Decodable } from './decoder.ts'

/** One token of a sequence. */
export interface Row {
  readonly token: number
  readonly position: number
  /** The pages of its sequence, in order, as far as they are needed. */
  readonly pages: ArrayLike<number>
}

export interface PagedOptions extends Pick<CompileOptions, 'target' | 'threads'> {
  /** Pages of the cache. */
  readonly pages: number
  /** Positions a page holds; a multiple of eight. */
  readonly pageSize: number
  /** Most rows of a call. */
  readonly rows: number
  /** Most rows of a call that logits are wanted of. */
  readonly wanted: number
}

export interface Results {
  /** Logits [vocab] of each row that was asked for: views, until the next call. */
  readonly logits: readonly Float32Array[]
  /** What the last block returns for every row, [rows, embed]: a view, until the next call. */
  readonly hidden: Float32Array
  /** Numbers in a row of `hidden`. */
  readonly width: number
}

const fewestRows = 4

export class PagedDecoder {
  readonly model: Decodable
  readonly options: PagedOptions
  /** Pages that a sequence as long as the context takes. */
  readonly pagesPerSequence: number
  /** Holds the weights (`params.…`) and the cache (`state.…`) for all. */
  readonly program: Program
  readonly #sizes: readonly number[]
  readonly #programs = new Map<number, Promise<Program>>()

  private constructor(model: Decodable, options: PagedOptions, sizes: readonly number[], first: Program) {
    this.model = model
    this.options = options
    this.pagesPerSequence = pagesPerSequence(model, options)
    this.program = first
    this.#sizes = sizes
    this.#programs.set(sizes[0]!, Promise.resolve(first))
  }

  static async open(model: Decodable, options: PagedOptions): Promise<PagedDecoder> {
    if (options.pageSize % 8 !== 0) throw new InternalError(`pages of ${options.pageSize} positions`)
    // 4, 16, then what fills a call.
    const most = Math.max(fewestRows, options.rows)
    const sizes = [...new Set([fewestRows, Math.min(16, most), most])]
    return new PagedDecoder(model, options, sizes, await compileRows(model, fewestRows, options))
  }

  /** Compiles all programs now rather than when they are first needed. */
  async prepare(): Promise<void> {
    for (const size of this.#sizes) await this.#sized(size)
  }

  #sized(rows: number): Promise<Program> {
    const size = this.#sizes.find((size) => size >= rows)
    if (size === undefined) throw new InternalError(`${rows} rows, of at most ${this.options.rows}`)
    const known = this.#programs.get(size)
    if (known) return known
    const made = compileRows(this.model, size, this.options, this.program)
    this.#programs.set(size, made)
    return made
  }

  /** Runs rows, and reads out those whose indices are `wanted`. */
  async run(rows: readonly Row[], wanted: readonly number[]): Promise<Results> {
    const program = await this.#sized(rows.length)
    const size = program.inputs.get('token')!.shape[0]!
    const each = this.pagesPerSequence
    const [token, position, pages] = [
      new Int32Array(size),
      new Int32Array(size).fill(-1),
      new Int32Array(size * each),
    ]
    for (const [i, row] of rows.entries()) {
      token[i] = row.token
      position[i] = row.position
      pages.set(row.pages, i * each)
    }
    const last = new Int32Array(program.inputs.get('last')!.shape[0]!)
    if (wanted.length > last.length) throw new InternalError(`logits of ${wanted.length} rows`)
    last.set(wanted)
    await program.run({ token, position, pages, last })
    const { vocab } = this.model
    const logits = program.view('logits') as Float32Array
    const hidden = program.view('hidden') as Float32Array
    return {
      logits: wanted.map((_, i) => logits.subarray(i * vocab, (i + 1) * vocab)),
      hidden,
      width: hidden.length / size,
    }
  }

  async close(): Promise<void> {
    for (const [size, program] of this.#programs) if (size !== this.#sizes[0]) (await program).close()
    this.program.close()
  }
}

const pagesPerSequence = ({ context }: Decodable, { pageSize }: PagedOptions): number =>
  Math.ceil(context / pageSize)

/** Compiles what runs `rows` rows, over the weights and the cache of `shares` or its own. */
function compileRows(
  model: Decodable,
  rows: number,
  options: PagedOptions,
  shares?: Program,
): Promise<Program> {
  const { pages, pageSize, wanted, target, threads } = options
  const index = (size: number): ReturnType<typeof valueType> => valueType('i32', [size], ['time'])
  const inputs = {
    params: model.weights,
    state: { cache: model.cache(pages, pageSize) },
    token: index(rows),
    position: index(rows),
    pages: valueType('i32', [rows, pagesPerSequence(model, options)], ['time', null]),
    last: index(Math.min(rows, Math.max(fewestRows, wanted))),
  }
  const body = (given: Tensorised<typeof inputs>): Tensors => {
    const { params, state, last: read, ...cached } = given as unknown as Given
    const { last, cache } = model.decode(params, state.cache, cached)
    return { logits: model.readout(params, last.take(read)), hidden: last, state: { cache } }
  }
  return compile(body, inputs, {
    name: `rows_${rows}`,
    ...(target ? { target } : {}),
    ...(threads ? { threads } : {}),
    ...(shares ? { shares } : {}),
  })
}

interface Given extends CachedRows {
  readonly params: Tensors
  readonly state: { readonly cache: Tensors }
  readonly last: CachedRows['token']
}
