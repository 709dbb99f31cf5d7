/** One process of several in the tests of ranks as processes: trains a little and prints what it has, as JSON. */
import { course, pipelineLosses, rankedOptions } from './small-course.ts'

const rank = process.env['OMPI_COMM_WORLD_RANK']
if (process.argv[2] === 'pipeline') console.log(JSON.stringify(await pipelineLosses('mpi')))
else {
  const parallel = { ...rankedOptions.parallel, transport: 'mpi' } as const
  const { losses, state } = await course({ ...rankedOptions, parallel })
  if (rank === '0') console.log(JSON.stringify({ losses, state: [...state] }))
}
