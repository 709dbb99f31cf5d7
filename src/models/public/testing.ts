/**
 * For tests: the checkpoints whose outputs Hugging Face transformers computed, and the comparison with them. Both targets
 * are held to the same reference, which shares no code with us.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { publicModel, type PublicModelOptions } from './model.ts'

export const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../../tests/fixtures/checkpoints/${name}`, import.meta.url))

/** What transformers computed for one checkpoint. */
interface Reference {
  readonly input_ids: readonly number[]
  readonly logits: readonly number[]
  readonly loss: number
  /** Last position only: the embedding, then each block's result, the last one after the final norm. */
  readonly hidden_last_row_per_layer: readonly (readonly number[])[]
  readonly greedy: readonly number[]
  readonly grad_norms: Readonly<Record<string, number>>
}

export const referenceOf = (name: string): Reference =>
  JSON.parse(readFileSync(join(fixture(name), 'reference.json'), 'utf8')) as Reference

/** Largest allowed error of the loss. */
export const checkpoints: Readonly<Record<string, number>> = {
  'gpt2-tiny': 1e-5,
  'smollm2-tiny': 1e-5,
  // Its reference model was cast to bfloat16 as a whole, which rounded the RoPE frequencies along with the weights;
  // loading a published bfloat16 file does not, and neither do we. The loss differs by 1.7e-5 for that reason alone.
  'smollm2-tiny-bf16-sharded': 3e-5,
  'llama3-tiny': 1e-5,
  'qwen2-tiny': 1e-5,
}

/** Checks logits, greedy tokens, loss and every gradient norm of a checkpoint. */
export async function reproduces(name: string, options: PublicModelOptions): Promise<void> {
  const want = referenceOf(name)
  const model = publicModel(fixture(name), options)
  try {
    // Zeros after the text must change nothing before them; at this length the greedy decoder needs no other program.
    const padded = Array.from({ length: want.greedy.length - 1 }, (_, i) => want.input_ids[i] ?? 0)
    const { values } = await model.logits([padded])
    near(values.subarray(0, want.logits.length), want.logits, 2e-4, 'logits')
    const count = want.greedy.length - want.input_ids.length
    assert.deepEqual(await model.greedy(want.input_ids, count), want.greedy)

    const { loss, gradients } = await model.lossAndGradients([want.input_ids])
    near([loss], [want.loss], checkpoints[name]!, 'loss')
    assert.deepEqual(new Set(gradients.keys()), new Set(Object.keys(want.grad_norms)))
    for (const [tensor, norm] of Object.entries(want.grad_norms)) {
      near([Math.hypot(...gradients.get(tensor)!)], [norm], 1e-3 * norm, `gradient norm of ${tensor}`)
    }
  } finally {
    model.close()
  }
}

/** Checks the last position after the embedding and after every block. */
export async function reproducesHiddenStates(name: string, options: PublicModelOptions): Promise<void> {
  const { input_ids: ids, hidden_last_row_per_layer: want } = referenceOf(name)
  const model = publicModel(fixture(name), options)
  try {
    const { shape, values } = await model.hiddenStates([ids])
    const width = want[0]!.length
    assert.deepEqual(shape, [want.length, 1, ids.length, width])
    want.forEach((row, i) => {
      const end = (i + 1) * ids.length * width
      near(values.subarray(end - width, end), row, 2e-4, `hidden state ${i}`)
    })
  } finally {
    model.close()
  }
}

function near(got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(got.length, want.length, what)
  for (let i = 0; i < want.length; i++) {
    const error = Math.abs(got[i]! - want[i]!)
    assert.ok(error <= tolerance, `${what}[${i}]: ${got[i]} differs from ${want[i]} by ${error}`)
  }
}
