/** What one can do with a run. Whatever cannot be undone asks first; whatever takes a while says what it is doing. */
import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import type { JobReply, RunReply, Settings } from '../../../src/lab/wire.ts'
import type { RunStatus } from '../../../src/runs/index.ts'
import { ApiError, getJson, runPath, sendJson } from '../data/api.ts'
import { go, runAddress } from '../router.ts'
import { Dialog } from './dialog.tsx'
import { download } from '../data/download.ts'
import { complain, say } from './notice.tsx'

/** What is being started, in the trainer's own words. */
export const starting = signal<string | undefined>(undefined)

/** Waits until a job has a run that is being written, then shows that run. */
export async function followJob(job: JobReply): Promise<void> {
  let now = job
  try {
    while (now.state === 'starting') {
      starting.value = now.message || 'starting…'
      await new Promise((resolve) => setTimeout(resolve, 300))
      now = await getJson<JobReply>(`/api/jobs/${now.job}`)
    }
  } finally {
    starting.value = undefined
  }
  if (now.state === 'failed')
    throw new ApiError(409, { message: now.message || 'the training process ended at once' })
  if (now.run !== null) go(runAddress(now.run))
}

interface RunActionsProps {
  readonly id: string
  readonly status: RunStatus
  readonly reply: RunReply
}

export function RunActions({ id, status, reply }: RunActionsProps): JSX.Element {
  const [asks, setAsks] = useState<'resume' | 'delete'>()
  const [stopping, setStopping] = useState(false)
  const { archived } = reply.annotations
  const [put, setPut] = useState(archived)
  const newest = reply.checkpoints.findLast(({ present }) => present)
  const stop = (): void => {
    setStopping(true)
    sendJson('POST', runPath(id, '/stop')).then(
      () => say('Saving a checkpoint, then stopping'),
      (error: unknown) => {
        setStopping(false)
        complain(error)
      },
    )
  }
  const resume = (settings: Settings): void => {
    setStopping(false)
    sendJson<JobReply>('POST', runPath(id, '/resume'), { settings }).then(followJob).catch(complain)
  }
  const archive = (): void => {
    sendJson('PUT', runPath(id, '/notes'), { archived: !put }).then(() => {
      setPut(!put)
      say(put ? 'Back in the list' : 'Archived: listed only when the search says archived')
    }, complain)
  }
  return (
    <div class="buttons">
      {starting.value !== undefined && (
        <span class="muted loading" role="status">
          {starting.value}
        </span>
      )}
      {status === 'running' ? (
        <button type="button" class="primary" onClick={stop} disabled={stopping}>
          {stopping ? 'Stopping…' : 'Stop'}
        </button>
      ) : (
        <button
          type="button"
          class={status === 'interrupted' ? 'primary' : ''}
          disabled={starting.value !== undefined}
          onClick={() => (status === 'finished' ? setAsks('resume') : resume({}))}
        >
          Resume
        </button>
      )}
      {newest && <ForkButton id={id} step={newest.step} config={reply.config} />}
      <details class="menu">
        <summary>More</summary>
        <div>
          <button
            type="button"
            onClick={() =>
              navigator.clipboard
                .writeText(reply.commandLine)
                .then(() => say('Command line copied'), complain)
            }
          >
            Copy command line
          </button>
          <button
            type="button"
            onClick={() =>
              download(`/api/export?runs=${encodeURIComponent(id)}`, `${id}.html`).catch(complain)
            }
          >
            Save as one HTML file
          </button>
          <button type="button" onClick={archive}>
            {put ? 'Bring back from the archive' : 'Archive'}
          </button>
          <button
            type="button"
            class="danger"
            disabled={status === 'running'}
            onClick={() => setAsks('delete')}
          >
            Delete…
          </button>
        </div>
      </details>
      {asks === 'delete' && (
        <Dialog
          title="Delete this run?"
          confirm="Delete"
          danger
          onClose={() => setAsks(undefined)}
          onConfirm={() => {
            sendJson('DELETE', runPath(id, `?confirm=${encodeURIComponent(id)}`)).then(() => {
              say(`${id} was deleted`)
              go('/runs')
            }, complain)
          }}
        >
          <p>
            <b>{id}</b> goes for good, with its curves, samples and checkpoints. Archiving only takes it off
            the list.
          </p>
        </Dialog>
      )}
      {asks === 'resume' && (
        <SettingsDialog
          title="Train it further"
          confirm="Resume"
          config={reply.config}
          initial={{ steps: String(Number(reply.config['steps'] ?? 0) + 500) }}
          onClose={() => setAsks(undefined)}
          onConfirm={resume}
        />
      )}
    </div>
  )
}

interface ForkButtonProps {
  readonly id: string
  readonly step: number
  readonly config: RunReply['config']
}

export function ForkButton({ id, step, config }: ForkButtonProps): JSX.Element {
  const [open, setOpen] = useState(false)
  const steps = Number(config['steps'] ?? 0)
  const fork = (settings: Settings): void => {
    sendJson<JobReply>('POST', runPath(id, '/fork'), { settings, step }).then(followJob).catch(complain)
  }
  return (
    <>
      <button type="button" onClick={() => setOpen(true)} disabled={starting.value !== undefined}>
        Fork <span class="hidden">from step {step}</span>
      </button>
      {open && (
        <SettingsDialog
          title={`Fork from step ${step}`}
          confirm="Fork"
          config={config}
          initial={steps > step ? {} : { steps: String(step + 500) }}
          onClose={() => setOpen(false)}
          onConfirm={fork}
        />
      )}
    </>
  )
}

interface SettingsDialogProps {
  readonly title: string
  readonly confirm: string
  readonly config: object
  readonly initial: Settings
  readonly onClose: () => void
  readonly onConfirm: (settings: Settings) => void
}

/** Settings to change, as `key=value` lines: what one would type behind the command. */
function SettingsDialog({ title, confirm, initial, onClose, onConfirm }: SettingsDialogProps): JSX.Element {
  const [text, setText] = useState(
    Object.entries(initial)
      .map(([key, value]) => `${key}=${value}`)
      .join('\n'),
  )
  return (
    <Dialog title={title} confirm={confirm} onClose={onClose} onConfirm={() => onConfirm(parseLines(text))}>
      <label class="field">
        Settings to change, one a line
        <textarea
          rows={4}
          spellcheck={false}
          class="code"
          placeholder={'steps=3000\noptim.lr=0.01'}
          value={text}
          onInput={(e) => setText(e.currentTarget.value)}
        />
      </label>
    </Dialog>
  )
}

const parseLines = (text: string): Settings =>
  Object.fromEntries(
    text
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .map((line) => {
        const at = line.indexOf('=')
        return at < 0 ? [line, ''] : [line.slice(0, at).trim(), line.slice(at + 1).trim()]
      }),
  )
