/** What the model wrote, by step: a slider through time. It stays at the newest until somebody moves it. */
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import type { SampleLine } from '../../../src/runs/index.ts'

export function Samples({ samples }: { readonly samples: readonly SampleLine[] }): JSX.Element {
  const [chosen, setChosen] = useState<number>()
  const place = Math.min(chosen ?? samples.length - 1, samples.length - 1)
  const sample = samples[place]
  return (
    <section class="card samples" aria-label="Samples">
      <div class="heading">
        <h2>Samples</h2>
        {samples.length > 1 && (
          <label class="slider">
            Step
            <input
              type="range"
              min="0"
              max={samples.length - 1}
              value={place}
              aria-valuetext={`step ${sample?.step ?? 0}`}
              onInput={(e) => {
                const next = Number(e.currentTarget.value)
                setChosen(next === samples.length - 1 ? undefined : next)
              }}
            />
            <output class="number">{sample?.step}</output>
          </label>
        )}
        {samples.length === 1 && <span class="muted">step {sample?.step}</span>}
      </div>
      {sample === undefined ? (
        <p class="muted">The model has written nothing yet.</p>
      ) : (
        <blockquote class="written">
          <span class="prompt">{sample.prompt}</span>
          {sample.text}
        </blockquote>
      )}
    </section>
  )
}
