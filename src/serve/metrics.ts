/**
 * What a server tells Prometheus, in its text exposition format: counters, gauges read when asked, histograms. Names say
 * their unit; every line carries the model it is about.
 */
import type { Generation } from './generation.ts'

/** Upper ends of the buckets of a histogram of seconds. */
const bounds = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

class Histogram {
  readonly #counts = bounds.map(() => 0)
  #total = 0
  #sum = 0

  add(value: number): void {
    this.#total++
    this.#sum += value
    for (const [i, bound] of bounds.entries()) if (value <= bound) this.#counts[i]!++
  }

  lines(name: string, label: string): string[] {
    const bucket = (bound: number | string, count: number): string =>
      `${name}_bucket{${label},le="${bound}"} ${count}`
    return [
      ...bounds.map((bound, i) => bucket(bound, this.#counts[i]!)),
      bucket('+Inf', this.#total),
      `${name}_sum{${label}} ${this.#sum}`,
      `${name}_count{${label}} ${this.#total}`,
    ]
  }
}

/** What is read off an engine when somebody asks. */
interface Watched {
  readonly served: { readonly name: string }
  readonly slots: number
  readonly scheduler: {
    readonly running: number
    readonly waiting: number
    readonly turns: number
    readonly rows: number
    readonly pool: { readonly used: number; readonly total: number }
  }
}

type Outcome = 'stop' | 'length' | 'aborted' | 'failed'

export class Metrics {
  readonly #engine: Watched
  readonly #outcomes = new Map<Outcome, number>()
  readonly #firstToken = new Histogram()
  readonly #answer = new Histogram()
  #promptTokens = 0
  #cachedTokens = 0
  #writtenTokens = 0

  constructor(engine: Watched) {
    this.#engine = engine
  }

  /** Counts an answer that has ended, however it did. */
  ended(answer: Generation): void {
    const outcome = answer.finish ?? (answer.signal?.aborted ? 'aborted' : 'failed')
    this.#outcomes.set(outcome, (this.#outcomes.get(outcome) ?? 0) + 1)
    this.#promptTokens += answer.promptTokens
    this.#cachedTokens += answer.cachedTokens
    this.#writtenTokens += answer.drawn
    if (answer.firstMs !== undefined) this.#firstToken.add(answer.firstMs / 1000)
    this.#answer.add((performance.now() - answer.started) / 1000)
  }

  /** All of it; `engines` of one server together, since each name has one line of help. */
  static text(engines: readonly { readonly metrics: Metrics }[]): string {
    const all = engines.map(({ metrics }) => metrics.#families())
    const lines: string[] = []
    for (const [i, [name, type, help]] of (all[0] ?? []).entries()) {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`)
      for (const families of all) lines.push(...families[i]![3])
    }
    return `${lines.join('\n')}\n`
  }

  #families(): [name: string, type: string, help: string, lines: string[]][] {
    const { served, scheduler, slots } = this.#engine
    const label = `model="${served.name.replaceAll(/["\\\n]/g, (c) => (c === '\n' ? '\\n' : `\\${c}`))}"`
    const one = (
      name: string,
      type: string,
      help: string,
      value: number,
    ): [string, string, string, string[]] => [name, type, help, [`${name}{${label}} ${value}`]]
    const outcomes = (['stop', 'length', 'aborted', 'failed'] as const).map(
      (outcome) => `anneal_answers_total{${label},outcome="${outcome}"} ${this.#outcomes.get(outcome) ?? 0}`,
    )
    return [
      ['anneal_answers_total', 'counter', 'Answers by how they ended.', outcomes],
      one('anneal_prompt_tokens_total', 'counter', 'Tokens of prompts.', this.#promptTokens),
      one('anneal_cached_tokens_total', 'counter', 'Of those, found in the cache.', this.#cachedTokens),
      one('anneal_written_tokens_total', 'counter', 'Tokens written.', this.#writtenTokens),
      one('anneal_turns_total', 'counter', 'Calls of the model.', scheduler.turns),
      one('anneal_rows_total', 'counter', 'Tokens in those calls.', scheduler.rows),
      one('anneal_running', 'gauge', 'Texts being written.', scheduler.running),
      one('anneal_waiting', 'gauge', 'Requests that wait.', scheduler.waiting),
      one('anneal_slots', 'gauge', 'Texts that can be written at once.', slots),
      one('anneal_pages_used', 'gauge', 'Pages of the cache in use.', scheduler.pool.used),
      one('anneal_pages', 'gauge', 'Pages of the cache.', scheduler.pool.total),
      [
        'anneal_first_token_seconds',
        'histogram',
        'From the request to the first token.',
        this.#firstToken.lines('anneal_first_token_seconds', label),
      ],
      [
        'anneal_answer_seconds',
        'histogram',
        'From the request to the end.',
        this.#answer.lines('anneal_answer_seconds', label),
      ],
    ]
  }
}
