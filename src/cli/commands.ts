/**
 * The list of commands: name, positional arguments, one line of help, and where it lives. Adding a command is one
 * file and one entry here. Only the module of the command that was called is ever loaded.
 */
import type { Command } from './command.ts'

export interface Entry {
  readonly name: string
  /** In commander's notation: `<required>`, `[optional]`, `[several...]`. */
  readonly arguments: readonly string[]
  readonly summary: string
  load(): Promise<Command>
}

export const commands: readonly Entry[] = [
  {
    name: 'up',
    arguments: [],
    summary: 'open the lab, and train the default model if there is none yet',
    load: async () => (await import('./up.ts')).up,
  },
  {
    name: 'train',
    arguments: ['<recipe>', '[settings...]'],
    summary: 'train a model',
    load: async () => (await import('./train.ts')).train,
  },
  {
    name: 'resume',
    arguments: ['<run>', '[settings...]'],
    summary: 'go on with an interrupted run from its last checkpoint',
    load: async () => (await import('./resume.ts')).resume,
  },
  {
    name: 'fork',
    arguments: ['<run>', '[settings...]'],
    summary: 'a new run from a checkpoint of another, with settings changed',
    load: async () => (await import('./fork.ts')).fork,
  },
  {
    name: 'rank',
    arguments: ['<what>', '[settings...]'],
    summary: 'be one rank of a training run, under mpirun',
    load: async () => (await import('./rank.ts')).rank,
  },
  {
    name: 'runs',
    arguments: ['[query...]'],
    summary: 'list runs, newest first; or search them',
    load: async () => (await import('./runs.ts')).runs,
  },
  {
    name: 'show',
    arguments: ['<run>'],
    summary: 'everything about one run: settings, cost, losses, checkpoints',
    load: async () => (await import('./show.ts')).show,
  },
  {
    name: 'compare',
    arguments: ['<runs...>'],
    summary: 'runs side by side: settings that differ, figures of every metric',
    load: async () => (await import('./compare.ts')).compare,
  },
  {
    name: 'sample',
    arguments: ['<run>'],
    summary: 'write text with a trained model',
    load: async () => (await import('./sample.ts')).sample,
  },
  {
    name: 'serve',
    arguments: ['<run>'],
    summary: 'answer for a trained model, or one in training, as an OpenAI-compatible server',
    load: async () => (await import('./serve.ts')).serve,
  },
  {
    name: 'prove',
    arguments: ['<recipe>', '<settings...>'],
    summary: 'compare a parallel plan with one device before it runs: results, memory, bytes sent',
    load: async () => (await import('./prove.ts')).prove,
  },
  {
    name: 'plan',
    arguments: ['<model>', '[settings...]'],
    summary: 'how to train a model on many devices: what fits, how long a step takes, what it sends',
    load: async () => (await import('./plan.ts')).plan,
  },
  {
    name: 'study',
    arguments: ['<study>', '<what>', '[of...]'],
    summary: 'studies people can rerun: how much compute algorithms save',
    load: async () => (await import('./study.ts')).study,
  },
  {
    name: 'doctor',
    arguments: [],
    summary: 'what this machine has, how fast it is, and what is missing',
    load: async () => (await import('./doctor.ts')).doctor,
  },
]
