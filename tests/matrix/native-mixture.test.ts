/** The matrix as compiled, in f32 on ranks that are threads: a mixture of experts, its experts everywhere, a hundred steps. */
import { nativeTests } from './tests.ts'

nativeTests('mixture', 'expert', false)
