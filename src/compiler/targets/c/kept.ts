/**
 * Activations in a file. What a loop over layers keeps for its backward loop is a stack with a slice a layer; a stack that
 * nothing but loops the other way round read, a slice at a time, may lie in the file. It has an address of its own there,
 * behind everything that is memory. After each turn of either loop the slice that was written or read leaves the process,
 * and on the way back the slice of the next turn is announced. Kernels and their order are those of a program in memory.
 */
import type { Node } from '../../graph/node.ts'
import { scanAttrs, scanOp } from '../../ops/scan.ts'
import type { Fusion } from './fuse.ts'
import type { Block } from './lower.ts'
import { fileAlignment } from './offload.ts'
import { stepsOf } from './profile.ts'
import { Storage } from './storage.ts'
import { isDense } from './view.ts'

/** A slice that leaves the process at the end of each turn of a loop. */
export interface LetGo {
  readonly variable: string
  readonly bytes: number
  /** It was read, and the slice of the next turn will be. */
  readonly read: boolean
}

/** Whether result `stack` of the loop `node` may lie in a file. */
export function isKept(node: Node, stack: Node, fusion: Fusion): boolean {
  const { reverse } = scanAttrs(node)
  const loops = fusion.kernels.flatMap((kernel) =>
    kernel.kind === 'single' &&
    kernel.node.op === scanOp &&
    kernel.node.inputs.some((input) => fusion.source(input).base === stack)
      ? [kernel.node]
      : [],
  )
  const readsSlices = (loop: Node): boolean => {
    const { numConstants, numCarries, reverse: way } = scanAttrs(loop)
    return (
      way !== reverse &&
      loop.inputs.every((input, i) => {
        const { base, view } = fusion.source(input)
        return base !== stack || (i >= numConstants + numCarries && isDense(view) && view.offset === 0)
      })
    )
  }
  return loops.length > 0 && loops.length === fusion.readCount(stack) && loops.every(readsSlices)
}

/** The stacks of a program that lie in its file, one after the other. */
export class KeptStacks {
  bytes = 0
  readonly #stacks = new Set<Storage>()

  place(bytes: number): Storage {
    const stack = new Storage('kept', bytes, `(arena + KEPT_AT + ${this.bytes}LL)`, { inFile: true })
    this.bytes += Math.ceil(bytes / fileAlignment) * fileAlignment
    this.#stacks.add(stack)
    return stack
  }

  has(storage: Storage): boolean {
    return this.#stacks.has(storage)
  }
}

/** Bytes that leave the process and come back in one step, by what its loops let go. */
export const movedByLoops = (block: Block): number =>
  stepsOf(block).reduce((sum, step) => {
    if (step.kind !== 'loop') return sum
    const each = step.letGo.reduce((bytes, slice) => bytes + slice.bytes, movedByLoops(step.block))
    return sum + step.length * each
  }, 0)

/** C statements at the end of a turn. All threads are through by then, and none needs the slice again in this loop. */
export function letGoText(letGo: readonly LetGo[], length: number, reverse: boolean): string[] {
  return letGo.map(({ variable, bytes, read }) => {
    const next = `s + 1 < ${length} ? ${variable} ${reverse ? '-' : '+'} ${bytes}LL : 0`
    return `if (tid == 0) let_go(${variable}, ${bytes}LL, ${read ? next : '0'});`
  })
}
