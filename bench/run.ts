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
  gemm: {
    does: 'matrix products in f32 against the peak [--avx2] [--rounds 7] [--seconds 0.15] [--threads N] [--only 256x256x256,...]',
    load: () => import('./gemm.ts'),
  },
  elementwise: {
    does: 'chains of elementwise work against the bandwidth of copying [--rounds 7] [--seconds 0.3] [--only gelu,...]',
    load: () => import('./elementwise.ts'),
  },
  step: {
    does: 'a training step beside PyTorch [--no-compile] [--bf16] [--rounds 7] [--seconds 1] [--threads N] [--only default,4x96,...]',
    load: () => import('./step.ts'),
  },
  gpt2: {
    does: "GPT-2 124M: a training step beside PyTorch and llm.c, and ten losses against PyTorch's [--no-speed] [--no-agree] [--compile] [--rounds 3]",
    load: () => import('./gpt2.ts'),
  },
  js: {
    does: 'a training step beside jax-js and TensorFlow.js [--rounds 5] [--seconds 1] [--threads N]',
    load: () => import('./js.ts'),
  },
  conv: {
    does: 'convolutions, forward and backward, against the peak [--rounds 7] [--seconds 0.1] [--threads N] [--only PART-OF-NAME]',
    load: () => import('./conv.ts'),
  },
  generate: {
    does: 'generation over a key/value cache beside PyTorch [--rounds 5] [--seconds 1] [--threads N] [--only 124M|6x384|6x384-16] [--alone]',
    load: () => import('./generate.ts'),
  },
  serve: {
    does: 'the server: 16 requests beside 1, a known prefix, answers under a JSON schema [--threads N] [--json 1000] [--load SECONDS]',
    load: () => import('./serve.ts'),
  },
  'gemm-bf16': {
    does: 'matrix products of bf16 operands beside f32, against measured peaks [--threads N]',
    load: () => import('./gemm-bf16.ts'),
  },
  precision: {
    does: 'a training step in f32, bf16 and fp16, taking turns [--rounds 7] [--layers 6] [--width 384] [--batch 16] [--threads N]',
    load: () => import('./precision.ts'),
  },
  attention: {
    does: 'the attention kernels against the peak [--rounds 7] [--seconds 0.1] [--threads N]',
    load: () => import('./attention.ts'),
  },
  simulate: {
    does: 'how long simulating a step of a 70B model on 1,024 GPUs takes [--every]',
    load: () => import('./simulate.ts'),
  },
  checkpoint: {
    does: 'half a gigabyte of state: how long a step is kept, how long writing and loading take [--rounds 5]',
    load: () => import('./checkpoint.ts'),
  },
  ranks: {
    does: 'the default recipe on one rank and on two that share the machine, and messages between them [--rounds 7] [--seconds 1] [--threads N]',
    load: () => import('./ranks.ts'),
  },
  links: {
    does: 'plans for four processes on two hosts: the predicted step beside the measured one; as root, with MPI [--rounds 5] [--steps 3] [--pipelines] [--cluster FILE]',
    load: () => import('./links.ts'),
  },
  recompute: {
    does: 'memory of the 6x384 step against its time, from keeping everything to keeping the least; writes the curve [--rounds 3] [--threads N]',
    load: () => import('./recompute.ts'),
  },
  web: {
    does: 'the page in headless Chromium against its budgets [--only list,long,live,script,train]',
    load: () => import('./web.ts'),
  },
  startup: {
    does: 'how long help and compiling the default recipe and GPT-2 124M take, cold and cached [--json]',
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
