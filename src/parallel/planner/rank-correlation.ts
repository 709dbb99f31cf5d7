/** How alike two lists order the same things: Spearman's correlation of ranks, 1 for the same order, -1 for the opposite. */
export function rankCorrelation(a: readonly number[], b: readonly number[]): number {
  const [x, y] = [ranksOf(a), ranksOf(b)]
  // Ranks have the same mean and, where nothing is equal, the same variance.
  const mean = (a.length - 1) / 2
  const dot = (u: readonly number[], v: readonly number[]): number =>
    u.reduce((sum, value, i) => sum + (value - mean) * (v[i]! - mean), 0)
  return dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y))
}

/** The place of each value in order; equal ones share the mean of their places. */
function ranksOf(values: readonly number[]): number[] {
  return values.map((value) => {
    const below = values.filter((other) => other < value).length
    const equal = values.filter((other) => other === value).length
    return below + (equal - 1) / 2
  })
}
