/**
 * Holds an answer to a JSON schema while it is written: says which tokens may come next, and closes what is open when the
 * tokens run short. Whatever the model is, even one that knows nothing, the answer is valid and ends in time.
 */
import { RequestError } from '../error.ts'
import type { Constraint } from '../generation.ts'
import { Grammar, type State } from './grammar.ts'
import { jsonText, schemaItem } from './json-schema.ts'
import { never, type TokenTable } from './tokens.ts'

/** A schema ready for use, for one tokenizer. */
export interface CompiledSchema {
  /** The fewest tokens of an answer. */
  readonly least: number
  begin(): Constraint
}

/** Tables of token costs that are kept; each is two bytes a token. */
const mostTables = 200

/**
 * @param schema a JSON schema, or undefined for any JSON object.
 * @throws RequestError for a schema with a part that is not supported, and when the tokenizer cannot spell it.
 */
export function compileSchema(schema: unknown, table: TokenTable, param: string): CompiledSchema {
  const grammar = new Grammar(table.single)
  const plain = table.tokenizer.kind === 'chars' ? jsonText.ascii : jsonText.plain
  const start = grammar.start(schemaItem(grammar, schema, param, plain))
  if (start.cost >= never) {
    throw new RequestError(400, {
      message: `${param}: no JSON of this schema can be written with this model's tokens (${table.tokenizer.kind}) or in finite length`,
      param,
      code: 'unsupported_schema',
    })
  }
  const tables = new Map<State, Uint16Array>()
  const costsOf = (state: State): Uint16Array => {
    let costs = tables.get(state)
    if (!costs) {
      if (tables.size >= mostTables) tables.clear()
      costs = table.costs(grammar, state)
      tables.set(state, costs)
    }
    return costs
  }
  return {
    least: start.cost,
    begin() {
      let state = start
      return {
        get complete() {
          return state.complete
        },
        allowed(left) {
          const costs = costsOf(state)
          return Uint8Array.from(costs, (cost) => (cost < left ? 1 : 0))
        },
        push(id) {
          for (const byte of table.tokenizer.bytesOf(id)) state = grammar.step(state, byte)!
        },
      }
    },
  }
}
