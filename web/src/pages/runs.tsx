/** All runs in one table, live: search, choose some to compare. Rows beyond the first hundreds come when asked for. */
import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useEffect, useMemo, useState } from 'preact/hooks'
import type { ListEvents, RunsReply } from '../../../src/lab/wire.ts'
import { searchRuns } from '../../../src/runs/query.ts'
import { follow } from '../data/live.ts'
import type { RunSummary } from '../data/shared.ts'
import { formatDuration, formatFlops, formatMetric } from '../data/shared.ts'
import { go, query, runAddress } from '../router.ts'
import { Progress, Status, stepsOf } from '../parts/status.tsx'
import { ago } from '../parts/ago.ts'

const runs = signal<readonly RunSummary[] | undefined>(undefined)
const skipped = signal<RunsReply['skipped']>([])
const chosen = signal<readonly string[]>([])
const mostCompared = 10
const rowsAtOnce = 200

export function Runs(): JSX.Element {
  useEffect(() => follow(() => '/api/events', { runs: (data) => take(data as ListEvents['runs']) }), [])
  const text = query.value.get('query') ?? ''
  const [most, setMost] = useState(rowsAtOnce)
  const all = runs.value
  const { found, problem } = useMemo(() => search(all ?? [], text), [all, text])
  return (
    <>
      <div class="heading">
        <h1 tabIndex={-1}>Runs</h1>
        <div class="buttons">
          <button
            type="button"
            disabled={chosen.value.length < 2}
            onClick={() => go(`/compare?runs=${chosen.value.map(encodeURIComponent).join(',')}`)}
          >
            Compare{chosen.value.length > 0 ? ` ${chosen.value.length}` : ''}
          </button>
          <a class="button primary" href="/new">
            New run
          </a>
        </div>
      </div>
      <search>
        <label class="field">
          <span class="hidden">Search runs</span>
          <input
            type="search"
            value={text}
            placeholder="Search, or filter: status=running  loss<1.6  model.width>=128  tag=good  sort=-created"
            spellcheck={false}
            aria-invalid={problem !== undefined}
            aria-describedby={problem === undefined ? undefined : 'query-problem'}
            onInput={(e) => {
              const { value } = e.currentTarget
              go(value === '' ? '/runs' : `/runs?query=${encodeURIComponent(value)}`, { replace: true })
            }}
          />
        </label>
        {problem !== undefined && (
          <p id="query-problem" class="problem">
            {problem}
          </p>
        )}
      </search>
      {all === undefined ? (
        <p class="muted loading">Reading the runs folder…</p>
      ) : all.length === 0 ? (
        <NoRuns />
      ) : found.length === 0 && problem === undefined ? (
        <p class="empty">No run fits this search.</p>
      ) : (
        <Table rows={found.slice(0, most)} />
      )}
      {found.length > most && (
        <button type="button" class="quiet" onClick={() => setMost(most + 1000)}>
          Show {Math.min(1000, found.length - most)} more of {found.length}
        </button>
      )}
      {skipped.value.length > 0 && (
        <details class="skipped">
          <summary>
            {skipped.value.length} {skipped.value.length === 1 ? 'thing' : 'things'} in this folder passed
            over
          </summary>
          <ul>
            {skipped.value.slice(0, 100).map(({ name, reason }) => (
              <li key={name}>
                <code>{name}</code> {reason}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  )
}

function take({ changed, gone, skipped: others }: ListEvents['runs']): void {
  const byId = new Map((runs.value ?? []).map((run) => [run.id, run]))
  for (const id of gone) byId.delete(id)
  for (const run of changed) byId.set(run.id, run)
  runs.value = [...byId.values()].toSorted(
    (a, b) => b.created.localeCompare(a.created) || a.id.localeCompare(b.id),
  )
  skipped.value = others
  chosen.value = chosen.value.filter((id) => byId.has(id))
}

/** While a query is being typed it is often unfinished: then everything stays, with the reason. */
function search(
  all: readonly RunSummary[],
  text: string,
): { readonly found: readonly RunSummary[]; readonly problem?: string } {
  try {
    return { found: searchRuns(all, text) }
  } catch (error) {
    return { found: all, problem: (error as Error).message }
  }
}

function NoRuns(): JSX.Element {
  return (
    <section class="empty">
      <h2>No runs yet</h2>
      <p>Train a small language model on Shakespeare in a few minutes and watch it learn.</p>
      <a class="button primary" href="/new">
        Start the first run
      </a>
    </section>
  )
}

function Table({ rows }: { readonly rows: readonly RunSummary[] }): JSX.Element {
  return (
    <div class="scroll">
      <table class="runs">
        <thead>
          <tr>
            <th scope="col">
              <span class="hidden">Compare</span>
            </th>
            <th scope="col">Run</th>
            <th scope="col">Status</th>
            <th scope="col">Step</th>
            <th scope="col" class="right">
              Loss
            </th>
            <th scope="col" class="right">
              Validation <small>(best)</small>
            </th>
            <th scope="col" class="right">
              Compute
            </th>
            <th scope="col" class="right">
              Time
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((run) => (
            <Row key={run.id} run={run} />
          ))}
        </tbody>
      </table>
    </div>
  )
}

function Row({ run }: { readonly run: RunSummary }): JSX.Element {
  const { loss, validationLoss } = run.metrics
  const checked = chosen.value.includes(run.id)
  return (
    <tr>
      <td>
        <input
          type="checkbox"
          aria-label={`Compare ${run.id}`}
          checked={checked}
          disabled={!checked && chosen.value.length >= mostCompared}
          onChange={() => {
            chosen.value = checked ? chosen.value.filter((id) => id !== run.id) : [...chosen.value, run.id]
          }}
        />
      </td>
      <th scope="row">
        <div>
          <a href={runAddress(run.id)}>{run.id}</a>
          <span class="tags">
            {run.tags.map((tag) => (
              <a key={tag} class="tag" href={`/runs?query=${encodeURIComponent(`tag="${tag}"`)}`}>
                {tag}
              </a>
            ))}
            {run.archived && <span class="tag">archived</span>}
          </span>
          <small class="muted">{ago(run.created)}</small>
        </div>
      </th>
      <td>
        <Status status={run.status} />
      </td>
      <td>
        <Progress step={run.step} steps={stepsOf(run.config)} />
      </td>
      <td class="right number">{loss ? formatMetric(Number(loss.last.value)) : '–'}</td>
      <td class="right number">
        {validationLoss ? formatMetric(Number(validationLoss.last.value)) : '–'}{' '}
        {validationLoss?.min && <small class="muted">({formatMetric(validationLoss.min.value)})</small>}
      </td>
      <td class="right number">{formatFlops(run.flops)}</td>
      <td class="right number">{formatDuration(run.seconds)}</td>
    </tr>
  )
}
