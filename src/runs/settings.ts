/** The configuration of a run as flat settings, each under its dotted key. Pure: terminal, server and page show the same. */

export type Settings = readonly (readonly [key: string, value: unknown])[]

/** `{ model: { width: 64 } }` as `[['model.width', 64]]`, in the order of the configuration. */
export const settingsOf = (config: object, prefix = ''): Settings =>
  Object.entries(config).flatMap(([name, value]: [string, unknown]): Settings =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? settingsOf(value, `${prefix}${name}.`)
      : [[prefix + name, value]],
  )

/** Settings that are not the same in all configurations, with the value in each; undefined where one has no such setting. */
export function differingSettings(
  configs: readonly object[],
): (readonly [key: string, values: readonly unknown[]])[] {
  const flat = configs.map((config) => new Map(settingsOf(config)))
  const keys = new Set(flat.flatMap((settings) => [...settings.keys()]))
  return [...keys]
    .map((key) => [key, flat.map((settings) => settings.get(key))] as const)
    .filter(([, values]) => new Set(values.map((value) => JSON.stringify(value))).size > 1)
}

/** A value as text: strings as they are. */
export const settingText = (value: unknown): string =>
  typeof value === 'string' ? value : (JSON.stringify(value) ?? '')

/** A setting as one types it in a shell. */
export function typedSetting(key: string, value: unknown): string {
  const text = settingText(value)
  return `${key}=${/^[\w./:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`}`
}
