/** What this machine has and how fast it is: the answer of `anneal doctor`. Measuring takes a few seconds. */
import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { explain, getJson } from '../data/api.ts'

interface Doctor {
  readonly ok: boolean
  readonly findings: readonly {
    readonly name: string
    readonly found: string
    readonly ok: boolean
    readonly fix?: string
  }[]
}

export function Machine(): JSX.Element {
  const [doctor, setDoctor] = useState<Doctor>()
  const [problem, setProblem] = useState<string>()
  useEffect(() => {
    const controller = new AbortController()
    getJson<Doctor>('/api/machine', controller.signal).then(setDoctor, (error: unknown) => {
      if (!controller.signal.aborted) setProblem(explain(error))
    })
    return () => controller.abort()
  }, [])
  return (
    <>
      <div class="heading">
        <h1 tabIndex={-1}>Machine</h1>
      </div>
      {problem !== undefined && <p class="problem">{problem}</p>}
      {doctor === undefined && problem === undefined && (
        <p class="muted loading">Looking at this machine and measuring its peak…</p>
      )}
      {doctor && (
        <section class="card">
          <p class={doctor.ok ? 'verdict' : 'verdict problem'}>
            {doctor.ok ? 'Everything needed to train is here.' : 'Something needed to train is missing.'}
          </p>
          <dl class="facts wide">
            {doctor.findings.map(({ name, found, ok, fix }) => (
              <div key={name} class={ok ? '' : 'bad'}>
                <dt>{name}</dt>
                <dd>
                  {found}
                  {fix !== undefined && <small>{fix}</small>}
                </dd>
              </div>
            ))}
          </dl>
        </section>
      )}
    </>
  )
}
