/** The page pool against a model of it: nothing is lost or given twice, and a page is found only by its whole past. */
import fc from 'fast-check'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PagePool, type Held } from './pages.ts'

const text = (length: number, seed = 0): number[] => Array.from({ length }, (_, i) => (i * 5 + seed) % 11)

function read(pool: PagePool, tokens: readonly number[], most = tokens.length): Held {
  const held = pool.admit(tokens, most)
  assert.ok(held)
  pool.grow(held, tokens.length)
  pool.publish(held, tokens, tokens.length)
  return held
}

test('a text that begins like an earlier one takes its full pages, but for the last token', () => {
  const pool = new PagePool(20, 8)
  const first = read(pool, text(30))
  assert.equal(first.pages.length, 4)
  const pages = [...first.pages]
  pool.release(first)
  assert.equal(pool.used, 0)
  assert.deepEqual(pool.admit(text(30), 30)!.pages, pages.slice(0, 3))
  // The last token must be read, even where its page is known.
  assert.deepEqual(pool.admit(text(24), 24)!.pages, pages.slice(0, 2))
  // The same tokens after another beginning are another content.
  assert.deepEqual(pool.admit([...text(8, 1), ...text(30).slice(8)], 30)!.pages, [])
  assert.deepEqual(pool.admit(text(30), 30, false)!.pages, [])
})

test('two that read the same at once keep their own pages, and one of them is found', () => {
  const pool = new PagePool(20, 8)
  const [one, other] = [pool.admit(text(16), 16)!, pool.admit(text(16), 16)!]
  for (const held of [one, other]) pool.grow(held, 16)
  for (const held of [one, other]) pool.publish(held, text(16), 16)
  const page = one.pages[0]
  pool.release(other)
  pool.release(one)
  assert.deepEqual(pool.admit(text(9), 9)!.pages, [page])
})

test('nobody is let in beyond what is there; what is not used any more makes room', () => {
  const pool = new PagePool(4, 8)
  const first = pool.admit(text(8), 24)!
  assert.equal(pool.admit(text(8, 3), 16), undefined)
  pool.grow(first, 24)
  pool.publish(first, text(24), 24)
  pool.release(first)
  const second = read(pool, text(32, 4))
  assert.equal(new Set(second.pages).size, 4)
  pool.release(second)
  assert.deepEqual(pool.admit(text(24), 24)!.pages, [], 'the first text was overwritten')
  pool.forget()
  assert.deepEqual(pool.admit(text(32, 4), 32), undefined, 'promised to the one before')
})

test('whatever comes and goes, every page has one state', () => {
  const action = fc.record({ open: fc.boolean(), length: fc.integer({ min: 1, max: 40 }), seed: fc.nat(2) })
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const pool = new PagePool(16, 8)
      const open: { held: Held; tokens: number[] }[] = []
      for (const { open: opens, length, seed } of actions) {
        const tokens = text(length, seed)
        const held = opens ? pool.admit(tokens, length + 8) : undefined
        if (held) {
          pool.grow(held, length)
          pool.publish(held, tokens, length)
          open.push({ held, tokens })
        } else if (open.length > 0) {
          const [closed] = open.splice(length % open.length, 1)
          pool.release(closed!.held)
        }
        assert.equal(pool.used, new Set(open.flatMap(({ held: { pages } }) => pages)).size)
        // A page that two share holds the same text for both.
        const seen = new Map<number, string>()
        for (const { held, tokens } of open) {
          for (const [i, page] of held.pages.entries()) {
            const past = tokens.slice(0, (i + 1) * 8).join()
            assert.equal(seen.get(page) ?? past, past)
            seen.set(page, past)
          }
        }
      }
      for (const { held } of open) pool.release(held)
      pool.forget()
      assert.ok(pool.admit(text(8), 128), 'all pages can be had again')
    }),
    { seed: 1, numRuns: 200 },
  )
})
