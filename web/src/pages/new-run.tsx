/**
 * A new run: a form made of the recipe's schema, where empty means the default, and beside it the plan for what is typed:
 * the same compiled plan that `--dry-run` prints, asked for again after every change.
 */
import type { JSX } from 'preact'
import { useEffect, useMemo, useState } from 'preact/hooks'
import type { LabRecipe } from '../../../src/lab/options.ts'
import type { JobReply, Settings } from '../../../src/lab/wire.ts'
import { settingsOf, settingText, typedSetting } from '../../../src/runs/settings.ts'
import { ApiError, explain, getJson, sendJson } from '../data/api.ts'
import { fieldsOf } from '../data/schema.ts'
import type { Field } from '../data/schema.ts'
import { formatBytes, formatCount, formatDuration, formatFlops } from '../data/shared.ts'
import { DropData } from '../parts/drop-data.tsx'
import { complain } from '../parts/notice.tsx'
import { followJob, starting } from '../parts/run-actions.tsx'

interface Recipes {
  readonly recipes: readonly LabRecipe[]
  readonly self: string
}

interface PlanReply {
  readonly config: object
  readonly plan: Readonly<Record<string, number>> & { readonly cached: boolean }
}

export function NewRun(): JSX.Element {
  const [known, setKnown] = useState<Recipes>()
  const [problem, setProblem] = useState<string>()
  const [name, setName] = useState<string>()
  useEffect(() => {
    getJson<Recipes>('/api/recipes').then(setKnown, (error: unknown) => setProblem(explain(error)))
  }, [])
  const recipe = known?.recipes.find((one) => one.name === name) ?? known?.recipes[0]
  return (
    <>
      <div class="heading">
        <h1 tabIndex={-1}>New run</h1>
        {known && known.recipes.length > 1 && (
          <select aria-label="Recipe" value={recipe?.name} onChange={(e) => setName(e.currentTarget.value)}>
            {known.recipes.map((one) => (
              <option key={one.name}>{one.name}</option>
            ))}
          </select>
        )}
      </div>
      {problem !== undefined && <p class="problem">{problem}</p>}
      {recipe && known && <Form key={recipe.name} recipe={recipe} self={known.self} />}
    </>
  )
}

/** The settings of the first group are open; the others show how many of theirs were changed. */
function Form({ recipe, self }: { readonly recipe: LabRecipe; readonly self: string }): JSX.Element {
  const fields = useMemo(() => fieldsOf(recipe.schema), [recipe])
  const groups = [...new Set(fields.map(({ group }) => group))]
  const [settings, setSettings] = useState<Settings>({})
  const [filter, setFilter] = useState('')
  const { reply, problem, wrong, waiting } = usePlan(recipe.name, settings)
  const defaults = useMemo(
    () =>
      new Map(settingsOf(reply?.config ?? recipe.defaults).map(([key, value]) => [key, settingText(value)])),
    [reply, recipe],
  )
  const set = (key: string, value: string): void => {
    const { [key]: _, ...others } = settings
    setSettings(value === '' ? others : { ...others, [key]: value })
  }
  const start = (event: Event): void => {
    event.preventDefault()
    sendJson<JobReply>('POST', '/api/runs', { recipe: recipe.name, settings }).then(followJob).catch(complain)
  }
  const shown = (field: Field): boolean =>
    `${field.key} ${field.help}`.toLowerCase().includes(filter.toLowerCase())
  const words = Object.entries(settings).map(([key, value]) => ` ${typedSetting(key, value)}`)
  return (
    <form class="new-run" onSubmit={start}>
      <div class="fields">
        <label class="field">
          <span class="hidden">Find a setting</span>
          <input
            type="search"
            placeholder="Find a setting"
            value={filter}
            onInput={(e) => setFilter(e.currentTarget.value)}
          />
        </label>
        {groups.map((group, i) => {
          const own = fields.filter((field) => field.group === group && shown(field))
          const changed = own.filter(({ key }) => settings[key] !== undefined).length
          if (own.length === 0) return null
          return (
            <details key={group} class="fold" open={i === 0 || filter !== '' || changed > 0}>
              <summary>
                <h2>{group}</h2>
                {changed > 0 && <span class="tag">{changed} changed</span>}
              </summary>
              <div class="grid">
                {own.map((field) => (
                  <Input
                    key={field.key}
                    field={field}
                    value={settings[field.key] ?? ''}
                    fallback={defaults.get(field.key) ?? ''}
                    wrong={wrong === field.key ? problem : undefined}
                    onChange={(value) => set(field.key, value)}
                  />
                ))}
              </div>
            </details>
          )
        })}
        {fields.some(({ key }) => key === 'data') && <DropData onStored={(folder) => set('data', folder)} />}
      </div>
      <aside class="card plan" aria-label="Plan" aria-busy={waiting}>
        <h2>Plan {waiting && <small class="muted loading">working it out…</small>}</h2>
        {problem !== undefined && <p class="problem">{problem}</p>}
        {reply && <PlanFacts plan={reply.plan} stale={waiting || problem !== undefined} />}
        <pre class="code command" tabIndex={0} aria-label="Command line">
          {self} train {recipe.name}
          {words.join('')}
        </pre>
        <button
          type="submit"
          class="primary wide"
          disabled={starting.value !== undefined || problem !== undefined}
        >
          {starting.value === undefined ? 'Start training' : 'Starting…'}
        </button>
        {starting.value !== undefined && (
          <p class="muted" role="status">
            {starting.value}
          </p>
        )}
      </aside>
    </form>
  )
}

/** The plan for some settings, a moment after the last change. */
function usePlan(
  recipe: string,
  settings: Settings,
): {
  readonly reply: PlanReply | undefined
  readonly problem: string | undefined
  readonly wrong: string | undefined
  readonly waiting: boolean
} {
  const [reply, setReply] = useState<PlanReply>()
  const [error, setError] = useState<unknown>()
  const [waiting, setWaiting] = useState(true)
  useEffect(() => {
    const controller = new AbortController()
    setWaiting(true)
    const timer = setTimeout(() => {
      sendJson<PlanReply>('POST', '/api/plan', { recipe, settings }, controller.signal).then(
        (next) => {
          setReply(next)
          setError(undefined)
          setWaiting(false)
        },
        (failed: unknown) => {
          if (controller.signal.aborted) return
          setError(failed)
          setWaiting(false)
        },
      )
    }, 350)
    return () => {
      clearTimeout(timer)
      controller.abort()
    }
  }, [recipe, settings])
  return {
    reply,
    problem: error === undefined ? undefined : explain(error),
    wrong: error instanceof ApiError ? error.detail.where : undefined,
    waiting,
  }
}

function PlanFacts({
  plan,
  stale,
}: {
  readonly plan: PlanReply['plan']
  readonly stale: boolean
}): JSX.Element {
  const rows: readonly (readonly [string, string])[] = [
    ['parameters', formatCount(plan['parameters'] ?? 0)],
    ['steps', String(plan['steps'])],
    ['tokens', formatCount(plan['tokens'] ?? 0)],
    ['compute', formatFlops(plan['flops'] ?? 0)],
    ['memory of a step', formatBytes(plan['arenaBytes'] ?? 0)],
    ['memory in all', formatBytes(plan['processBytes'] ?? 0)],
    ['expected time', formatDuration(plan['etaSeconds'] ?? Number.NaN)],
  ]
  return (
    <dl class={`facts ${stale ? 'old' : ''}`}>
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd class="number">{value}</dd>
        </div>
      ))}
    </dl>
  )
}

interface InputProps {
  readonly field: Field
  readonly value: string
  readonly fallback: string
  readonly wrong: string | undefined
  readonly onChange: (value: string) => void
}

function Input({ field, value, fallback, wrong, onChange }: InputProps): JSX.Element {
  const { key, name, help, kind, options, least } = field
  const id = `setting-${key}`
  const common = {
    id,
    'aria-describedby': help === '' ? undefined : `${id}-help`,
    'aria-invalid': wrong !== undefined,
  }
  return (
    <div class={`setting ${value === '' ? '' : 'changed'}`}>
      <label for={id}>{name}</label>
      {kind === 'choice' || kind === 'switch' ? (
        <select {...common} value={value} onChange={(e) => onChange(e.currentTarget.value)}>
          <option value="">{fallback}</option>
          {options
            .filter((option) => option !== fallback)
            .map((option) => (
              <option key={option}>{option}</option>
            ))}
          {value !== '' && value === fallback && <option>{value}</option>}
        </select>
      ) : (
        <input
          {...common}
          inputMode={kind === 'number' ? 'decimal' : 'text'}
          placeholder={fallback.trim() === '' ? JSON.stringify(fallback) : fallback}
          title={least === undefined ? undefined : `at least ${least}`}
          value={value}
          spellcheck={false}
          autocomplete="off"
          onInput={(e) => onChange(e.currentTarget.value)}
        />
      )}
      {help !== '' && <small id={`${id}-help`}>{help}</small>}
    </div>
  )
}
