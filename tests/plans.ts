/** Plans for tests, in words. */
import type { MeshAxis } from '../src/compiler/graph/mesh.ts'
import type { Plan } from '../src/parallel/plan.ts'

/** A plan from its shortest text: `data=2 tensor=2 zero=3 sequence`. */
export function planOf(text: string): Plan {
  const plan = { mesh: [] as MeshAxis[], zero: 0, sequence: false, attention: 'gather' }
  for (const word of text.split(' ')) {
    const [name, value] = word.split('=') as [string, string?]
    if (name === 'zero') plan.zero = Number(value)
    else if (name === 'sequence') plan.sequence = true
    else if (name === 'attention') plan.attention = value!
    else if (value !== undefined) plan.mesh.push({ name, size: Number(value) })
  }
  if (plan.attention === 'ring') {
    plan.mesh = plan.mesh.map((axis) => (axis.name === 'context' ? { ...axis, order: 'zigzag' } : axis))
  }
  return plan as unknown as Plan
}
