/** The compiler as the layers above it see it. */
export { adafactor, type AdafactorOptions } from './composites/adafactor.ts'
export { adamw, type AdamWOptions } from './composites/adamw.ts'
export { adamw8bit, blockScales } from './composites/adamw8bit.ts'
export { attention, attentionWithLse, type AttentionOptions } from './composites/attention.ts'
export { cachedAttention, writeCache, type CachePlaces } from './composites/cached-attention.ts'
export { crossEntropy } from './composites/cross-entropy.ts'
export type { Fp8Scaling } from './composites/dot-fp8.ts'
export { gelu } from './composites/gelu.ts'
export { muon, type MuonOptions } from './composites/muon.ts'
export { layerNorm, rmsNorm } from './composites/norm.ts'
export { averagePool, maxPool, resizeNearest, type PoolOptions } from './composites/pool.ts'
export { quantise, type QuantiseGroups, type QuantiseOptions } from './composites/quantise.ts'
export { rope } from './composites/rope.ts'
export { silu } from './composites/silu.ts'
export { compile, type CompileOptions, type Tensorised } from './compile.ts'
export type { Operations } from './meter.ts'
export type { Program, ProgramMemory, Values } from './program.ts'
export {
  chromeTrace,
  judge,
  memoryRate,
  type Profile,
  type ProfileEvent,
  type Site,
  type SiteProfile,
  type Verdict,
} from './profile.ts'
export type { Recompute, RecomputeReport } from './recompute.ts'
export { inPhase } from './graph/node.ts'
export { phases as trainingPhases } from './graph/phase.ts'
export { phases, type Phase } from './graph/phase.ts'
export { philoxBlock, philoxUniform, wordToUniform } from './graph/philox.ts'
export { printFunc } from './graph/print.ts'
export {
  bytesOf,
  dtypeBytes,
  sizeOf,
  valueType,
  type AxisName,
  type DType,
  type ValueType,
} from './graph/types.ts'
export { conv, type ConvOptions, type Padding } from './trace/conv.ts'
export { checkpoint, grad, scan, type Tensors } from './trace/functions.ts'
export { groupedDot, groupRank, oneHot, pick, topk } from './trace/grouped.ts'
export { concat, full, iota, Tensor, uniform, where, zerosLike, type RandomKey } from './trace/tensor.ts'
export { leaves, mapTree, type Tree } from './trace/tree.ts'
