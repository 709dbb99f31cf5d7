/** Tags and a note about a run, kept when a field is left. */
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import type { Annotations } from '../../../src/runs/index.ts'
import { runPath, sendJson } from '../data/api.ts'
import { complain } from './notice.tsx'

interface NotesProps {
  readonly id: string
  readonly annotations: Annotations
}

export function Notes({ id, annotations }: NotesProps): JSX.Element {
  const [kept, setKept] = useState(annotations)
  const [tag, setTag] = useState('')
  const keep = (change: Partial<Annotations>): void => {
    sendJson<Annotations>('PUT', runPath(id, '/notes'), change).then(setKept, complain)
  }
  return (
    <section class="card">
      <h2>Notes</h2>
      <div class="tags">
        {kept.tags.map((own) => (
          <span key={own} class="tag">
            {own}
            <button
              type="button"
              aria-label={`Remove tag ${own}`}
              onClick={() => keep({ tags: kept.tags.filter((other) => other !== own) })}
            >
              ×
            </button>
          </span>
        ))}
        <form
          class="inline"
          onSubmit={(event) => {
            event.preventDefault()
            if (tag.trim() !== '') keep({ tags: [...kept.tags, tag] })
            setTag('')
          }}
        >
          <input
            aria-label="Add a tag"
            placeholder="Add a tag"
            value={tag}
            maxLength={60}
            onInput={(e) => setTag(e.currentTarget.value)}
          />
        </form>
      </div>
      <label class="field">
        <span class="hidden">Note</span>
        <textarea
          rows={3}
          placeholder="What was tried here, and what came of it"
          defaultValue={kept.note}
          onBlur={(e) => {
            if (e.currentTarget.value !== kept.note) keep({ note: e.currentTarget.value })
          }}
        />
      </label>
    </section>
  )
}
