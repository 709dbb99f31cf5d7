/**
 * The fixed-model track on characters: one small GPT, one batch size, one text; only the optimizer and its schedule differ.
 * So a difference between two rows is the optimizer's, at this scale.
 */
import { withBestGuess, type Baseline, type Recipe, type Task } from '../task.ts'
import { entered, pairs, textRecipe, type TextChanges } from './text-recipes.ts'
import { bundledText, trainText } from '../text-trainer.ts'

const model = { kind: 'gpt-2019', width: 64, layers: 2, heads: 2 } as const

const recipe = (
  steps: number,
  optimizer: TextChanges['optimizer'],
  schedule: TextChanges['schedule'] = {},
): Recipe => textRecipe({ steps, model, optimizer: { ...optimizer }, schedule })

const baselines: readonly Baseline[] = [
  {
    id: 'sgd',
    title: 'SGD, constant rate',
    dates: { idea: '1951-09-01', adopted: '2010-09-26', entered },
    sources:
      'A Stochastic Approximation Method (Robbins & Monro); Recurrent neural network based language model (Mikolov et al., Interspeech 2010)',
    recipe: recipe(6800, { name: 'sgd' }),
    trials: pairs(['optimizer.rate', [0.5, 0.7, 1, 0.35, 1.5, 0.25]], ['optimizer.clip', [0, 1]]),
    endless: true,
  },
  {
    id: 'momentum',
    title: 'SGD with momentum 0.9',
    dates: { idea: '1964-01-01', adopted: '2013-06-16', entered },
    sources:
      'Some methods of speeding up the convergence of iteration methods (Polyak, 1964, day unknown); On the importance of initialization and momentum in deep learning (Sutskever et al., ICML 2013)',
    recipe: recipe(6800, { name: 'momentum' }),
    trials: pairs(['optimizer.rate', [0.1, 0.15, 0.2, 0.05, 0.3, 0.03]], ['optimizer.clip', [0, 1]]),
    endless: true,
  },
  {
    id: 'adam',
    title: 'Adam, constant rate',
    dates: { idea: '2014-12-22', adopted: '2015-05-07', entered },
    sources: 'Adam: A Method for Stochastic Optimization (Kingma & Ba, arXiv 1412.6980; ICLR 2015)',
    recipe: recipe(6800, { name: 'adamw' }),
    trials: pairs(
      ['optimizer.rate', [0.003, 0.004, 0.006, 0.002, 0.008, 0.001]],
      ['schedule.warmup', [0, 100]],
    ),
    endless: true,
  },
  {
    id: 'adamw-cosine',
    title: 'AdamW, warm-up and cosine decay',
    dates: { idea: '2017-11-14', adopted: '2018-06-11', entered },
    sources:
      'Decoupled Weight Decay Regularization (Loshchilov & Hutter, arXiv 1711.05101); Improving Language Understanding by Generative Pre-Training (Radford et al., 2018)',
    recipe: recipe(
      1500,
      { name: 'adamw', beta2: 0.95, weightDecay: 0.1, clip: 1 },
      { kind: 'cosine', warmup: 100 },
    ),
    trials: pairs(['optimizer.rate', [0.008, 0.006, 0.012, 0.004]], ['steps', [1500, 1200, 2000]]),
    endless: false,
  },
  {
    id: 'muon',
    title: 'Muon, linear decay',
    dates: { idea: '2024-10-04', adopted: '2025-02-24', entered },
    sources:
      'Muon: An optimizer for hidden layers in neural networks (Jordan et al.; first in a record of the nanoGPT speedrun); Muon is Scalable for LLM Training (Liu et al., arXiv 2502.16982)',
    recipe: recipe(
      650,
      { name: 'muon', momentum: 0.95, beta2: 0.95 },
      { kind: 'linear', warmup: 20, cooldown: 0.5 },
    ),
    trials: pairs(['optimizer.rate', [0.05, 0.03, 0.08, 0.12]], ['steps', [650, 550, 800]]),
    endless: false,
  },
]

export const shakespeareOptimizers: Task = {
  id: 'shakespeare-opt',
  title:
    'Characters of Tiny Shakespeare, fixed model (GPT of 2019: width 64, 2 layers, 32 characters, batch 16)',
  track: 'fixed-model',
  data: bundledText,
  metric: 'validation nats per character',
  sense: 'lower',
  ladder: [2.5, 2.3, 2.2, 2.1, 2],
  headline: 2,
  quick: 2.3,
  smoke: { target: 2.5, entries: ['adam', 'muon'] },
  evalEvery: 10,
  budgetFlop: 2.4e12,
  samples: 'characters',
  baselines: baselines.map(withBestGuess),
  train: trainText,
}
