/**
 * A function as text, one node a line, the functions it carries (bodies of loops and composites) before it:
 *
 *     func @double(%0 x: f32[rows=4, 8]) -> (%2) {
 *       %1 = constant : f32[] {"dtype":"f32","value":2}
 *       ...
 *     }
 *
 * Nodes are numbered across all functions printed, in creation order, which is also the order in which they will run.
 * Nodes that the function does not reach leave no trace. `parseFunc` reads the text back.
 */
import { bodyOf, Func, reachable, type Attrs, type Node } from './node.ts'
import type { AxisName, ValueType } from './types.ts'

/** The text of a function and everything it carries. */
export function printFunc(func: Func): string {
  const funcs = carried(func)
  const nodes = new Set(funcs.flatMap((each) => nodesOf(each)))
  const numbers = new Map([...nodes].toSorted((a, b) => a.id - b.id).map((node, i) => [node, i]))
  const names = uniqueNames(funcs)
  const refs = (list: readonly Node[], gap: string): string => list.map((x) => `%${numbers.get(x)}`).join(gap)
  const texts = funcs.map((each) => {
    const params = new Set(each.params)
    const header = each.params.map(
      (x) => `${refs([x], '')} ${word(String(x.attrs['name']))}: ${typeText(x.type)}`,
    )
    const lines = nodesOf(each)
      .filter((node) => !params.has(node))
      .map((node) => {
        const inputs = node.inputs.length === 0 ? '' : ` ${refs(node.inputs, ' ')}`
        return `  ${refs([node], '')} = ${node.op.name}${inputs} : ${typesText(node.types)}${attrsText(node.attrs, names)}`
      })
    return [
      `func ${names.get(each)}(${header.join(', ')}) -> (${refs(each.results, ', ')}) {`,
      ...lines,
      '}',
      '',
    ].join('\n')
  })
  return texts.join('\n')
}

const nodesOf = (func: Func): Node[] => reachable([...func.params, ...func.results])

/** The function and the bodies inside it, each behind all that it carries. */
function carried(func: Func): Func[] {
  const found = new Set<Func>()
  const visit = (each: Func): void => {
    if (found.has(each)) return
    for (const node of nodesOf(each)) {
      const body = bodyOf(node)
      if (body) visit(body)
    }
    found.add(each)
  }
  visit(func)
  return [...found]
}

/** `@name`, with `#1`, `#2`, … behind it where several functions share one name. */
function uniqueNames(funcs: readonly Func[]): ReadonlyMap<Func, string> {
  const counts = new Map<string, number>()
  return new Map(
    funcs.map((func) => {
      const count = counts.get(func.name) ?? 0
      counts.set(func.name, count + 1)
      return [func, `@${word(func.name)}${count === 0 ? '' : `#${count}`}`]
    }),
  )
}

/** A name as it is where that cannot be misread, else as a JSON string. */
export const word = (name: string): string => (/^[A-Za-z_][\w.]*$/.test(name) ? name : JSON.stringify(name))

const axisText = (name: AxisName, extent: number): string =>
  name === null ? `${extent}` : `${word(name)}=${extent}`

const typeText = ({ dtype, shape, axes }: ValueType): string =>
  `${dtype}[${shape.map((extent, i) => axisText(axes[i]!, extent)).join(', ')}]`

const typesText = (types: readonly ValueType[]): string =>
  types.length === 1 ? typeText(types[0]!) : `(${types.map(typeText).join(', ')})`

function attrsText(attrs: Attrs, names: ReadonlyMap<Func, string>): string {
  if (Object.keys(attrs).length === 0) return ''
  const json = JSON.stringify(attrs, (_, value: unknown) => {
    if (value instanceof Func) return names.get(value)
    // JSON has no text for these.
    if (typeof value === 'number' && (!Number.isFinite(value) || Object.is(value, -0))) {
      return { $number: Object.is(value, -0) ? '-0' : String(value) }
    }
    return value
  })
  return ` ${json}`
}
