/**
 * `npm run bench <name> [options]`: runs one benchmark, or lists them. A benchmark is a file here that exports `main` and
 * has a line in the table below.
 */
import { badUsage, didYouMean, UserError } from '../src/errors.ts'

interface Bench {
  readonly does: string
  readonly load: () => Promise<{ readonly main: (args: readonly string[]) => Promise<void> }>
}

const benches: Readonly<Record<string, Bench>> = {
  step: {
    does: 'a training step beside PyTorch [--rounds 7] [--seconds 1] [--threads N] [--only default|classic] [--compile]',
    load: () => import('./step.ts'),
  },
  attention: {
    does: 'the attention kernels against the peak [--rounds 7] [--seconds 0.1] [--threads N]',
    load: () => import('./attention.ts'),
  },
  startup: {
    does: 'how long help and compiling the default recipe take, cold and cached [--json]',
    load: () => import('./startup.ts'),
  },
}

async function run([name, ...args]: readonly string[]): Promise<void> {
  if (name === undefined || name === '--help') {
    const lines = Object.entries(benches).map(([bench, { does }]) => `  npm run bench ${bench}  ${does}`)
    console.log(['Benchmarks:', ...lines].join('\n'))
    return
  }
  const bench = Object.hasOwn(benches, name) ? benches[name] : undefined
  if (!bench) {
    const near = didYouMean(name, Object.keys(benches))
    throw badUsage({
      where: 'bench',
      got: name,
      expected: Object.keys(benches).join(', '),
      fix: near ? `did you mean ${near}?` : 'npm run bench lists them',
    })
  }
  const { main } = await bench.load()
  await main(args)
}

/** A person's mistake is one line and its exit code; parseArgs reports unknown options as such a TypeError. */
function explain(error: unknown): number {
  if (error instanceof UserError) {
    console.error(error.message)
    return error.exitCode
  }
  if (error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')) {
    console.error(error.message)
    return 2
  }
  throw error
}

await run(process.argv.slice(2)).catch((error: unknown) => {
  process.exitCode = explain(error)
})
