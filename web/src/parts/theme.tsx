/** Light, dark, or as the system has it. Kept by the browser; `theme` changes when charts must be drawn anew. */
import { effect, signal } from '@preact/signals'
import type { JSX } from 'preact'

const system = matchMedia('(prefers-color-scheme: dark)')
const stored = localStorage.getItem('theme')
const chosen = signal<'light' | 'dark' | undefined>(
  stored === 'light' || stored === 'dark' ? stored : undefined,
)
const systemDark = signal(system.matches)
system.addEventListener('change', () => (systemDark.value = system.matches))

/** What is shown now. */
export const theme = signal<'light' | 'dark'>('light')

effect(() => {
  const next = chosen.value ?? (systemDark.value ? 'dark' : 'light')
  document.documentElement.dataset['theme'] = next
  theme.value = next
})

export function ThemeButton(): JSX.Element {
  const next = theme.value === 'dark' ? 'light' : 'dark'
  const change = (): void => {
    chosen.value = next
    localStorage.setItem('theme', next)
  }
  return (
    <button
      class="icon"
      type="button"
      onClick={change}
      aria-label={`Switch to ${next} colours`}
      title={`Switch to ${next} colours`}
    >
      <svg viewBox="0 0 24 24" aria-hidden="true">
        {next === 'dark' ? (
          <path d="M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.500 10.500Z" />
        ) : (
          <path d="M12 4V2m0 20v-2m8-8h2M2 12h2m13.700-5.700 1.400-1.400M4.900 19.100l1.400-1.400m0-11.400L4.900 4.900m14.200 14.200-1.400-1.400M12 16.500a4.500 4.500 0 1 0 0-9 4.500 4.500 0 0 0 0 9Z" />
        )}
      </svg>
    </button>
  )
}
