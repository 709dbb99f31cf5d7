/** One process of several in the test of ranks as processes: trains a little and prints what it has, as JSON. */
import { course, rankedOptions } from './small-course.ts'

const { losses, state } = await course({
  ...rankedOptions,
  parallel: { ...rankedOptions.parallel, transport: 'mpi' },
})
if (process.env['OMPI_COMM_WORLD_RANK'] === '0') console.log(JSON.stringify({ losses, state: [...state] }))
