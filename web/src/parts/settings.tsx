/** A configuration as groups of settings. With several runs only what differs among them. */
import type { JSX } from 'preact'

export type Flat = ReadonlyMap<string, string>

/** Every setting under its dotted key, as text. */
export function flatten(config: object, prefix = ''): Map<string, string> {
  const flat = new Map<string, string>()
  for (const [key, value] of Object.entries(config)) {
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      for (const [inner, text] of flatten(value, `${prefix}${key}.`)) flat.set(inner, text)
    else flat.set(prefix + key, typeof value === 'string' ? value : (JSON.stringify(value) ?? ''))
  }
  return flat
}

export function Settings({ config }: { readonly config: object }): JSX.Element {
  const groups = new Map<string, [string, string][]>()
  for (const [key, value] of flatten(config)) {
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
