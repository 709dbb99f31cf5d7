/** A configuration as groups of settings. With several runs only what differs among them. */
import type { JSX } from 'preact'
import { settingsOf, settingText } from '../../../src/runs/settings.ts'

export function Settings({ config }: { readonly config: object }): JSX.Element {
  const groups = new Map<string, [string, string][]>()
  for (const [key, given] of settingsOf(config)) {
    const value = settingText(given)
    const group = key.includes('.') ? key.slice(0, key.indexOf('.')) : 'run'
    const name = key.includes('.') ? key.slice(key.indexOf('.') + 1) : key
    groups.set(group, [...(groups.get(group) ?? []), [name, value]])
  }
  return (
    <div class="settings">
      {[...groups].map(([group, rows]) => (
        <section key={group}>
          <h3>{group}</h3>
          <dl class="facts narrow">
            {rows.map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value.trim() === '' ? JSON.stringify(value) : value}</dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
    </div>
  )
}
