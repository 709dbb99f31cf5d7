/**
 * Addresses of the page. The path names what is shown, so that it can be bookmarked and the Back button works; links are
 * plain `<a href>`, taken over here when they stay inside.
 */
import { computed, signal } from '@preact/signals'

export const address = signal(location.pathname + location.search)

/** The parts of the path, decoded: `/runs/abc` -> `['runs', 'abc']`. */
export const path = computed(() => {
  const [pathname = ''] = address.value.split('?')
  return pathname.split('/').filter(Boolean).map(decode)
})

export const query = computed(() => new URLSearchParams(address.value.split('?')[1] ?? ''))

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** Shows another address. */
export function go(to: string, { replace = false } = {}): void {
  if (to === address.value) return
  history[replace ? 'replaceState' : 'pushState'](null, '', to)
  const samePage = to.split('?')[0] === address.value.split('?')[0]
  address.value = to
  if (samePage) return
  scrollTo(0, 0)
  // A screen reader goes on from the new page's heading.
  requestAnimationFrame(() => document.querySelector<HTMLElement>('main h1')?.focus())
}

export const runAddress = (id: string): string => `/runs/${encodeURIComponent(id)}`

/** Begins to listen for clicks and for Back. */
export function startRouter(): void {
  addEventListener('popstate', () => (address.value = location.pathname + location.search))
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey)
      return
    const link = (event.target as Element).closest('a')
    if (!link || link.target || link.origin !== location.origin || link.hasAttribute('download')) return
    if (link.getAttribute('href')?.startsWith('#')) return
    event.preventDefault()
    go(link.pathname + link.search)
  })
}
