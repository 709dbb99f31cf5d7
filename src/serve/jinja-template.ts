/**
 * The chat template a published checkpoint brings along: a Jinja program, run by @huggingface/jinja the way transformers
 * runs it (blocks trimmed, the same variables), so that the model reads what it was trained on. Whether the format has
 * calls of tools, and how they are written, is told from the template's text; where it knows nothing of tools, they are
 * described to the model in the system's words.
 */
import { Template } from '@huggingface/jinja'
import { failure } from '../errors.ts'
import {
  hermesCalls,
  withTools,
  type CallFormat,
  type ChatTemplate,
  type Message,
  type Tool,
} from './chat-template.ts'
import { invalid } from './error.ts'

/** Special tokens templates write by name, e.g. `bos_token`. */
export type SpecialTokens = Readonly<Record<string, string>>

/** Marks with which models end a turn, where a vocabulary has them. */
const ends = ['<|im_end|>', '<|endoftext|>', '<|eot_id|>', '<|end_of_text|>', '<|eom_id|>', '</s>']

/**
 * @param where names the file in errors.
 * @throws UserError for what is no template.
 */
export function jinjaTemplate(source: string, where: string, tokens: SpecialTokens): ChatTemplate {
  const template = parse(source, where)
  const knowsTools = /\btools\b/.test(source)
  const call = knowsTools ? callsOf(source) : undefined
  return {
    name: 'jinja',
    render(messages, tools) {
      const shown = knowsTools ? messages : withTools(messages, tools)
      try {
        return template.render({
          ...tokens,
          messages: shown.map(messageOf),
          ...(knowsTools && tools.length > 0 ? { tools: tools.map(toolOf) } : {}),
          add_generation_prompt: true,
        })
      } catch (error) {
        // `raise_exception` in the template, say for a role it does not know.
        throw invalid(
          'messages',
          `this model's chat template does not take them: ${(error as Error).message}`,
        )
      }
    },
    stop: [],
    stopTokens: ends,
    ...(call ? { call } : {}),
  }
}

function parse(source: string, where: string): Template {
  try {
    return new Template(source)
  } catch (error) {
    throw failure({
      where,
      got: `a template that cannot be read (${(error as Error).message})`,
      expected: 'the chat template of a Hugging Face checkpoint',
      fix: 'download the file again, or remove the template: the marks of the tokenizer decide then',
    })
  }
}

function callsOf(source: string): CallFormat | undefined {
  if (source.includes('<tool_call>')) return hermesCalls
  // Llama 3.1 and later answer with nothing but JSON.
  if (/"parameters":/.test(source)) return { before: '', after: '', argumentsKey: 'parameters' }
  return undefined
}

/** Templates of tools walk through arguments, so they get them as a value. */
const messageOf = ({ role, text, toolCalls }: Message): object => ({
  role,
  content: text,
  ...(toolCalls
    ? {
        tool_calls: toolCalls.map(({ name, arguments: given }) => ({
          type: 'function',
          function: { name, arguments: valueOf(given) },
        })),
      }
    : {}),
})

function valueOf(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return json
  }
}

const toolOf = ({ name, description, parameters }: Tool): object => ({
  type: 'function',
  function: {
    name,
    ...(description === undefined ? {} : { description }),
    parameters: parameters ?? { type: 'object', properties: {} },
  },
})
