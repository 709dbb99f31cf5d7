/**
 * A report as data, and its two written forms: Markdown and one HTML page that needs nothing else. A study fills in the
 * sections once; the terminal, the repository and a browser show the same sentences and numbers.
 */

export interface Section {
  readonly title: string
  readonly paragraphs?: readonly string[]
  /** First row is the heading. */
  readonly table?: readonly (readonly string[])[]
  /** File name beside the report, and what the picture shows in words. */
  readonly picture?: { readonly file: string; readonly says: string }
}

export interface Report {
  readonly title: string
  /** Makes this report again. */
  readonly commands: readonly string[]
  readonly sections: readonly Section[]
}

export function reportMarkdown({ title, commands, sections }: Report): string {
  const parts = [`# ${title}`, `Made by:`, ['```sh', ...commands, '```'].join('\n')]
  for (const section of sections) {
    parts.push(`## ${section.title}`, ...(section.paragraphs ?? []))
    if (section.picture) parts.push(`![${section.picture.says}](${section.picture.file})`)
    const [heading, ...rows] = section.table ?? []
    if (heading === undefined) continue
    const line = (cells: readonly string[]): string =>
      `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
    parts.push([line(heading), `|${heading.map(() => '---|').join('')}`, ...rows.map(line)].join('\n'))
  }
  return `${parts.join('\n\n')}\n`
}

/** `pictures`: SVG text by file name; they go into the page. */
export function reportHtml(
  { title, commands, sections }: Report,
  pictures: Readonly<Record<string, string>>,
): string {
  const body = sections.map(({ title: heading, paragraphs = [], picture, table = [] }) => {
    const [head, ...rows] = table
    const cells = (row: readonly string[], tag: string): string =>
      `<tr>${row.map((cell) => `<${tag}>${escapeMarkup(cell)}</${tag}>`).join('')}</tr>`
    return [
      `<h2>${escapeMarkup(heading)}</h2>`,
      ...paragraphs.map((text) => `<p>${escapeMarkup(text)}</p>`),
      ...(picture ? [`<figure>${pictures[picture.file] ?? ''}</figure>`] : []),
      ...(head
        ? [
            `<div class="wide"><table><thead>${cells(head, 'th')}</thead>`,
            `<tbody>${rows.map((row) => cells(row, 'td')).join('\n')}</tbody></table></div>`,
          ]
        : []),
    ].join('\n')
  })
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeMarkup(title)}</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8886; vertical-align: top }
figure { margin: 1rem 0 }
svg { max-width: 100%; height: auto }
</style>
</head>
<body>
<h1>${escapeMarkup(title)}</h1>
<p>Made by:</p>
<pre>${escapeMarkup(commands.join('\n'))}</pre>
${body.join('\n')}
</body>
</html>
`
}

export const escapeMarkup = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
