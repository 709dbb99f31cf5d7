/** The matrix as compiled, in f32 on ranks that are threads: a mixture with experts on several ranks, a hundred steps. */
import { nativeTests } from './tests.ts'

nativeTests('mixture', 'expert')
