/** Text files dropped onto the page become a folder of data on the server's machine, whose path goes into the form. */
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import { request } from '../data/api.ts'
import { formatBytes } from '../data/shared.ts'
import { complain } from './notice.tsx'

interface Stored {
  readonly folder: string
  readonly files: number
  readonly bytes: number
}

export function DropData({ onStored }: { readonly onStored: (folder: string) => void }): JSX.Element {
  const [over, setOver] = useState(false)
  const [stored, setStored] = useState<Stored>()
  const send = (files: FileList | null | undefined): void => {
    if (!files || files.length === 0) return
    const form = new FormData()
    for (const file of files) form.append('file', file)
    request('/api/data', { method: 'POST', body: form })
      .then((response) => response.json() as Promise<Stored>)
      .then((next) => {
        setStored(next)
        onStored(next.folder)
      })
      .catch(complain)
  }
  return (
    <label
      class={`drop ${over ? 'over' : ''}`}
      onDragOver={(event) => {
        event.preventDefault()
        setOver(true)
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault()
        setOver(false)
        send(event.dataTransfer?.files)
      }}
    >
      <span>
        {stored === undefined
          ? 'Drop text or JSONL files here to train on them, or choose some'
          : `${stored.files} files, ${formatBytes(stored.bytes)}: ${stored.folder}`}
      </span>
      <input
        type="file"
        multiple
        accept=".txt,.md,.jsonl,.json,.csv,text/*"
        onChange={(e) => send(e.currentTarget.files)}
      />
    </label>
  )
}
