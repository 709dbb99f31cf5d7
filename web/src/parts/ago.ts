/** How long ago something was, in words. */
const units = [
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
] as const

const words = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })

export function ago(time: string): string {
  const seconds = (Date.now() - Date.parse(time)) / 1000
  if (!Number.isFinite(seconds)) return ''
  const unit = units.find(([, length]) => seconds >= length)
  return unit === undefined ? 'just now' : words.format(-Math.floor(seconds / unit[1]), unit[0])
}
