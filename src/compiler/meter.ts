/**
 * The meter: operations of a program by phase of training (graph/phase.ts), exact integers by the convention of
 * docs/flops.md. Phases share out what `flopsOf` counts, node by node, so together they are `program.flops`. Beside them
 * stand two counts that others publish, which take products alone: what the model needs, and three times the forward pass.
 */
import { compositeByName } from './composites/index.ts'
import type { Func, Node } from './graph/node.ts'
import { reachable } from './graph/node.ts'
import { phases, type Phase } from './graph/phase.ts'
import { callOp, compositeName, optionsOf } from './ops/call.ts'
import { scanAttrs, scanOp } from './ops/scan.ts'

export interface Operations extends Readonly<Record<Phase, number>> {
  /** All phases together. */
  readonly total: number
  /** Products of the forward and the backward pass, nothing computed again. */
  readonly model: number
  /** As "AI and Efficiency" counts: multiply-adds of the products of the forward pass, times 3. */
  readonly paper2020: number
}

/** Of functions, each run so many times. */
export function operationsOf(runs: readonly { readonly func: Func; readonly times: number }[]): Operations {
  const count = Object.fromEntries(phases.map((phase) => [phase, 0])) as Record<Phase, number>
  const products = { ...count }
  for (const { func, times } of runs) {
    visit(func, times, undefined, (node, phase, times) => {
      count[phase] += times * node.op.flops(node)
      products[phase] += times * productsOf(node)
    })
  }
  return {
    ...count,
    total: phases.reduce((total, phase) => total + count[phase], 0),
    model: products.forward + products.backward,
    paper2020: (products.forward / 2) * 3,
  }
}

/** Every node that counts, loops opened. A loop that is run again is so as a whole: it shares its body with the first. */
function visit(
  func: Func,
  times: number,
  whole: Phase | undefined,
  see: (node: Node, phase: Phase, times: number) => void,
): void {
  for (const node of reachable(func.results)) {
    const phase = whole ?? node.phase
    if (node.op !== scanOp) see(node, phase, times)
    else {
      const { body, length } = scanAttrs(node)
      visit(body, times * length, phase === 'recompute' ? phase : whole, see)
    }
  }
}

/** What of a node's operations are products that the model needs: multiply-adds, 2 each. */
function productsOf(node: Node): number {
  if (node.op.kind === 'product') return node.op.flops(node)
  if (node.op !== callOp) return 0
  const stated = compositeByName.get(compositeName(node))?.products
  if (stated)
    return stated(
      node.inputs.map((x) => x.types[0]!),
      optionsOf(node),
    )
  let total = 0
  visit(node.attrs['body'] as Func, 1, undefined, (inner, _, times) => (total += times * productsOf(inner)))
  return total
}
