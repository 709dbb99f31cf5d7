/**
 * A program of the reference target: the float64 interpreter over plain arrays, on one device or on simulated ranks. It has
 * no text and no plan of its memory.
 */
import { InternalError } from '../errors.ts'
import type { Func } from './graph/node.ts'
import { formatType, sizeOf, type ValueType } from './graph/types.ts'
import { fillView, notProfiled, wholePiece, type Program } from './program.ts'
import { referenceRanks, type HeldPiece } from './ranked.ts'
import { isState } from './targets/c/build.ts'
import { interpret } from './targets/reference/interpret.ts'

export function referenceProgram(
  func: Func,
  { inputPaths, outputPaths }: { inputPaths: readonly string[]; outputPaths: readonly string[] },
  shared: Pick<Program, 'flops' | 'operations' | 'func' | 'recomputed' | 'inputs' | 'outputs' | 'cut'>,
  compileSeconds: number,
  lender?: Program,
): Program {
  const { cut } = shared
  if (cut) {
    const ranks = referenceRanks(cut, new Map([...shared.outputs, ...shared.inputs]))
    return interpreted(shared, compileSeconds, {
      view: (path) => ranks.view(path),
      pieces: (path) => ranks.pieces(path),
      write: (path, values) => ranks.write(path, values),
      run: () => ranks.run(),
    })
  }
  const values = new Map<string, Float64Array>(
    inputPaths.map((path, i) => {
      const { type } = func.params[i]!
      const theirs = lender?.inputs.get(path)
      const same = theirs && formatType(theirs) === formatType(type)
      return [path, same ? (lender!.view(path) as Float64Array) : new Float64Array(sizeOf(type.shape))]
    }),
  )
  const view = (path: string): Float64Array => {
    const known = values.get(path)
    if (!known) throw new InternalError(`no '${path}' in this program (or it has not run yet)`)
    return known
  }
  const write = (path: string, data: ArrayLike<number>): void => fillView('reference', path, view(path), data)
  const run = (): void => {
    const results = interpret(
      func,
      inputPaths.map((path) => values.get(path)!.slice()),
    )
    outputPaths.forEach((path, i) =>
      isState(path) ? values.get(path)!.set(results[i]!) : values.set(path, results[i]!),
    )
  }
  const typeOf = (path: string): ValueType => (shared.inputs.get(path) ?? shared.outputs.get(path))!
  const pieces = (path: string): HeldPiece[] => [wholePiece(view(path), typeOf(path))]
  return interpreted(shared, compileSeconds, { view, pieces, write, run })
}

/** A program of the reference target: no memory plan, no text. */
function interpreted(
  shared: Pick<Program, 'flops' | 'operations' | 'func' | 'inputs' | 'outputs' | 'cut'>,
  compileSeconds: number,
  { view, pieces, write, run }: Pick<Program, 'view' | 'pieces' | 'write'> & { run(): void },
): Program {
  return {
    ...shared,
    source: '',
    layout: { inputs: [], outputs: [], guards: [] },
    outline: [],
    compileSeconds,
    cached: false,
    memory: {
      arenaBytes: 0,
      offloadedBytes: 0,
      movedBytes: 0,
      stateBytes: 0,
      inputBytes: 0,
      outputBytes: 0,
      temporaryBytes: 0,
      lowerBound: 0,
    },
    view,
    pieces,
    write,
    async run(inputs = {}) {
      for (const [path, data] of Object.entries(inputs)) write(path, data)
      run()
    },
    runBlocking: run,
    countedFlops: () => 0,
    traffic: () => [],
    checkReplicas() {},
    checkUnchanged() {},
    movedBytes: () => 0,
    profile() {
      throw notProfiled('reference')
    },
    close() {},
  }
}
