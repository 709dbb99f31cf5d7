/** Text as it comes from a model. Where probabilities are known each token can be looked at: by pointer or arrow keys. */
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import type { Token } from '../data/openai.ts'

interface WrittenProps {
  readonly prompt: string
  readonly tokens: readonly Token[]
  readonly writing: boolean
}

export function Written({ prompt, tokens, writing }: WrittenProps): JSX.Element {
  const [at, setAt] = useState<number>()
  const tinted = tokens.some(({ probability }) => probability !== undefined)
  const looked = at === undefined ? undefined : tokens[at]
  const step = (event: KeyboardEvent): void => {
    const by = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0
    if (by === 0 || !tinted) return
    event.preventDefault()
    setAt(Math.max(0, Math.min(tokens.length - 1, (at ?? -1) + by)))
  }
  return (
    <>
      <div
        class="written"
        tabIndex={0}
        role="group"
        aria-label={
          tinted ? 'What the model wrote. Arrow keys go through its tokens' : 'What the model wrote'
        }
        onKeyDown={step}
        onPointerLeave={() => setAt(undefined)}
      >
        {prompt !== '' && <span class="prompt">{prompt}</span>}
        {tinted
          ? tokens.map((token, i) => (
              <span
                key={i}
                class={`token level-${level(token.probability)} ${i === at ? 'looked' : ''}`}
                onPointerEnter={() => setAt(i)}
              >
                {token.text}
              </span>
            ))
          : tokens.map(({ text }) => text).join('')}
        {writing && <span class="caret" aria-hidden="true" />}
      </div>
      {tinted && (
        <div class="alternatives" aria-live="polite">
          {looked === undefined ? (
            <span class="muted">Point at a token for its probability</span>
          ) : (
            <>
              <b>{show(looked.text)}</b> {percent(looked.probability)}
              {looked.alternatives.map(({ text, probability }) => (
                <span key={text} class="alternative">
                  {show(text)} <small>{percent(probability)}</small>
                </span>
              ))}
            </>
          )}
        </div>
      )}
    </>
  )
}

/** 0 (sure) to 4 (a surprise): the tint. */
function level(probability: number | undefined): number {
  if (probability === undefined) return 0
  return [0.8, 0.4, 0.15, 0.04].filter((bound) => probability < bound).length
}

const percent = (probability: number | undefined): string =>
  probability === undefined ? '' : `${(probability * 100).toFixed(probability < 0.1 ? 1 : 0)} %`

/** White space made visible. */
const show = (text: string): string => (text === '\n' ? '↵' : text === ' ' ? '␣' : text.replaceAll('\n', '↵'))
