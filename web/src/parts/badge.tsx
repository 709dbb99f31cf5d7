/** Whether what is shown is what is: live, or how long nothing has been heard of the server. */
import type { JSX } from 'preact'
import { silence } from '../data/live.ts'

/** Seconds of silence that are no reason to worry: the server says something every second. */
const patience = 3

export function LiveBadge(): JSX.Element | null {
  const seconds = silence.value
  if (seconds === undefined) return <span class="badge idle" />
  const live = seconds <= patience
  return (
    <span
      class={`badge ${live ? 'live' : 'stale'}`}
      role="status"
      title={live ? 'Figures are as of now' : 'Trying to reach the server'}
    >
      {live ? 'live' : `stale for ${seconds} s`}
    </span>
  )
}
