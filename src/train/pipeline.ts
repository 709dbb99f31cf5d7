/**
 * The training step of the language recipe for the ranks of a pipeline: each place along the axis has some of the layers
 * (and their optimizer state), runs forward and backward passes in the order of a schedule, and updates what it has.
 * Parameters that two places need, such as an embedding tied to the head, are held by both and get one summed gradient.
 */
import { groupOf, type Group, type Mesh } from '../compiler/graph/mesh.ts'
import { Graph, inGraph, type Node } from '../compiler/graph/node.ts'
import { valueType, type ValueType } from '../compiler/graph/types.ts'
import { barrier } from '../compiler/ops/barrier.ts'
import { receive, send } from '../compiler/ops/send.ts'
import type { StageSource } from '../compiler/ranked.ts'
import { cutStages, type Stages } from '../compiler/trace/stages.ts'
import { concat, leaves, Tensor, type Tensorised, type Tensors } from '../compiler/index.ts'
import { failure } from '../errors.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import { objective, type ModelConfig, type ModelWeights } from '../models/language/model.ts'
import { runRank } from '../parallel/pipeline.ts'
import { rankPrograms, type Schedule } from '../parallel/schedule/index.ts'
import { dropoutKey } from './microbatches.ts'
import { scalar, stepInputs, trainedTypes, type StepState } from './state.ts'
import { nextState, squares } from './update.ts'

/** Programs for the places along the pipeline axis of a mesh. */
export function pipelineSources(
  config: LanguageConfig,
  vocab: number,
  mesh: Mesh,
  axis: string,
  schedule: Schedule,
): StageSource[] {
  if (config.precision === 'fp16') {
    throw failure({
      where: 'pipeline',
      got: 'precision=fp16',
      expected: 'f32 or bf16: whether to skip a step is not agreed on between stages',
      fix: 'use precision=bf16',
    })
  }
  const model: ModelConfig = { ...config.model, vocab }
  const whole = stepInputs(config, vocab)
  const { tokens } = whole
  const microTypes = {
    params: whole.state.params,
    tokens: valueType(tokens.dtype, tokens.shape.slice(1), tokens.axes.slice(1)),
    seed: whole.seed,
    step: whole.state.step,
  }
  const cut = (): Stages =>
    cutStages(
      microTypes,
      (inputs) => {
        const { params, tokens, seed, step } = inputs as unknown as Tensorised<typeof microTypes>
        const { total, loss, load } = objective(params as unknown as ModelWeights, tokens, model, {
          seed,
          step,
        })
        return load ? [total, loss, load] : [total, loss]
      },
      schedule.stages,
    )
  const outline = inGraph(new Graph(), () => {
    const stages = cut()
    return Array.from({ length: stages.count }, (_, stage) => stages.reads(stage))
  })
  const places = schedule.actions.map((_, place) => {
    const own = outline.map((_, stage) => stage).filter((stage) => schedule.rankOfStage[stage] === place)
    return { own, reads: new Map(own.flatMap((stage) => outline[stage]!).map((read) => [read.path, read])) }
  })
  const instructions = rankPrograms(schedule)
  const group = groupOf(mesh, [axis])
  const share = config.model.layers / schedule.stages
  const trained = new Set(Object.keys(trainedTypes(model)).map((path) => `params.${path}`))
  const parametersOf = (stage: number): string[] =>
    outline[stage]!.filter(({ path }) => trained.has(path)).map(({ path }) => path)

  return places.map(({ own, reads }, place): StageSource => {
    const localType = (path: string, type: ValueType): ValueType =>
      reads.get(path)?.stacked
        ? valueType(type.dtype, [share * own.length, ...type.shape.slice(1)], type.axes)
        : type
    const params = Object.fromEntries(
      leaves<ValueType>(whole.state.params)
        .filter(([path]) => reads.has(`params.${path}`))
        .map(([path, type]) => [path, localType(`params.${path}`, type)]),
    )
    const optim = Object.fromEntries(
      Object.entries(whole.state.optim)
        .filter(([path]) => path in params)
        .map(([path, state]) => [
          path,
          Object.fromEntries(
            Object.entries(state).map(([name, type]) => [name, localType(`params.${path}`, type)]),
          ),
        ]),
    )
    const inputs = { state: { step: whole.state.step, params, optim }, tokens, seed: whole.seed }

    const body = (given: Tensors): Tensors => {
      const { state, tokens, seed } = given as unknown as {
        state: StepState & { params: Record<string, Tensor> }
        tokens: Tensor
        seed: Tensor
      }
      const count = schedule.microbatches
      const stages = cut()
      const result = runRank({
        stages,
        instructions: instructions[place]!,
        microbatches: count,
        splitBackward: schedule.splitBackward,
        group,
        one: state.step.mul(0).add(1).cast('f32').node,
        parameters: parametersOf,
        inputs: (stage, microbatch, after) => {
          const values = new Map<string, Node>()
          for (const { path, stacked } of outline[stage]!) {
            if (!path.startsWith('params.')) continue
            const param = state.params[path.slice('params.'.length)]!
            values.set(path, stacked ? param.slice(0, own.indexOf(stage) * share, share).node : param.node)
          }
          const mine = tokens.slice(0, microbatch, 1).reshape(tokens.shape.slice(1), tokens.axes.slice(1))
          const key = dropoutKey(seed, state.step, state.step.mul(0).add(microbatch))
          values.set('tokens', after(mine.node))
          values.set('seed', key.seed.node)
          values.set('step', key.step.node)
          return values
        },
      })
      const wires = new Wires(group, place, result.last)
      const moved = Object.keys(params).filter((path) => trained.has(`params.${path}`))
      // Gradients of this place's parameters, those of its stages one after the other.
      const grads: Record<string, Tensor> = {}
      for (const path of moved) {
        const parts = own.flatMap((stage) => {
          const part = result.gradients.get(stage)?.get(`params.${path}`)
          return part ? [new Tensor(part)] : []
        })
        grads[path] =
          parts.length === 1 || !reads.get(`params.${path}`)!.stacked ? added(parts) : concat(parts, 0)
      }
      const shared = moved.filter((path) => !reads.get(`params.${path}`)!.stacked)
      let counted = grads
      for (const path of shared) {
        const holders = places.flatMap(({ reads }, at) => (reads.has(`params.${path}`) ? [at] : []))
        if (holders.length === 1) continue
        grads[path] = wires.sum(grads[path]!, holders, `gradient of ${path}`)
        // A sum over all parameters has it once.
        if (place !== holders[0]) {
          const { [path]: _, ...others } = counted
          counted = others
        }
      }
      const scale = 1 / count
      const scaled = Object.fromEntries(
        Object.entries(grads).map(([path, g]) => [path, count === 1 ? g : g.mul(scale)]),
      )
      const everyone = places.map((_, at) => at)
      const mine = squares(Object.fromEntries(Object.keys(counted).map((path) => [path, scaled[path]!])))
      const norm = wires.sum(mine, everyone, 'squares of gradients').sqrt()
      const lastPlace = schedule.rankOfStage[schedule.stages - 1]!
      const [sum, chosen] = result.reported.map((node) => new Tensor(node))
      const mean = sum?.mul(1 / (config.batch * config.model.context))
      const value = wires.broadcast(mean, lastPlace, everyone, 'loss', scalar('f32'))
      const { experts, layers } = model
      const load =
        experts > 0 &&
        wires.broadcast(
          chosen?.mul(scale),
          lastPlace,
          everyone,
          'load of experts',
          valueType('f32', [layers, experts], ['layer', 'expert']),
        )
      return nextState(config, vocab, state, {
        loss: wires.settled(value),
        grads: scaled,
        norm,
        ...(load
          ? {
              load,
              ownLoad: concat(
                own.map((stage) => load.slice(0, stage * share, share)),
                0,
              ),
            }
          : {}),
      })
    }
    return { inputs, body }
  })
}

const added = (parts: readonly Tensor[]): Tensor => parts.reduce((a, b) => b.add(a))

/** Small exchanges between the places of a pipeline at the end of a step, each after the one before. */
class Wires {
  readonly #group: Group
  readonly #place: number
  #before: readonly Node[]

  constructor(group: Group, place: number, before: readonly Node[]) {
    this.#group = group
    this.#place = place
    this.#before = before
  }

  /** The sum of what `places` have, at all of them; added from the last place to the first, as gradients come. */
  sum(x: Tensor, places: readonly number[], name: string): Tensor {
    const [home, ...others] = places as [number, ...number[]]
    if (this.#place !== home) {
      this.#send(x.node, home, `${name}, part of ${this.#place}`)
      return new Tensor(this.#receive(x.type, home, `${name}, for ${this.#place}`))
    }
    let total: Tensor | undefined
    for (const place of others.toReversed()) {
      const part = new Tensor(this.#receive(x.type, place, `${name}, part of ${place}`))
      total = total ? total.add(part) : part
    }
    const all = total ? total.add(x) : x
    for (const place of others) this.#send(all.node, place, `${name}, for ${place}`)
    return all
  }

  /** What one place has, at all of them. */
  broadcast(
    x: Tensor | undefined,
    from: number,
    places: readonly number[],
    name: string,
    type: ValueType,
  ): Tensor {
    if (!x) return new Tensor(this.#receive(type, from, `${name}, for ${this.#place}`))
    for (const place of places) if (place !== from) this.#send(x.node, place, `${name}, for ${place}`)
    return x
  }

  /** A value, but not before everything has been sent. */
  settled(x: Tensor): Tensor {
    return new Tensor(this.#ordered(x.node))
  }

  #ordered(x: Node): Node {
    return this.#before.reduce((value, token) => barrier(value, token), x)
  }

  #send(x: Node, place: number, channel: string): void {
    this.#before = [send(this.#ordered(x), this.#group, place, channel)]
  }

  #receive(type: ValueType, place: number, channel: string): Node {
    const node = receive(type, this.#group, place, channel, this.#before)
    this.#before = [node]
    return node
  }
}
