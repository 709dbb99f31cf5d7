/**
 * A binary min-heap. Byte-pair encoding uses it twice: to find the next merge while training and while encoding.
 * Neither removes entries from the middle: a stale entry is recognised, and dropped or corrected, when it comes out.
 */

export interface Heap<T> {
  readonly size: number
  push(item: T): void
  /** The item that comes before all others, removed; undefined when empty. */
  pop(): T | undefined
}

/** An empty heap ordered by `before`, which must be a strict order. */
export function createHeap<T>(before: (a: T, b: T) => boolean): Heap<T> {
  const items: T[] = []
  return {
    get size() {
      return items.length
    },
    push(item) {
      let i = items.length
      items.push(item)
      while (i > 0) {
        const parent = (i - 1) >> 1
        if (!before(item, items[parent]!)) break
        items[i] = items[parent]!
        i = parent
      }
      items[i] = item
    },
    pop() {
      const top = items[0]
      const last = items.pop()
      if (items.length === 0 || last === undefined) return top
      let i = 0
      for (;;) {
        let child = 2 * i + 1
        if (child >= items.length) break
        if (child + 1 < items.length && before(items[child + 1]!, items[child]!)) child++
        if (!before(items[child]!, last)) break
        items[i] = items[child]!
        i = child
      }
      items[i] = last
      return top
    },
  }
}
