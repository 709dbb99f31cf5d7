/** The matrix as compiled, in f32 on ranks that are threads: the language model under every mixed plan, a hundred steps. */
import { nativeTests } from './tests.ts'

nativeTests('language', 'pipe', false)
