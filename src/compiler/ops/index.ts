/** The primitives, in reading order. A new op is one file and one line here; tests and FEATURES.md follow from it. */
import type { Op } from '../graph/op.ts'
import { addOp } from './add.ts'
import { barrierOp } from './barrier.ts'
import { broadcastOp } from './broadcast.ts'
import { callOp } from './call.ts'
import { castOp } from './cast.ts'
import { concatOp } from './concat.ts'
import { constantOp } from './constant.ts'
import { convOp } from './conv.ts'
import { convInputOp } from './conv-input.ts'
import { convWeightOp } from './conv-weight.ts'
import { cosOp } from './cos.ts'
import { divOp } from './div.ts'
import { dotOp } from './dot.ts'
import { equalOp } from './equal.ts'
import { erfOp } from './erf.ts'
import { expOp } from './exp.ts'
import { floorOp } from './floor.ts'
import { gatherOp } from './gather.ts'
import { getOp } from './get.ts'
import { gradOp } from './grad.ts'
import { groupRankOp } from './group-rank.ts'
import { groupedDotOp } from './grouped-dot.ts'
import { groupedOuterOp } from './grouped-outer.ts'
import { inputOp } from './input.ts'
import { iotaOp } from './iota.ts'
import { lessOp } from './less.ts'
import { logOp } from './log.ts'
import { maxOp } from './max.ts'
import { modOp } from './mod.ts'
import { mulOp } from './mul.ts'
import { negOp } from './neg.ts'
import { padOp } from './pad.ts'
import { powerFloorOp } from './power-floor.ts'
import { randomOp } from './random.ts'
import { reduceMaxOp } from './reduce-max.ts'
import { reshapeOp } from './reshape.ts'
import { roundFp8Op } from './round-fp8.ts'
import { scanOp } from './scan.ts'
import { scatterOp } from './scatter.ts'
import { scatterAddOp } from './scatter-add.ts'
import { sinOp } from './sin.ts'
import { sliceOp } from './slice.ts'
import { sqrtOp } from './sqrt.ts'
import { sumOp } from './sum.ts'
import { tanhOp } from './tanh.ts'
import { topkOp } from './topk.ts'
import { transposeOp } from './transpose.ts'
import { allGatherOp } from './all-gather.ts'
import { allReduceOp } from './all-reduce.ts'
import { allToAllOp } from './all-to-all.ts'
import { meshIndexOp } from './mesh-index.ts'
import { reduceScatterOp } from './reduce-scatter.ts'
import { receiveOp, sendOp } from './send.ts'
import { shardOp } from './shard.ts'
import { shiftOp } from './shift.ts'
import { whereOp } from './where.ts'

export const ops: readonly Op[] = [
  // leaves
  inputOp,
  constantOp,
  iotaOp,
  randomOp,
  // elementwise
  negOp,
  expOp,
  logOp,
  sinOp,
  cosOp,
  sqrtOp,
  tanhOp,
  erfOp,
  floorOp,
  powerFloorOp,
  castOp,
  roundFp8Op,
  addOp,
  mulOp,
  divOp,
  maxOp,
  modOp,
  lessOp,
  equalOp,
  whereOp,
  // reductions and products
  sumOp,
  reduceMaxOp,
  dotOp,
  convOp,
  convInputOp,
  convWeightOp,
  groupedDotOp,
  groupedOuterOp,
  // movement
  reshapeOp,
  transposeOp,
  broadcastOp,
  sliceOp,
  padOp,
  concatOp,
  barrierOp,
  // indexed access
  gatherOp,
  scatterAddOp,
  scatterOp,
  topkOp,
  groupRankOp,
  // between ranks
  meshIndexOp,
  shardOp,
  allReduceOp,
  allGatherOp,
  reduceScatterOp,
  allToAllOp,
  shiftOp,
  sendOp,
  receiveOp,
  // structure
  callOp,
  scanOp,
  gradOp,
  getOp,
]
