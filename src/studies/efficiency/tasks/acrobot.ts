/**
 * The open track on control: the Acrobot is to swing up (worlds/acrobot.ts), by policy gradients of eras. Nets are the same,
 * with 64 hidden units; what differs is how advantages are estimated, how often data are used, and the optimizer.
 */
import { trainSwing } from '../swing-trainer.ts'
import { withBestGuess, type Baseline, type Recipe, type Setting, type Task } from '../task.ts'
import { entered, pairs, plainOptimizer } from './text-recipes.ts'

type Changes = Readonly<Record<string, Setting>>

interface Groups {
  readonly worlds: number
  readonly horizon: number
  readonly advantage: Changes
  readonly update?: Changes
  readonly optimizer: Changes
}

const recipe = ({ worlds, horizon, advantage, update = {}, optimizer }: Groups): Recipe => ({
  steps: 300_000,
  worlds,
  horizon,
  width: 64,
  advantage: { kind: 'value', discount: 0.99, lambda: 1, standardised: false, ...advantage },
  update: { epochs: 1, parts: 1, clipRatio: 0, entropy: 0, value: 0.5, ...update },
  optimizer: { ...plainOptimizer, ...optimizer },
})

const baselines: readonly Baseline[] = [
  {
    id: 'reinforce',
    title: 'REINFORCE: returns of episodes less their mean, SGD',
    dates: { idea: '1992-05-01', adopted: '1992-05-01', entered },
    sources:
      'Simple statistical gradient-following algorithms for connectionist reinforcement learning (Williams, Machine Learning, May 1992, day unknown)',
    recipe: recipe({
      worlds: 8,
      horizon: 500,
      advantage: { kind: 'return' },
      optimizer: { name: 'sgd' },
    }),
    trials: pairs(['optimizer.rate', [0.01, 0.003, 0.03, 0.1, 0.3, 0.001]], ['optimizer.clip', [0, 1]]),
    endless: true,
  },
  {
    id: 'actor-critic',
    title: 'Actor-critic: one step ahead by a learned value, SGD',
    dates: { idea: '1999-11-29', adopted: '1999-11-29', entered },
    sources:
      'Policy Gradient Methods for Reinforcement Learning with Function Approximation (Sutton et al., NIPS 1999); Actor-Critic Algorithms (Konda & Tsitsiklis, NIPS 1999)',
    recipe: recipe({
      worlds: 16,
      horizon: 4,
      advantage: { lambda: 0 },
      optimizer: { name: 'sgd' },
    }),
    trials: pairs(['optimizer.rate', [0.03, 0.01, 0.1, 0.003, 0.3, 0.001]], ['optimizer.clip', [0, 1]]),
    endless: true,
  },
  {
    id: 'a2c',
    title: 'Advantage actor-critic: some steps ahead, bonus for entropy, Adam',
    dates: { idea: '2016-02-04', adopted: '2016-06-19', entered },
    sources:
      'Asynchronous Methods for Deep Reinforcement Learning (Mnih et al., arXiv 1602.01783; ICML 2016)',
    recipe: recipe({
      worlds: 16,
      horizon: 8,
      advantage: {},
      update: { entropy: 0.01 },
      optimizer: { name: 'adamw', clip: 0.5 },
    }),
    trials: pairs(['optimizer.rate', [0.003, 0.001, 0.006, 0.01, 0.002, 0.0005]], ['horizon', [8, 16]]),
    endless: true,
  },
  {
    id: 'gae',
    title: 'Generalised advantages, Adam',
    dates: { idea: '2015-06-08', adopted: '2016-05-02', entered },
    sources:
      'High-Dimensional Continuous Control Using Generalized Advantage Estimation (Schulman et al., arXiv 1506.02438; ICLR 2016)',
    recipe: recipe({
      worlds: 16,
      horizon: 32,
      advantage: { lambda: 0.95, standardised: true },
      optimizer: { name: 'adamw', clip: 0.5 },
    }),
    trials: pairs(['optimizer.rate', [0.01, 0.005, 0.003, 0.02, 0.03, 0.001]], ['horizon', [32, 16]]),
    endless: true,
  },
  {
    id: 'ppo',
    title: 'Proximal policy optimization: clipped ratios, several passes, Adam',
    dates: { idea: '2017-07-20', adopted: '2017-07-20', entered },
    sources: 'Proximal Policy Optimization Algorithms (Schulman et al., arXiv 1707.06347)',
    recipe: recipe({
      worlds: 16,
      horizon: 64,
      advantage: { lambda: 0.95, standardised: true },
      update: { epochs: 4, parts: 4, clipRatio: 0.2 },
      optimizer: { name: 'adamw', clip: 0.5 },
    }),
    trials: pairs(['optimizer.rate', [0.003, 0.005, 0.002, 0.01, 0.001, 0.02]], ['update.epochs', [4, 2]]),
    endless: true,
  },
]

export const acrobot: Task = {
  id: 'acrobot',
  title: 'Acrobot swings up, any policy gradient (here: one hidden layer of 64 units)',
  track: 'open',
  data: null,
  metric: 'mean return',
  sense: 'higher',
  ladder: [-200, -150, -100, -90],
  headline: -100,
  quick: -150,
  smoke: { target: -200, entries: ['gae', 'ppo'] },
  evalEvery: 2000,
  budgetFlop: 4e9,
  samples: 'environment steps',
  baselines: baselines.map(withBestGuess),
  train: trainSwing,
}
