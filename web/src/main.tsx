/** The page's frame: navigation, the badge that says whether figures are live, and the page that the address names. */
import { render } from 'preact'
import type { JSX } from 'preact'
import { useEffect } from 'preact/hooks'
import 'uplot/dist/uPlot.min.css'
import './style.css'
import { LiveBadge } from './parts/badge.tsx'
import { AskKey } from './parts/key.tsx'
import { Notices } from './parts/notice.tsx'
import { ThemeButton } from './parts/theme.tsx'
import { embedded } from './data/embedded.ts'
import type { Embedded } from './data/embedded.ts'
import { Compare, Comparison } from './pages/compare.tsx'
import { Machine } from './pages/machine.tsx'
import { NewRun } from './pages/new-run.tsx'
import { Playground } from './pages/playground.tsx'
import { RunPage } from './pages/run.tsx'
import { Runs } from './pages/runs.tsx'
import { path, startRouter } from './router.ts'

const places = [
  ['/runs', 'Runs'],
  ['/new', 'New run'],
  ['/playground', 'Playground'],
  ['/machine', 'Machine'],
] as const

function Page(): JSX.Element {
  const [place = 'runs', id] = path.value
  if (place === 'runs') return id === undefined ? <Runs /> : <RunPage key={id} id={id} />
  if (place === 'compare') return <Compare />
  if (place === 'new') return <NewRun />
  if (place === 'playground') return <Playground />
  if (place === 'machine') return <Machine />
  return (
    <section class="empty">
      <h1 tabIndex={-1}>Nothing here</h1>
      <p>
        This address names no page. <a href="/runs">See all runs</a>
      </p>
    </section>
  )
}

/** The page of a file: its runs and nothing that needs a server. */
function Saved({ saved, runs }: Embedded): JSX.Element {
  const [first] = runs
  return (
    <>
      <header class="top">
        <span class="brand">anneal</span>
        <span class="muted">as of {new Date(saved).toLocaleString()}</span>
        <ThemeButton />
      </header>
      <main id="main">
        {runs.length === 1 && first ? (
          <RunPage id={first.reply.summary.id} />
        ) : (
          <Comparison ids={runs.map(({ reply }) => reply.summary.id)} />
        )}
      </main>
    </>
  )
}

function App(): JSX.Element {
  const [place = 'runs', id] = path.value
  useEffect(() => {
    const name = id ?? places.find(([href]) => href === `/${place}`)?.[1] ?? 'Compare'
    document.title = `${name} · Anneal`
  }, [place, id])
  const current = place === 'compare' ? 'runs' : place
  return (
    <>
      <a class="skip" href="#main">
        Skip to content
      </a>
      <header class="top">
        <a class="brand" href="/runs">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M3 7c5 0 6 17 12 17S22 19 29 19" />
          </svg>
          <span>anneal</span>
        </a>
        <nav aria-label="Pages">
          {places.map(([href, name]) => (
            <a key={href} href={href} aria-current={href === `/${current}` ? 'page' : undefined}>
              {name}
            </a>
          ))}
        </nav>
        <LiveBadge />
        <ThemeButton />
      </header>
      <main id="main">
        <Page />
      </main>
      <Notices />
      <AskKey />
    </>
  )
}

if (!embedded) startRouter()
render(embedded ? <Saved {...embedded} /> : <App />, document.getElementById('app')!)
