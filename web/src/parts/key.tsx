/** Asks for the API key, where the server wants one. */
import type { JSX } from 'preact'
import { useRef } from 'preact/hooks'
import { question } from '../data/key.ts'
import { Dialog } from './dialog.tsx'

export function AskKey(): JSX.Element | null {
  const input = useRef<HTMLInputElement>(null)
  const asked = question.value
  if (asked === undefined) return null
  return (
    <Dialog
      title="API key"
      confirm="Open"
      onConfirm={() => asked.answer(input.current?.value.trim() || undefined)}
      onClose={() => {
        // Closing is told late: this one may be answered by then.
        if (question.value === asked) asked.answer(undefined)
      }}
    >
      <label class="field">
        {asked.refused ? 'That key was refused. The key' : 'This lab asks for a key: the one'} its server was
        started with
        <input type="password" ref={input} autocomplete="off" required />
      </label>
    </Dialog>
  )
}
