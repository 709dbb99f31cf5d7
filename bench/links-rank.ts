/**
 * One of the processes that `npm run bench links` starts on two hosts: measures the links, then runs the plans in turns. The
 * first rank prints what it measured.
 */
import { hostname } from 'node:os'
import { sizeOf } from '../src/compiler/index.ts'
import { measureAxis } from '../src/parallel/links.ts'
import { initialise } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'
import { configOf, type Answer, type Asked } from './links.ts'
import { characters } from './recipes.ts'

const { plans, settings, rounds, steps } = JSON.parse(process.argv[2]!) as Asked

const programs = []
for (const plan of plans) {
  const config = configOf(plan, settings)
  const program = await compileStep(config, characters, { threads: 1 }, 'mpi')
  initialise(program, config, characters)
  const count = sizeOf(program.inputs.get('tokens')!.shape)
  program.write(
    'tokens',
    Int32Array.from({ length: count }, (_, i) => (i * 31) % characters),
  )
  programs.push(program)
}
const { rank, exchange } = programs[0]!.process!
/** All ranks come here before any goes on. */
const meet = (): unknown => exchange(new Uint8Array(8))
const decoder = new TextDecoder()
const names = exchange(new TextEncoder().encode(hostname().padEnd(64))).map((name) => decoder.decode(name))
const hosts = names.map((name) => names.indexOf(name))

// Along the axis whose ranks share a host, then along the other, over which both ranks of a host send at once.
const mesh = [
  { name: 'outer', size: 2 },
  { name: 'inner', size: 2 },
]
const neighbours = hosts[0] === hosts[1]
// In turns with the plans, so that what else the machine does for some seconds spoils no size of all probes.
const probes: Answer['probes'][number][] = []
async function probe(): Promise<void> {
  const near = await measureAxis(mesh, neighbours ? 'inner' : 'outer', 'mpi')
  const far = await measureAxis(mesh, neighbours ? 'outer' : 'inner', 'mpi')
  probes.push({ near, far })
}

const measured = programs.map((): number[] => [])
for (const program of programs) {
  meet()
  program.runBlocking()
}
for (let round = 0; round < rounds; round++) {
  await probe()
  for (const [i, program] of programs.entries()) {
    meet()
    const began = performance.now()
    for (let step = 0; step < steps; step++) program.runBlocking()
    measured[i]!.push((performance.now() - began) / 1000 / steps)
  }
}
if (rank === 0) console.log(JSON.stringify({ hosts, probes, measured } satisfies Answer))
meet()
