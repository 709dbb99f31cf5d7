/**
 * Trees: nested plain records whose leaves are tensors (or types, or arrays). They are how programs take parameters and
 * state; a leaf's path, joined by dots, names it in checkpoints, errors and sharding rules.
 */
export type Tree<T> = T | { readonly [key: string]: Tree<T> }

const isBranch = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' &&
  value !== null &&
  Object.getPrototypeOf(value) === Object.prototype &&
  !('dtype' in value)

/** Leaves in key order of construction, with their paths. */
export function leaves<T>(tree: Tree<T>, path = ''): [string, T][] {
  if (!isBranch(tree)) return [[path, tree as T]]
  return Object.entries(tree).flatMap(([key, child]) =>
    leaves(child as Tree<T>, path === '' ? key : `${path}.${key}`),
  )
}

/** The same tree with each leaf replaced. The shape of the tree is kept, hence the cast-free generic result. */
export function mapTree<T, U>(tree: Tree<T>, visit: (leaf: T, path: string) => U, path = ''): Tree<U> {
  if (!isBranch(tree)) return visit(tree as T, path)
  return Object.fromEntries(
    Object.entries(tree).map(([key, child]) => [
      key,
      mapTree(child as Tree<T>, visit, path === '' ? key : `${path}.${key}`),
    ]),
  )
}
