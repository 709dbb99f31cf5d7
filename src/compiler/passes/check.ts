/**
 * What is legal, checked after every pass: operations known, inputs made before users, types as inferred, functions
 * closed, and the structure ops that a phase must have removed gone. A violation is a defect of the pass before it.
 */
import { InternalError } from '../../errors.ts'
import { bodyOf, describe, reachable, type Func, type Node } from '../graph/node.ts'
import { formatType, sameType } from '../graph/types.ts'
import { ops } from '../ops/index.ts'

const known = new Set(ops)

export interface Legality {
  /** Ops that must not occur any more. */
  readonly gone: readonly string[]
}

export function check(func: Func, pass: string, legality: Legality = { gone: [] }): void {
  const fail = (node: Node, what: string): never => {
    throw new InternalError(`after ${pass}: %${node.id} ${describe(node)} in @${func.name}: ${what}`)
  }
  const params = new Set(func.params)
  for (const node of reachable([...func.params, ...func.results])) {
    if (!known.has(node.op)) fail(node, 'is not in the op list')
    if (legality.gone.includes(node.op.name)) fail(node, `${node.op.name} must be gone by now`)
    if (node.op.name === 'input' && !params.has(node))
      fail(node, `'${String(node.attrs['name'])}' is no parameter of this function`)
    if (node.inputs.some((x) => x.id >= node.id)) fail(node, 'uses a later node')
    const inferred = node.op.infer(
      node.inputs.map((x) => x.types[0]!),
      node.attrs,
      node.inputs,
    )
    if (
      inferred.length !== node.types.length ||
      !inferred.every((type, i) => sameType(type, node.types[i]!))
    ) {
      fail(node, `inferred ${inferred.map(formatType).join()}`)
    }
    const body = bodyOf(node)
    if (body) check(body, pass, legality)
  }
}
