/** The tasks of the efficiency study, in the order they are shown. A new one is a file of this folder and a line here. */
import { badUsage, didYouMean } from '../../../errors.ts'
import type { Task } from '../task.ts'
import { acrobot } from './acrobot.ts'
import { digits } from './digits.ts'
import { shakespeareOpen } from './shakespeare-open.ts'
import { shakespeareOptimizers } from './shakespeare-opt.ts'

export const tasks: readonly Task[] = [shakespeareOptimizers, shakespeareOpen, acrobot, digits]

export function taskNamed(id: string): Task {
  const found = tasks.find((task) => task.id === id)
  if (found) return found
  const ids = tasks.map((task) => task.id)
  const near = didYouMean(id, ids)
  throw badUsage({
    where: 'task',
    got: `'${id}'`,
    expected: `one of ${ids.join(', ')}`,
    fix: near === undefined ? 'see anneal study --help' : `did you mean ${near}?`,
  })
}
