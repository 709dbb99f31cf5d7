/**
 * The open track on images: 7,000 handwritten digits, small convolutional networks of eras. They share a stem and a head
 * (models/image.ts), so that what differs is what each era brought; batch size is tuned with the rate. Without augmentation
 * these networks end near 97.5 %, which is why the ladder ends at 97.
 */
import { bundledDigits, trainDigits } from '../image-trainer.ts'
import { withBestGuess, type Baseline, type Recipe, type Setting, type Task } from '../task.ts'
import { constantRate, entered, pairs, plainOptimizer } from './text-recipes.ts'

type Changes = Readonly<Record<string, Setting>>

const recipe = (kind: string, steps: number, optimizer: Changes, schedule: Changes = {}): Recipe => ({
  steps,
  batch: 50,
  model: { kind, width: 8 },
  optimizer: { ...plainOptimizer, ...optimizer },
  schedule: { ...constantRate, ...schedule },
})

/** Six rates by two sizes of batch. */
const endless = (rates: readonly number[]): Baseline['trials'] =>
  pairs(['optimizer.rate', rates], ['batch', [50, 25]])

/** Three rates by four ends. */
const ending = (
  rates: readonly number[],
  ends: readonly { readonly batch: number; readonly steps: number }[],
): Baseline['trials'] => rates.flatMap((rate) => ends.map((end) => ({ 'optimizer.rate': rate, ...end })))

const baselines: readonly Baseline[] = [
  {
    id: 'tanh-1998',
    title: 'Convolutional network of 1998: tanh, SGD',
    dates: { idea: '1998-11-01', adopted: '1998-11-01', entered },
    sources:
      'Gradient-based learning applied to document recognition (LeCun et al., Proceedings of the IEEE, November 1998, day unknown)',
    recipe: recipe('tanh-1998', 4000, { name: 'sgd' }),
    trials: endless([0.1, 0.05, 0.2, 0.03, 0.3, 0.5]),
    endless: true,
  },
  {
    id: 'relu-2012',
    title: 'Convolutional network of 2012: rectifiers, momentum',
    dates: { idea: '2012-12-03', adopted: '2012-12-03', entered },
    sources: 'ImageNet Classification with Deep Convolutional Neural Networks (Krizhevsky et al., NIPS 2012)',
    recipe: recipe('relu-2012', 4000, { name: 'momentum' }),
    trials: endless([0.02, 0.01, 0.05, 0.005, 0.1, 0.003]),
    endless: true,
  },
  {
    id: 'norm-2015',
    title: 'Batch norm of 2015: rectifiers, momentum',
    dates: { idea: '2015-02-11', adopted: '2015-07-06', entered },
    sources:
      'Batch Normalization: Accelerating Deep Network Training (Ioffe & Szegedy, arXiv 1502.03167; ICML 2015)',
    recipe: recipe('norm-2015', 4000, { name: 'momentum' }),
    trials: endless([0.05, 0.02, 0.1, 0.2, 0.01, 0.5]),
    endless: true,
  },
  {
    id: 'residual-2016',
    title: 'Residual network of 2016: shortcut, batch norm, momentum, weight decay',
    dates: { idea: '2015-12-10', adopted: '2016-06-27', entered },
    sources: 'Deep Residual Learning for Image Recognition (He et al., arXiv 1512.03385; CVPR 2016)',
    recipe: recipe('residual-2016', 1500, { name: 'momentum', weightDecay: 1e-4 }),
    trials: endless([0.05, 0.02, 0.1, 0.2, 0.01, 0.5]),
    endless: true,
  },
  {
    id: 'adamw-2019',
    title: 'Residual network, AdamW with cosine decay of 2019',
    dates: { idea: '2017-11-14', adopted: '2019-05-06', entered },
    sources: 'Decoupled Weight Decay Regularization (Loshchilov & Hutter, arXiv 1711.05101; ICLR 2019)',
    recipe: recipe(
      'residual-2016',
      300,
      { name: 'adamw', weightDecay: 0.05 },
      { kind: 'cosine', warmup: 20 },
    ),
    trials: ending(
      [0.01, 0.005, 0.02],
      [
        { batch: 50, steps: 300 },
        { batch: 50, steps: 220 },
        { batch: 25, steps: 450 },
        { batch: 25, steps: 330 },
      ],
    ),
    endless: false,
  },
  {
    id: 'muon-2024',
    title: 'Residual network, Muon with linear decay of 2024',
    dates: { idea: '2024-10-04', adopted: '2025-02-24', entered },
    sources:
      'Muon: An optimizer for hidden layers in neural networks (Jordan et al.); Muon is Scalable for LLM Training (Liu et al., arXiv 2502.16982)',
    recipe: recipe('residual-2016', 250, { name: 'muon' }, { kind: 'linear', cooldown: 0.7 }),
    trials: ending(
      [0.05, 0.03, 0.1],
      [
        { batch: 50, steps: 250 },
        { batch: 50, steps: 180 },
        { batch: 25, steps: 380 },
        { batch: 25, steps: 280 },
      ],
    ),
    endless: false,
  },
]

export const digits: Task = {
  id: 'digits',
  title:
    'Handwritten digits, 7,000 of 28 x 28 pixels, any model and optimizer (here: small convolutional networks)',
  track: 'open',
  data: bundledDigits,
  metric: 'validation accuracy, %',
  sense: 'higher',
  ladder: [90, 93, 95, 96, 97],
  headline: 96,
  quick: 95,
  smoke: { target: 90, entries: ['norm-2015', 'muon-2024'] },
  evalEvery: 10,
  budgetFlop: 1.5e11,
  samples: 'images',
  baselines: baselines.map(withBestGuess),
  train: trainDigits,
}
