/** The pictures in docs are what the schedules and the simulator give now. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { imageFolder, pictures } from './pictures.ts'

test('the pictures of docs/parallel-schedules.md are up to date', () => {
  const guide = readFileSync(new URL('../parallel-schedules.md', imageFolder), 'utf8')
  for (const [file, svg] of Object.entries(pictures())) {
    assert.equal(
      readFileSync(new URL(file, imageFolder), 'utf8'),
      svg,
      `${file}: run node src/parallel/pictures.ts`,
    )
    assert.ok(guide.includes(`images/${file}`), `${file} is shown nowhere`)
  }
})
