/**
 * The open track on characters: anything may differ but the text. Recipes of eras as they were used, at one small width, so
 * that each costs minutes; a curve that does not fall at this scale is a result.
 */
import { withBestGuess, type Baseline, type Task } from '../task.ts'
import { bundledText, trainText } from '../text-trainer.ts'
import { entered, pairs, textRecipe } from './text-recipes.ts'

const size = { width: 64, layers: 2, heads: 2 } as const

const baselines: readonly Baseline[] = [
  {
    id: 'rnn-2012',
    title: 'Recurrent network of 2012: tanh, SGD with clipped gradients',
    dates: { idea: '2012-11-21', adopted: '2012-11-21', entered },
    sources:
      'Recurrent neural network based language model (Mikolov et al., Interspeech 2010); On the difficulty of training recurrent neural networks (Pascanu et al., arXiv 1211.5063)',
    recipe: textRecipe({
      steps: 10_000,
      model: { kind: 'rnn-2012', ...size, layers: 1, heads: 1 },
      optimizer: { name: 'sgd' },
    }),
    trials: pairs(['optimizer.rate', [1, 1.5, 0.7, 2, 0.5, 3]], ['optimizer.clip', [1, 0.25]]),
    endless: true,
  },
  {
    id: 'lstm-2013',
    title: 'LSTM of 2013: SGD with momentum and clipped gradients',
    dates: { idea: '2013-06-16', adopted: '2013-08-04', entered },
    sources:
      'Long Short-Term Memory (Hochreiter & Schmidhuber, 1997); On the importance of initialization and momentum in deep learning (Sutskever et al., ICML 2013); Generating Sequences With Recurrent Neural Networks (Graves, arXiv 1308.0850)',
    recipe: textRecipe({
      steps: 6800,
      model: { kind: 'lstm-2013', ...size, layers: 1, heads: 1 },
      optimizer: { name: 'momentum' },
    }),
    trials: pairs(['optimizer.rate', [1, 0.5, 0.7, 0.3, 1.5, 2]], ['optimizer.clip', [1, 0.25]]),
    endless: true,
  },
  {
    id: 'lstm-2015',
    title: 'LSTM of 2015: open forget gate, Adam',
    dates: { idea: '2014-12-22', adopted: '2015-07-06', entered },
    sources:
      'Adam: A Method for Stochastic Optimization (Kingma & Ba, arXiv 1412.6980); An Empirical Exploration of Recurrent Network Architectures (Jozefowicz et al., ICML 2015)',
    recipe: textRecipe({
      steps: 6800,
      model: { kind: 'lstm-2015', ...size, layers: 1, heads: 1 },
      optimizer: { name: 'adamw', clip: 1 },
    }),
    trials: pairs(['optimizer.rate', [0.01, 0.015, 0.007, 0.02, 0.005, 0.03]], ['schedule.warmup', [0, 100]]),
    endless: true,
  },
  {
    id: 'transformer-2017',
    title: 'Transformer of 2017: norm after sums, sinusoids, Adam with inverse square root',
    dates: { idea: '2017-06-12', adopted: '2017-12-04', entered },
    sources: 'Attention Is All You Need (Vaswani et al., arXiv 1706.03762; NeurIPS 2017)',
    recipe: textRecipe({
      steps: 6800,
      model: { kind: 'transformer-2017', ...size },
      optimizer: { name: 'adamw', beta2: 0.98 },
      schedule: { kind: 'inverse-sqrt', warmup: 200 },
    }),
    trials: pairs(['optimizer.rate', [0.008, 0.006, 0.012, 0.004]], ['schedule.warmup', [200, 100, 400]]),
    endless: true,
  },
  {
    id: 'gpt-2019',
    title: 'GPT of 2019: norm before parts, GELU, AdamW with cosine decay',
    dates: { idea: '2018-06-11', adopted: '2019-02-14', entered },
    sources:
      'Improving Language Understanding by Generative Pre-Training (Radford et al., 2018); Language Models are Unsupervised Multitask Learners (Radford et al., 2019)',
    recipe: textRecipe({
      steps: 1500,
      model: { kind: 'gpt-2019', ...size },
      optimizer: { name: 'adamw', beta2: 0.95, weightDecay: 0.1, clip: 1 },
      schedule: { kind: 'cosine', warmup: 100 },
    }),
    trials: pairs(['optimizer.rate', [0.008, 0.006, 0.012, 0.004]], ['steps', [1500, 1200, 2000]]),
    endless: false,
  },
  {
    id: 'transformer-2023',
    title: 'Transformer of 2023: RMS norm, rotary positions, SwiGLU, AdamW with cosine decay',
    dates: { idea: '2021-04-20', adopted: '2023-02-27', entered },
    sources:
      'RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., arXiv 2104.09864); LLaMA: Open and Efficient Foundation Language Models (Touvron et al., arXiv 2302.13971)',
    recipe: textRecipe({
      steps: 800,
      model: { kind: 'transformer-2023', ...size },
      optimizer: { name: 'adamw', beta2: 0.95, weightDecay: 0.1, clip: 1 },
      schedule: { kind: 'cosine', warmup: 50 },
    }),
    trials: pairs(['optimizer.rate', [0.008, 0.006, 0.012, 0.004]], ['steps', [800, 650, 1000]]),
    endless: false,
  },
  {
    id: 'speedrun-2024',
    title: 'Speedrun of 2024: norm of queries and keys, squared ReLU, zero-initialised outputs, Muon',
    dates: { idea: '2024-10-14', adopted: '2024-10-14', entered },
    sources:
      'The nanoGPT speedrun, record of 2024-10-14 (Jordan et al.); Muon: An optimizer for hidden layers in neural networks',
    recipe: textRecipe({
      steps: 500,
      model: { kind: 'modern-2024', ...size },
      optimizer: { name: 'muon', momentum: 0.95, beta2: 0.95 },
      schedule: { kind: 'linear', warmup: 20, cooldown: 0.5 },
    }),
    trials: pairs(['optimizer.rate', [0.05, 0.03, 0.08, 0.12]], ['steps', [500, 400, 650]]),
    endless: false,
  },
]

export const shakespeareOpen: Task = {
  id: 'shakespeare-open',
  title: 'Characters of Tiny Shakespeare, any model and optimizer (here: width 64, windows of 32 characters)',
  track: 'open',
  data: bundledText,
  metric: 'validation nats per character',
  sense: 'lower',
  ladder: [2.5, 2.3, 2.2, 2.1, 2],
  headline: 2,
  quick: 2.3,
  smoke: { target: 2.5, entries: ['rnn-2012', 'lstm-2015'] },
  evalEvery: 10,
  budgetFlop: 2.4e12,
  samples: 'characters',
  baselines: baselines.map(withBestGuess),
  train: trainText,
}
