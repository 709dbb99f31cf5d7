/** The nets of integer-nets.ts as a pipeline: each place has some of the layers, microbatches pass, SGD at the end. */
import { groupOf, type Mesh } from '../src/compiler/graph/mesh.ts'
import { Graph, inGraph, type Node } from '../src/compiler/graph/node.ts'
import { barrier } from '../src/compiler/ops/barrier.ts'
import { leaves, mapTree, Tensor, valueType, type Tensors, type ValueType } from '../src/compiler/index.ts'
import type { Parallel, StageSource } from '../src/compiler/ranked.ts'
import { cutStages, type Stages } from '../src/compiler/trace/stages.ts'
import { runRank } from '../src/parallel/pipeline.ts'
import { rankPrograms, type Schedule } from '../src/parallel/schedule/index.ts'
import { descended, type Net } from './integer-nets.ts'
import { inStages } from './plans.ts'

/** What `compile` takes for a plan with a pipeline, one stage a rank. */
export function staged(net: Net, text: string, name: string, microbatches: number): Parallel {
  const sources = (mesh: Mesh, schedule: Schedule): StageSource[] => placesOf(net, mesh, schedule)
  return inStages(text, name, microbatches, 1, (schedule) => schedule, sources)
}

function placesOf({ params, data, lossOf }: Net, mesh: Mesh, schedule: Schedule): StageSource[] {
  const { microbatches, stages: count } = schedule
  const windows = (type: ValueType): number => type.shape[0]! / microbatches
  const micro = mapTree<ValueType, ValueType>(data, (type) =>
    valueType(type.dtype, [windows(type), ...type.shape.slice(1)], type.axes),
  )
  const forward = (given: Tensors): readonly Tensor[] => {
    const { params, data } = given as { params: Tensors; data: Readonly<Record<string, Tensor>> }
    return [lossOf(params, data)]
  }
  const cut = (): Stages => cutStages({ params, data: micro }, forward, count)
  const reads = inGraph(new Graph(), () => {
    const stages = cut()
    return Array.from({ length: count }, (_, stage) => stages.reads(stage))
  })
  const prefix = 'params.'
  const instructions = rankPrograms(schedule)
  return Array.from({ length: count }, (_, place): StageSource => {
    const own = new Map(reads[place]!.map((read) => [read.path, read]))
    const types = leaves<ValueType>(params).flatMap(([path, type]): [string, ValueType][] => {
      const read = own.get(prefix + path)
      if (!read) return []
      const [layers, ...rest] = type.shape as [number, ...number[]]
      return [[path, read.stacked ? valueType(type.dtype, [layers / count, ...rest], type.axes) : type]]
    })
    const body = (given: Tensors): Tensors => {
      const { state, ...data } = given as unknown as {
        readonly state: { readonly params: Readonly<Record<string, Tensor>> }
      } & Readonly<Record<string, Tensor>>
      const mine = Object.entries(state.params)
      const { gradients, last } = runRank({
        stages: cut(),
        instructions: instructions[place]!,
        microbatches,
        splitBackward: schedule.splitBackward,
        group: groupOf(mesh, ['pipe']),
        one: mine[0]![1].sum().mul(0).add(1).node,
        parameters: () => mine.map(([path]) => prefix + path),
        inputs: (_, microbatch, after) => {
          const values = new Map<string, Node>(mine.map(([path, param]) => [prefix + path, param.node]))
          for (const [name, whole] of Object.entries(data)) {
            const size = windows(whole.type)
            values.set(`data.${name}`, after(whole.slice(0, microbatch * size, size).node))
          }
          return values
        },
      })
      // Not before everything has been sent.
      const settled = (node: Node): Tensor =>
        new Tensor(last.reduce((value, token) => barrier(value, token), node))
      const byPath = [...gradients.get(place)!].map(([path, node]): [string, Tensor] => [
        path.slice(prefix.length),
        settled(node),
      ])
      return { state: { params: descended(state.params, new Map(byPath)) } }
    }
    return { inputs: { state: { params: Object.fromEntries(types) }, ...data }, body }
  })
}
