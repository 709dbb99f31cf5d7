/**
 * Checkpoints: the state of a training run in one safetensors file, or in one file a rank with a manifest. Saved under
 * one parallel plan, loaded under any other: both sides are boxes of whole tensors. See docs/checkpoints.md.
 */
export { printBox, wholeBox } from './checkpoints/boxes.ts'
export type { Box } from './checkpoints/boxes.ts'
export { listCheckpoints, nameOf, prune, sweep } from './checkpoints/folder.ts'
export type { CheckpointEntry } from './checkpoints/folder.ts'
export { MANIFEST } from './checkpoints/manifest.ts'
export { useNewestIn } from './checkpoints/newest.ts'
export { openCheckpoint } from './checkpoints/open.ts'
export type { Checkpoint, CheckpointTensor, LoadReport } from './checkpoints/open.ts'
export { planPieces } from './checkpoints/pieces.ts'
export type { HeldBox, Holding, Piece } from './checkpoints/pieces.ts'
export { writeCheckpoint } from './checkpoints/write.ts'
export type { RankData, SaveRequest } from './checkpoints/write.ts'
export { CheckpointSaver } from './checkpoints/background.ts'
export type { SaverOptions, Snapshot } from './checkpoints/background.ts'
