/**
 * A page that was saved as one HTML file carries its runs inside: then nothing is asked of a server. What `src/lab/export.ts`
 * writes.
 */
import type { RunReply } from '../../../src/lab/wire.ts'

export interface EmbeddedRun {
  readonly reply: RunReply
  /** As `encodeColumns` makes them, in base64. */
  readonly columns: string
}

export interface Embedded {
  readonly saved: string
  readonly runs: readonly EmbeddedRun[]
}

function read(): Embedded | undefined {
  const text = document.getElementById('anneal-export')?.textContent
  return text ? (JSON.parse(text) as Embedded) : undefined
}

export const embedded = read()

/** The bytes of the columns of an embedded run. */
export function columnBytes({ columns }: EmbeddedRun): ArrayBuffer {
  return Uint8Array.from(atob(columns), (letter) => letter.charCodeAt(0)).buffer
}
