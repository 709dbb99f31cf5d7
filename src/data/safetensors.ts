/**
 * The safetensors format: named arrays in one file, or in several with an index, nothing in them executable. Model
 * weights come in and checkpoints go out this way. Files of untrusted origin are checked completely before use.
 */
export { openCheckpointFolder } from './safetensors/folder.ts'
export { DTYPE_BYTES } from './safetensors/format.ts'
export type { Dtype, TensorInfo } from './safetensors/format.ts'
export { openSafetensors } from './safetensors/reader.ts'
export type { Safetensors } from './safetensors/reader.ts'
export { writeSafetensors } from './safetensors/writer.ts'
export type { TensorData } from './safetensors/writer.ts'
