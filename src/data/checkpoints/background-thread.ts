/**
 * The thread of a CheckpointSaver: writes the copy in the shadow buffer whenever it is told to, one checkpoint at a time.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { UserError } from '../../errors.ts'
import type { ThreadAnswer, ThreadJob, ThreadSetup } from './background.ts'
import { writeCheckpoint } from './write.ts'

const { request, shadow, local } = workerData as ThreadSetup

const data = local.map(({ rank, places }) => ({
  rank,
  data: places.map(([at, bytes]) => new Uint8Array(shadow, at, bytes)),
}))

async function answer(job: ThreadJob): Promise<ThreadAnswer> {
  try {
    return { kind: 'done', entry: await writeCheckpoint({ ...request, ...job }, data) }
  } catch (error) {
    if (error instanceof UserError) {
      return { kind: 'failed', complaint: error.complaint, exitCode: error.exitCode }
    }
    return { kind: 'defect', text: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}

parentPort!.on(
  'message',
  (job: ThreadJob) => void answer(job).then((said) => parentPort!.postMessage(said, [])),
)
