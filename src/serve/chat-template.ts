/**
 * How a conversation becomes one text. A published checkpoint brings a template of its own (jinja-template.ts). Of one
 * without, the tokenizer is looked at: marks of a known format, ChatML (Qwen, SmolLM) or that of Llama 3, stand for that
 * format. Everything else, such as a model trained here on plain text, gets a plain dialogue: each turn on a line of its
 * own, `User: …`, `Assistant: …`, which ends where the next `User:` would begin.
 */
import type { Tokenizer } from '../data/tokenizers/tokenizer.ts'

export interface Message {
  readonly role: 'system' | 'user' | 'assistant' | 'tool'
  readonly text: string
  readonly toolCalls?: readonly ToolCall[]
}

export interface ToolCall {
  readonly name: string
  /** JSON. */
  readonly arguments: string
}

export interface Tool {
  readonly name: string
  readonly description?: string | undefined
  /** A JSON schema of an object; absent: no arguments. */
  readonly parameters?: unknown
}

export interface ChatTemplate {
  readonly name: 'chatml' | 'llama3' | 'plain' | 'jinja'
  /** The conversation up to where the assistant is to speak. */
  render(messages: readonly Message[], tools: readonly Tool[]): string
  /** Texts that end the assistant's turn. */
  readonly stop: readonly string[]
  /** Special tokens that do. */
  readonly stopTokens: readonly string[]
  /** How a call of a tool is written, where the format has calls. */
  readonly call?: CallFormat
}

/** A call is `{"name": …, "arguments": …}` between two marks; without marks it is the whole answer. */
export interface CallFormat {
  readonly before: string
  readonly after: string
  readonly argumentsKey: 'arguments' | 'parameters'
}

const callText = ({ name, arguments: given }: ToolCall): string =>
  `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": ${given}}\n</tool_call>`

const describeTool = ({ name, description, parameters }: Tool): string =>
  JSON.stringify({ type: 'function', function: { name, description, parameters } })

/** The Hermes form of tools, as Qwen's template has it. */
const toolsText = (tools: readonly Tool[]): string =>
  [
    '# Tools',
    '',
    'You may call one or more of these functions, whose signatures are given in JSON:',
    '<tools>',
    ...tools.map(describeTool),
    '</tools>',
    '',
    'For each call, return a JSON object with its name and arguments between tags:',
    callText({ name: 'NAME', arguments: '{}' }),
  ].join('\n')

/** The system's words come first, those about tools after them. */
export function withTools(messages: readonly Message[], tools: readonly Tool[]): readonly Message[] {
  if (tools.length === 0) return messages
  const [first, ...others] = messages
  return first?.role === 'system'
    ? [{ ...first, text: `${first.text}\n\n${toolsText(tools)}` }, ...others]
    : [{ role: 'system', text: toolsText(tools) }, ...messages]
}

/** The form of calls that Hermes, Qwen and others learnt. */
export const hermesCalls: CallFormat = {
  before: '<tool_call>',
  after: '</tool_call>',
  argumentsKey: 'arguments',
}

const chatml: ChatTemplate = {
  name: 'chatml',
  render(messages, tools) {
    const turn = (role: string, text: string): string => `<|im_start|>${role}\n${text}<|im_end|>\n`
    const turns = withTools(messages, tools).map(({ role, text, toolCalls = [] }) =>
      role === 'tool'
        ? turn('user', `<tool_response>\n${text}\n</tool_response>`)
        : turn(role, [...(text === '' ? [] : [text]), ...toolCalls.map(callText)].join('\n')),
    )
    return `${turns.join('')}<|im_start|>assistant\n`
  },
  stop: [],
  stopTokens: ['<|im_end|>', '<|endoftext|>'],
  call: hermesCalls,
}

const llama3: ChatTemplate = {
  name: 'llama3',
  render(messages, tools) {
    const turns = withTools(messages, tools).map(
      ({ role, text, toolCalls = [] }) =>
        `<|start_header_id|>${role === 'tool' ? 'ipython' : role}<|end_header_id|>\n\n` +
        `${[...(text === '' ? [] : [text]), ...toolCalls.map(callText)].join('\n')}<|eot_id|>`,
    )
    return `<|begin_of_text|>${turns.join('')}<|start_header_id|>assistant<|end_header_id|>\n\n`
  },
  stop: [],
  stopTokens: ['<|eot_id|>', '<|end_of_text|>', '<|eom_id|>'],
}

const speakers = { system: 'System', user: 'User', assistant: 'Assistant', tool: 'Tool' } as const

export const plainTemplate: ChatTemplate = {
  name: 'plain',
  render(messages, tools) {
    const turns = withTools(messages, tools).map(
      ({ role, text, toolCalls = [] }) =>
        `${speakers[role]}: ${[text, ...toolCalls.map(callText)].join('\n').trim()}\n`,
    )
    return `${turns.join('')}Assistant:`
  },
  stop: ['\nUser:', '\nSystem:'],
  stopTokens: ['<|endoftext|>', '<|end_of_text|>', '</s>'],
}

/** The format a tokenizer has the marks of. */
export function templateFor(tokenizer: Tokenizer): ChatTemplate {
  const has = (mark: string): boolean => specialsOf(tokenizer).has(mark)
  if (has('<|im_start|>') && has('<|im_end|>')) return chatml
  if (has('<|start_header_id|>') && has('<|eot_id|>')) return llama3
  return plainTemplate
}

/** Special tokens and their ids. */
export const specialsOf = (tokenizer: Tokenizer): ReadonlyMap<string, number> =>
  'specials' in tokenizer ? (tokenizer.specials as ReadonlyMap<string, number>) : new Map<string, number>()

/** Ids that are no text. Some tokens that are matched whole are (`<tool_call>` in Qwen's vocabulary): they say so. */
export const silentOf = (tokenizer: Tokenizer): ReadonlySet<number> =>
  'silent' in tokenizer ? (tokenizer.silent as ReadonlySet<number>) : new Set(specialsOf(tokenizer).values())
