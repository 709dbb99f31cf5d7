/** The series of the scaling study: budgets in FLOP of the runs that the law is fitted to, and of the run it predicts. */
export const series = {
  full: { fit: [1e11, 3e11, 1e12, 3e12, 1e13, 3e13], target: 3e14 },
  short: { fit: [1e11, 3e11, 1e12, 3e12, 1e13], target: 1e14 },
} as const satisfies Record<string, { fit: readonly number[]; target: number }>

export type SeriesName = keyof typeof series

/** Small runs scatter more, and cost little: below this budget each is made with three seeds. */
export const oneSeedFrom = 1e12
export const seeds = [1, 2, 3] as const
