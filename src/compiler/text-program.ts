/** A program of the text target: everything that is known of it, but it cannot run. */
import { failure } from '../errors.ts'
import type { Program } from './program.ts'

/** What a program that is text and nothing else says to whoever wants to run it. */
export function onlyText(
  name: string,
): Pick<
  Program,
  | 'cached'
  | 'view'
  | 'pieces'
  | 'write'
  | 'run'
  | 'runBlocking'
  | 'countedFlops'
  | 'traffic'
  | 'checkReplicas'
  | 'checkUnchanged'
  | 'movedBytes'
  | 'profile'
  | 'close'
> {
  const refuse = (): never => {
    throw failure({
      where: name,
      got: "a program compiled with target 'text'",
      expected: 'one that can run',
      fix: "compile it with target 'c'",
    })
  }
  return {
    cached: false,
    view: refuse,
    pieces: refuse,
    write: refuse,
    run: async () => refuse(),
    runBlocking: refuse,
    countedFlops: refuse,
    traffic: refuse,
    checkReplicas: refuse,
    checkUnchanged: refuse,
    movedBytes: refuse,
    profile: refuse,
    close() {},
  }
}
