/**
 * The public entry, `import { ... } from 'anneal'`. Three groups: training a language model, the compiler on its own,
 * and reading what runs left on disk. Nothing else of the tree is public.
 *
 * @example
 * const data = await text('./my-notes', { tokenizer: 'bytes' })
 * const run = await train(gpt({ layers: 6, heads: 6, width: 384, context: 256 }), { data, steps: 2000 })
 * console.log(await run.sample('Once upon'))
 */
import { valueType, type AxisName, type DType, type ValueType } from './compiler/index.ts'

// Training.
export { gpt, openRun, text, train } from './train/library.ts'
export type {
  Data,
  Model,
  ModelSettings,
  RunOptions,
  TrainedRun,
  TrainSettings,
  WriteOptions,
} from './train/library.ts'
export type { TrainObserver, TrainPlan, TrainPoint } from './train/events.ts'

// The compiler: programs.
export { compile } from './compiler/index.ts'
export type { CompileOptions, Program, ProgramMemory, Tensorised, Values } from './compiler/index.ts'

// The compiler: what running a program cost.
export { chromeTrace, judge } from './compiler/index.ts'
export type { Profile, ProfileEvent, Site, SiteProfile, Verdict } from './compiler/index.ts'
export { measurePeak, type Peak } from './compiler/runtime/peak.ts'

// The compiler: what a traced function is written with.
export {
  checkpoint,
  concat,
  full,
  grad,
  iota,
  scan,
  Tensor,
  uniform,
  where,
  zerosLike,
} from './compiler/index.ts'
export {
  adamw,
  attention,
  attentionWithLse,
  averagePool,
  cachedAttention,
  conv,
  crossEntropy,
  gelu,
  layerNorm,
  maxPool,
  muon,
  resizeNearest,
  rmsNorm,
  rope,
  silu,
  writeCache,
} from './compiler/index.ts'
export type {
  AdamWOptions,
  AttentionOptions,
  CachePlaces,
  ConvOptions,
  MuonOptions,
  Padding,
  PoolOptions,
  RandomKey,
  Tensors,
} from './compiler/index.ts'

// The compiler: types and trees of values.
export { bytesOf, leaves, mapTree, sizeOf, valueType } from './compiler/index.ts'
export type { AxisName, DType, Tree, ValueType } from './compiler/index.ts'

// Runs on disk.
export { listRuns, readRun } from './runs/index.ts'
export type { PointLine, Run, RunList, RunStatus, RunSummary } from './runs/index.ts'

// Public checkpoints.
export { publicModel } from './models/public/model.ts'
export type { PublicModel, PublicModelOptions } from './models/public/model.ts'

// Errors a person can cause.
export { UserError, type Complaint } from './errors.ts'

type MakeType = (shape: readonly number[], axes?: readonly AxisName[]) => ValueType

const typeOf =
  (dtype: DType): MakeType =>
  (shape, axes) =>
    valueType(dtype, shape, axes)

/**
 * The type of a 32-bit float tensor, its axes named or not.
 * @example
 * f32([4, 8])
 * f32([4, 8], ['batch', 'embed'])
 * f32([]) // a scalar
 */
export const f32: MakeType = typeOf('f32')

/**
 * The type of a 64-bit float tensor.
 * @example
 * f64([3, 3])
 */
export const f64: MakeType = typeOf('f64')

/**
 * The type of a bfloat16 tensor. Programs show its values as their 16 bits.
 * @example
 * bf16([16, 64])
 */
export const bf16: MakeType = typeOf('bf16')

/**
 * The type of a tensor of 32-bit integers, such as token ids.
 * @example
 * i32([16, 257], ['batch', 'time'])
 */
export const i32: MakeType = typeOf('i32')
