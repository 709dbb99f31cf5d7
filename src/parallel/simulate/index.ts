/** The simulator: from what a plan costs to how long a step takes, and why. */
export { buildPlan } from './build.ts'
export { collectiveCost, groupShape } from './collective-cost.ts'
export type { Algorithm, CollectiveCost, CollectiveKind, LevelCost } from './collective-cost.ts'
export { compiledPlan, type Cluster, type Wire } from './compiled.ts'
export type {
  GroupCollective,
  Injected,
  OptimizerCosts,
  PieceCollective,
  PlanCosts,
  StageCosts,
} from './costs.ts'
export { simulate, type SimulatedRun, type Stall } from './engine.ts'
export type {
  Category,
  Collective,
  CollectiveTask,
  ComputeTask,
  Failure,
  Link,
  SendTask,
  SimulatedPlan,
  SimulatedRank,
  Task,
} from './plan.ts'
export { bestStepsPerCheckpoint, failureCost, goodput } from './restart.ts'
export type { FailureCost, RestartCosts } from './restart.ts'
export { mixedAdam, shardedCollectives, stateBytesPerParameter } from './sharded-state.ts'
export type { ShardLevel, StateBytes } from './sharded-state.ts'
export { summarize } from './summary.ts'
export type { LevelSummary, RankSummary, StepSummary } from './summary.ts'
export type { Axis } from './symmetry.ts'
export { runRows, scheduleRows, timelineSvg } from './timeline-svg.ts'
export type { TimelineBar, TimelineOptions, TimelineRow } from './timeline-svg.ts'
export { simulatedTrace } from './trace.ts'
