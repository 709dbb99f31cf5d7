/**
 * The shape of the tree, kept by force: imports go downwards only, native calls and the argument parser stay in
 * their corner, files stay readable in size, and every file opens by saying what it is.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What each folder of `src` may import besides itself and `errors.ts`, which all may. */
const layers: Readonly<Record<string, readonly string[]>> = {
  compiler: [],
  nn: ['compiler'],
  optim: ['compiler'],
  data: [],
  runs: [],
  worlds: [],
  models: ['nn', 'optim', 'data', 'compiler'],
  parallel: ['runs', 'models', 'nn', 'optim', 'data', 'compiler'],
  train: ['parallel', 'runs', 'models', 'nn', 'optim', 'data', 'compiler'],
  serve: ['train', 'runs', 'models', 'nn', 'data', 'compiler'],
  studies: ['train', 'parallel', 'runs', 'worlds', 'models', 'nn', 'optim', 'data', 'compiler'],
  lab: ['studies', 'serve', 'train', 'parallel', 'runs', 'models', 'optim', 'data', 'compiler'],
  cli: ['lab', 'studies', 'serve', 'train', 'parallel', 'runs', 'models', 'nn', 'optim', 'data', 'compiler'],
}

/** Inside the compiler: each may import what stands after it; folders of one rank may import each other. */
const compilerRanks: readonly (readonly string[])[] = [
  ['runtime', 'targets'],
  ['passes'],
  ['composites'],
  ['trace'],
  ['ops'],
  ['graph'],
]

/** Packages that only some folders may import, tests aside. */
const packageHomes: Readonly<Record<string, readonly string[]>> = {
  commander: ['cli'],
  koffi: ['compiler/runtime', 'data'],
  'node:sqlite': ['runs'],
  hono: ['serve', 'lab'],
  '@hono/node-server': ['serve', 'lab'],
  '@huggingface/jinja': ['serve'],
}

const maxLines = 700
/** Files that may be longer, each with the reason. */
const longFiles: Readonly<Record<string, string>> = {}

interface Source {
  /** From the repository root, with `/`. */
  readonly path: string
  readonly text: string
}

const sources: readonly Source[] = ['src', 'tests', 'bench', 'examples', 'bin'].flatMap((folder) => {
  if (!existsSync(join(root, folder))) return []
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((file) => posix.join(folder, file.replaceAll('\\', '/')))
    .filter((path) => /\.(ts|js)$/.test(path) && !/(^|\/)(\.venv|node_modules|fixtures)\//.test(path))
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }))
})
const library = sources.filter(({ path }) => path.startsWith('src/'))

/** Module names a file imports, static and dynamic, types included. Lines of comments are not code. */
function importsOf({ text }: Source): string[] {
  const code = text.replaceAll(/\/\*[^]*?\*\//g, '').replaceAll(/^\s*\/\/.*$/gm, '')
  return [...code.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'([^'\n]+)'/g)].map((match) => match[1]!)
}

/** `src/nn/linear.ts` -> `nn`; files right in `src` -> their own name. */
const folderOf = (path: string): string => path.split('/')[1]!

test('relative imports name existing files, with their extension', () => {
  const broken = sources.flatMap((source) =>
    importsOf(source)
      .filter((name) => name.startsWith('.'))
      .map((name) => posix.join(dirname(source.path), name))
      .filter((target) => !existsSync(join(root, target)) || !/\.\w+$/.test(target))
      .map((target) => `${source.path} imports ${target}`),
  )
  assert.deepEqual(broken, [])
})

test('imports go downwards only', () => {
  const upwards = library.flatMap((source) =>
    importsOf(source)
      .filter((name) => name.startsWith('.'))
      .map((name) => posix.join(dirname(source.path), name))
      .filter((target) => !isAllowed(source.path, target))
      .map((target) => `${source.path} imports ${target}`),
  )
  assert.deepEqual(upwards, [])
})

function isAllowed(from: string, to: string): boolean {
  if (to === 'src/errors.ts' || from === 'src/index.ts') return true
  const [source, target] = [folderOf(from), folderOf(to)]
  if (source === target) return source !== 'compiler' || isAllowedInCompiler(from, to)
  return layers[source]?.includes(target) ?? false
}

/** Files right in `src/compiler`, such as its index, stand above its folders. Tests may look at any of them. */
function isAllowedInCompiler(from: string, to: string): boolean {
  if (from.endsWith('.test.ts')) return true
  return rank(from) <= rank(to)
}

const rank = (path: string): number =>
  compilerRanks.findIndex((folders) => folders.includes(path.split('/')[2]!))

test('a new folder of src says where it stands', () => {
  const unknown = library
    .map(({ path }) => folderOf(path))
    .filter((f) => !f.endsWith('.ts') && !(f in layers))
  assert.deepEqual([...new Set(unknown)], [])
  const ranked = compilerRanks.flat()
  const compilerFolders = library
    .map(({ path }) => path.split('/'))
    .flatMap((parts) => (parts[1] === 'compiler' && parts.length > 3 ? [parts[2]!] : []))
  assert.deepEqual(
    [...new Set(compilerFolders)].filter((folder) => !ranked.includes(folder)),
    [],
  )
})

test('each of some packages is imported in one corner only', () => {
  const strays = library
    .filter(({ path }) => !path.endsWith('.test.ts'))
    .flatMap((source) =>
      importsOf(source)
        .filter(
          (name) => packageHomes[name]?.every((home) => !source.path.startsWith(`src/${home}/`)) ?? false,
        )
        .map((name) => `${source.path} imports ${name}`),
    )
  assert.deepEqual(strays, [])
})

test('files stay under the size limit', () => {
  const long = sources
    .filter(({ path }) => !(path in longFiles))
    .map(({ path, text }) => ({ path, lines: text.split('\n').length }))
    .filter(({ lines }) => lines > maxLines)
  assert.deepEqual(long, [])
})

test('every file opens by saying what it is', () => {
  const silent = sources.filter(({ text }) => !/^(#!.*\n)?\/\*\*[^]+?\*\//.test(text)).map(({ path }) => path)
  assert.deepEqual(silent, [])
})
