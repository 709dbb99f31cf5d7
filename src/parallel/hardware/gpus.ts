/**
 * Hardware files of accelerators. Peaks are dense ones (makers print twice as much for sparse operands). The ceilings of
 * products are set so that the model gives the best product anyone published for the device (`anchors`, held by a test).
 * Assumed, with no source: latencies (orders of magnitude as libraries show them on small messages), the share that the
 * network reaches of its line rate and streaming kernels of the memory's, and what smaller tiles lose. A probe replaces
 * them where there is a cluster.
 */
import type { Hardware, LinkLevel, ProductModel } from './hardware.ts'

const GB = 1e9

/** Eight GPUs behind a switch, and a network port for each. */
const node = (nvlink: number, nvlinkAchieved: number, network: number): readonly LinkLevel[] => [
  { name: 'NVLink', reach: 8, latency: 2e-6, bandwidth: nvlink, achieved: nvlinkAchieved, ranksPerPort: 1 },
  {
    name: 'network',
    reach: Infinity,
    latency: 8e-6,
    bandwidth: network,
    achieved: 0.92,
    ranksPerPort: 1,
  },
]

const tensorCores = (units: number, ceiling: number): ProductModel => ({
  units,
  tiles: [
    { rows: 128, columns: 256, share: 1 },
    { rows: 128, columns: 128, share: 0.85 },
    { rows: 64, columns: 64, share: 0.55 },
  ],
  fill: 128,
  ceiling,
  launchSeconds: 3e-6,
})

export const h100: Hardware = {
  name: 'H100 SXM',
  peak: { f32: 67e12, bf16: 989e12, fp8: 1979e12 },
  memoryBytes: 80 * GB,
  memoryBandwidth: 3350 * GB,
  memoryAchieved: 0.9,
  products: tensorCores(132, 0.855),
  attentionAchieved: 0.55,
  links: node(450 * GB, 0.82, 50 * GB),
  sources: [
    'peaks, memory, NVLink (900 GB/s both directions together): NVIDIA H100 data sheet; network: one 400 Gb/s port a GPU, as in DGX H100',
    'best product 792 TFLOP/s: Maximum Achievable Matmul FLOPS table, stas00/ml-engineering',
    'NVLink 370 of 450 GB/s: NVIDIA/nccl-tests#212',
    'attention: middle of 35 % (FlashAttention-2) and 75 % (3) of the peak, Shah et al., FlashAttention-3',
  ],
}

export const h200: Hardware = {
  ...h100,
  name: 'H200 SXM',
  memoryBytes: 141 * GB,
  memoryBandwidth: 4800 * GB,
  sources: ['memory: NVIDIA H200 data sheet; the rest as H100 SXM', ...h100.sources.slice(1)],
}

export const a100: Hardware = {
  name: 'A100 SXM 80 GB',
  peak: { f32: 19.5e12, bf16: 312e12 },
  memoryBytes: 80 * GB,
  memoryBandwidth: 2039 * GB,
  memoryAchieved: 0.9,
  products: tensorCores(108, 0.913),
  attentionAchieved: 0.6,
  links: node(300 * GB, 0.77, 25 * GB),
  sources: [
    'peaks, memory, NVLink (600 GB/s both directions together): NVIDIA A100 data sheet; network: one 200 Gb/s port a GPU, as in DGX A100',
    'best product 268 TFLOP/s: Maximum Achievable Matmul FLOPS table, stas00/ml-engineering',
    'NVLink about 230 of 300 GB/s in all-reduces of gigabytes: threads of NVIDIA/nccl-tests, e.g. #149',
    'attention: middle of 50 to 73 % of the peak, Dao, FlashAttention-2',
  ],
}

/** Published best products, in FLOP/s: what the model of each device must give. */
export const anchors: readonly {
  readonly hardware: Hardware
  readonly shape: readonly [m: number, n: number, k: number]
  readonly flops: number
}[] = [
  { hardware: h100, shape: [6144, 17920, 2816], flops: 792.1e12 },
  { hardware: h200, shape: [6144, 17920, 2816], flops: 794.5e12 },
  { hardware: a100, shape: [6912, 16384, 2048], flops: 267.9e12 },
]
