/**
 * What expert parallelism sends: a token's row goes to the rank that holds the expert chosen for it, and the result comes
 * back. Which rows leave their rank is data, so the bytes of a step are counted from its choices; nothing is padded.
 */

/** The choices of a layer in one step: for each, where its token is and which expert it fell on. */
export interface ExpertChoices {
  /** Rank of the token of each choice. */
  readonly tokenRanks: ArrayLike<number>
  /** Expert of each choice. */
  readonly experts: ArrayLike<number>
  /** Rank that holds each expert. */
  readonly expertRanks: ArrayLike<number>
}

/** Rows that leave for another rank: [from][to], the diagonal being what stays. */
export function routedRows({ tokenRanks, experts, expertRanks }: ExpertChoices, ranks: number): number[][] {
  const rows = Array.from({ length: ranks }, () => Array.from({ length: ranks }, () => 0))
  for (let i = 0; i < experts.length; i++) rows[tokenRanks[i]!]![expertRanks[experts[i]!]!]!++
  return rows
}

/**
 * Bytes of one all-to-all of rows of `width` elements: those that leave their rank, and nothing for those that stay. A
 * layer has four a step: there and back in the forward pass, and the same for their gradients.
 */
export function exchangeBytes(
  choices: ExpertChoices,
  ranks: number,
  width: number,
  elementBytes: number,
): number {
  let leaving = 0
  routedRows(choices, ranks).forEach((row, from) =>
    row.forEach((count, to) => (leaving += from === to ? 0 : count)),
  )
  return leaving * width * elementBytes
}
