/**
 * Errors are part of the interface. A person who meets one must learn, on one line, where it happened, what was
 * got, what was expected and what to try next. `UserError` is shown without a stack; anything else that reaches the
 * CLI is a defect of ours and is shown with one.
 */

/** The four things every error a user can cause must say. */
export interface Complaint {
  /** File, option or call at fault, e.g. `runs/abc/checkpoints/step-200.safetensors`. */
  readonly where: string
  readonly got: string
  readonly expected: string
  /** What to try: a command, a setting, a file to restore. */
  readonly fix: string
}

/** A mistake in input, data or environment. `exitCode` is 1 for a failed job, 2 for bad usage. */
export class UserError extends Error {
  override readonly name = 'UserError'
  readonly exitCode: 1 | 2
  readonly complaint: Complaint

  constructor(complaint: Complaint, exitCode: 1 | 2 = 1) {
    super(`${complaint.where}: got ${complaint.got}; expected ${complaint.expected}; ${complaint.fix}`)
    this.exitCode = exitCode
    this.complaint = complaint
  }
}

/** An input that made the job fail (unreadable data, damaged checkpoint, full disk): exit code 1. */
export const failure = (complaint: Complaint): UserError => new UserError(complaint, 1)

/** A command, option or call that cannot be meant as written: exit code 2. */
export const badUsage = (complaint: Complaint): UserError => new UserError(complaint, 2)

/** A broken invariant of our own. Please report it. */
export class InternalError extends Error {
  override readonly name = 'InternalError'
}

/** The nearest of `candidates` to `word` by edit distance, or undefined when nothing is close. */
export function didYouMean(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      row.push(Math.min(substitution, previous[j]! + 1, row[j - 1]! + 1))
    }
    previous = row
  }
  return previous[b.length]!
}
