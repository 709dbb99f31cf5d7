/** The matrix as compiled, in f32 on ranks that are threads: the convolutional net under every mixed plan, a hundred steps. */
import { nativeTests } from './tests.ts'

nativeTests('convolutions')
