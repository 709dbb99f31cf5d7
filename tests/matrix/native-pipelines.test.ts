/** The matrix as compiled, in f32 on ranks that are threads: the language model in pipelines mixed with all else, a hundred steps. */
import { nativeTests } from './tests.ts'

nativeTests('language', 'pipe')
