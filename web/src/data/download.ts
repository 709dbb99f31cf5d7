/** Saves what an address gives as a file; a plain link could send no key. */
import { request } from './api.ts'

export async function download(path: string, name: string): Promise<void> {
  const blob = await (await request(path)).blob()
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  URL.revokeObjectURL(link.href)
}
