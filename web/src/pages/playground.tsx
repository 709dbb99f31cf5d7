/**
 * The playground: one prompt to one model, or to two side by side, through the same OpenAI routes that any client uses.
 * With probabilities on, every token is tinted by how likely it was and says so on hover or with the arrow keys.
 */
import type { JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, explain, getJson } from '../data/api.ts'
import { stream } from '../data/openai.ts'
import type { Ask, Model, Token } from '../data/openai.ts'
import { Written } from '../parts/written.tsx'

interface Answer {
  readonly model: string
  readonly tokens: readonly Token[]
  readonly state: 'writing' | 'done' | 'stopped'
  readonly problem?: string
}

export function Playground(): JSX.Element {
  const [models, setModels] = useState<readonly Model[]>()
  const [problem, setProblem] = useState<string>()
  const [chosen, setChosen] = useState<readonly [string, string]>(['', ''])
  const [mode, setMode] = useState<Ask['mode']>('completion')
  const [prompt, setPrompt] = useState('ROMEO:')
  const [temperature, setTemperature] = useState(0.8)
  const [topP, setTopP] = useState(1)
  const [maxTokens, setMaxTokens] = useState(200)
  const [seed, setSeed] = useState('')
  const [probabilities, setProbabilities] = useState(false)
  const [answers, setAnswers] = useState<readonly Answer[]>([])
  const running = useRef<AbortController>(undefined)

  useEffect(() => {
    const load = (): void => {
      getJson<{ readonly data: readonly Model[] }>('/v1/models').then(
        ({ data }) => {
          setModels(data)
          setProblem(undefined)
          setChosen(([a, b]) => [a || (data[0]?.id ?? ''), b])
        },
        (error: unknown) =>
          setProblem(
            error instanceof ApiError && error.status === 404
              ? 'This server serves no models.'
              : explain(error),
          ),
      )
    }
    load()
    // A run's first checkpoint makes it a model.
    const timer = setInterval(load, 5000)
    return () => {
      clearInterval(timer)
      running.current?.abort()
    }
  }, [])

  const writing = answers.some(({ state }) => state === 'writing')
  const ask = (event: Event): void => {
    event.preventDefault()
    running.current?.abort()
    const controller = new AbortController()
    running.current = controller
    const asked = chosen.filter((model) => model !== '')
    setAnswers(asked.map((model) => ({ model, tokens: [], state: 'writing' })))
    for (const [i, model] of asked.entries()) {
      const update = (change: (answer: Answer) => Answer): void => {
        if (running.current === controller)
          setAnswers((all) => all.map((answer, place) => (place === i ? change(answer) : answer)))
      }
      const request: Ask = {
        model,
        mode,
        prompt,
        temperature,
        topP,
        maxTokens,
        probabilities,
        seed: seed.trim() === '' ? undefined : Number(seed),
      }
      stream(
        request,
        (tokens) => update((a) => ({ ...a, tokens: [...a.tokens, ...tokens] })),
        controller.signal,
      ).then(
        () => update((a) => ({ ...a, state: 'done' })),
        (error: unknown) =>
          update((a) =>
            controller.signal.aborted
              ? { ...a, state: 'stopped' }
              : { ...a, state: 'done', problem: explain(error) },
          ),
      )
    }
  }
  const stop = (): void => {
    running.current?.abort()
    setAnswers((all) => all.map((answer) => ({ ...answer, state: 'stopped' })))
  }

  if (models === undefined || models.length === 0) {
    return (
      <section class="empty">
        <h1 tabIndex={-1}>Playground</h1>
        {problem !== undefined ? (
          <p class="problem">{problem}</p>
        ) : models === undefined ? (
          <p class="muted loading">Looking for models…</p>
        ) : (
          <>
            <p>No run has a checkpoint yet. The first one to save becomes a model that answers here.</p>
            <a class="button primary" href="/new">
              Train one
            </a>
          </>
        )}
      </section>
    )
  }
  return (
    <>
      <div class="heading">
        <h1 tabIndex={-1}>Playground</h1>
        <div class="segmented" role="group" aria-label="Mode">
          {(['completion', 'chat'] as const).map((name) => (
            <button key={name} type="button" aria-pressed={mode === name} onClick={() => setMode(name)}>
              {name === 'chat' ? 'Chat' : 'Completion'}
            </button>
          ))}
        </div>
      </div>
      <form class="playground" onSubmit={ask}>
        <div class="ask">
          <label class="field">
            {mode === 'chat' ? 'Message' : 'Text to go on from'}
            <textarea
              rows={4}
              value={prompt}
              onInput={(e) => setPrompt(e.currentTarget.value)}
              onKeyDown={(e) => {
                if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) ask(e)
              }}
            />
          </label>
          <div class="buttons">
            <button type="submit" class="primary" disabled={prompt === ''}>
              {mode === 'chat' ? 'Send' : 'Write'}
            </button>
            <button type="button" onClick={stop} disabled={!writing}>
              Stop
            </button>
            <small class="muted keys">Ctrl + Enter</small>
          </div>
          <div class={`answers ${answers.length > 1 ? 'two' : ''}`}>
            {answers.map((answer, i) => (
              <section key={i} class="card" aria-busy={answer.state === 'writing'}>
                {answers.length > 1 && <h2>{answer.model}</h2>}
                <Written
                  prompt={mode === 'completion' ? prompt : ''}
                  tokens={answer.tokens}
                  writing={answer.state === 'writing'}
                />
                {answer.problem !== undefined && <p class="problem">{answer.problem}</p>}
              </section>
            ))}
          </div>
        </div>
        <aside class="card parameters" aria-label="Parameters">
          <ModelChoice
            label="Model"
            models={models}
            value={chosen[0]}
            onChange={(id) => setChosen([id, chosen[1]])}
          />
          <ModelChoice
            label="Beside it"
            models={models}
            optional
            value={chosen[1]}
            onChange={(id) => setChosen([chosen[0], id])}
          />
          <Slider label="Temperature" value={temperature} most={2} onChange={setTemperature} />
          <Slider label="Top p" value={topP} most={1} onChange={setTopP} />
          <label class="field">
            Most tokens
            <input
              type="number"
              min="1"
              max="4096"
              value={maxTokens}
              onInput={(e) => setMaxTokens(Math.max(1, Number(e.currentTarget.value)))}
            />
          </label>
          <label class="field">
            Seed
            <input
              inputMode="numeric"
              pattern="\d*"
              placeholder="random"
              value={seed}
              onInput={(e) => setSeed(e.currentTarget.value)}
            />
          </label>
          <label class="check">
            <input
              type="checkbox"
              checked={probabilities}
              onChange={(e) => setProbabilities(e.currentTarget.checked)}
            />
            Token probabilities
          </label>
        </aside>
      </form>
    </>
  )
}

interface ModelChoiceProps {
  readonly label: string
  readonly models: readonly Model[]
  readonly value: string
  readonly optional?: boolean
  readonly onChange: (id: string) => void
}

function ModelChoice({ label, models, value, optional, onChange }: ModelChoiceProps): JSX.Element {
  return (
    <label class="field">
      {label}
      <select value={value} onChange={(e) => onChange(e.currentTarget.value)}>
        {optional && <option value="">none</option>}
        {models.map(({ id }) => (
          <option key={id} value={id}>
            {id}
          </option>
        ))}
      </select>
    </label>
  )
}

interface SliderProps {
  readonly label: string
  readonly value: number
  readonly most: number
  readonly onChange: (value: number) => void
}

function Slider({ label, value, most, onChange }: SliderProps): JSX.Element {
  return (
    <label class="slider stacked">
      <span>{label}</span>
      <output class="number">{value.toFixed(2)}</output>
      <input
        type="range"
        min="0"
        max={most}
        step="0.05"
        value={value}
        onInput={(e) => onChange(Number(e.currentTarget.value))}
      />
    </label>
  )
}
