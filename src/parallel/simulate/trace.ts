/**
 * A simulated step in the Chrome trace event format (JSON object form), as the profiler writes real ones
 * (compiler/profile.ts): a process for each simulated rank, in it a lane for its arithmetic, one for each communicator and
 * one for the messages it sends. Times in it are microseconds.
 */
import type { SimulatedRun } from './engine.ts'

export function simulatedTrace({ plan, start, end }: SimulatedRun): object {
  const messages = plan.lanes.length
  const names: object[] = plan.ranks.flatMap(({ name }, pid): object[] => [
    { ph: 'M', name: 'process_name', pid, args: { name } },
    { ph: 'M', name: 'process_sort_index', pid, args: { sort_index: pid } },
    ...[...plan.lanes, 'messages'].map((lane, tid) => ({
      ph: 'M',
      name: 'thread_name',
      pid,
      tid,
      args: { name: lane },
    })),
  ])
  return {
    displayTimeUnit: 'ms',
    otherData: { plan: plan.name },
    traceEvents: names.concat(
      plan.tasks.flatMap((task, index) => {
        if (Number.isNaN(end[index]!)) return []
        const { stage, microbatch } = task
        return [
          {
            ph: 'X',
            name: task.label,
            cat: task.category,
            pid: task.rank,
            tid: task.kind === 'compute' ? 0 : task.kind === 'collective' ? task.lane : messages,
            ts: start[index]! * 1e6,
            dur: (end[index]! - start[index]!) * 1e6,
            args: {
              stage,
              microbatch,
              ...(task.kind === 'send' ? { to: plan.ranks[task.to]!.name, bytes: task.bytes } : {}),
              ...(task.kind === 'collective'
                ? { levels: plan.collectives[task.collective]!.cost.levels }
                : {}),
            },
          },
        ]
      }),
    ),
  }
}
