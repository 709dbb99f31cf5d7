/** Short messages at the lower edge: what was done, or why not. Errors stay until dismissed. */
import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { explain } from '../data/api.ts'

interface Notice {
  readonly id: number
  readonly text: string
  readonly bad: boolean
}

const notices = signal<readonly Notice[]>([])
let count = 0

export function say(text: string): void {
  const id = ++count
  notices.value = [...notices.value, { id, text, bad: false }]
  setTimeout(() => dismiss(id), 4000)
}

export function complain(error: unknown): void {
  notices.value = [...notices.value.slice(-3), { id: ++count, text: explain(error), bad: true }]
}

function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id)
}

export function Notices(): JSX.Element {
  return (
    <div class="notices" role="status">
      {notices.value.map(({ id, text, bad }) => (
        <p key={id} class={bad ? 'bad' : ''}>
          <span>{text}</span>
          <button type="button" class="quiet" onClick={() => dismiss(id)}>
            Dismiss
          </button>
        </p>
      ))}
    </div>
  )
}
