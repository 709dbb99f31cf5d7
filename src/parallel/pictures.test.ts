/** The pictures in docs are what the schedules and the simulator give now. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { imageFolder, pictures } from './pictures.ts'

test('the pictures of the guides are up to date', () => {
  const guides = ['parallel.md', 'parallel-schedules.md']
    .map((name) => readFileSync(new URL(`../${name}`, imageFolder), 'utf8'))
    .join('\n')
  for (const [file, svg] of Object.entries(pictures())) {
    assert.equal(
      readFileSync(new URL(file, imageFolder), 'utf8'),
      svg,
      `${file}: run node src/parallel/pictures.ts`,
    )
    assert.ok(guides.includes(`images/${file}`), `${file} is shown nowhere`)
  }
})
