/** The matrix in float64 on simulated ranks: the convolutional net. All results of two steps, to 1e-11. */
import { float64Tests } from './tests.ts'

float64Tests('convolutions')
