/**
 * Acrobot: two links that hang from a pivot, with a motor at the joint between them only; it is to swing its tip a link's
 * length above the pivot (Sutton, Generalization in Reinforcement Learning, NIPS 1996; equations as in Sutton & Barto's book,
 * which is also the convention of Gymnasium's Acrobot-v1). Many at a time, each in its own row.
 *
 * A step is 0.2 s of constant torque, integrated by one step of Runge-Kutta of order 4. Reward is -1 a step and 0 for the one
 * that arrives; an episode that has not arrived after 500 steps is cut off, which is no end: the world would have gone on.
 */

/** Angle of the first link from hanging down, of the second from the first, and their velocities. */
export type State = readonly [angle1: number, angle2: number, velocity1: number, velocity2: number]

const gravity = 9.8
/** Mass and length of each link are 1, its centre is in its middle, its moment of inertia is 1. */
const centre = 0.5
const inertia = 1

const seconds = 0.2
export const stepLimit = 500
/** Torques by action. */
export const torques = [-1, 0, 1] as const
export const observationSize = 6
const fastest = [4 * Math.PI, 9 * Math.PI] as const

/** Change of a state a second. */
function derivative([angle1, angle2, velocity1, velocity2]: State, torque: number): State {
  const [cos2, sin2] = [Math.cos(angle2), Math.sin(angle2)]
  const d1 = centre ** 2 + (1 + centre ** 2 + 2 * centre * cos2) + 2 * inertia
  const d2 = centre ** 2 + centre * cos2 + inertia
  const pull2 = centre * gravity * Math.sin(angle1 + angle2)
  const pull1 =
    -centre * velocity2 ** 2 * sin2 -
    2 * centre * velocity2 * velocity1 * sin2 +
    (centre + 1) * gravity * Math.sin(angle1) +
    pull2
  const acceleration2 =
    (torque + (d2 / d1) * pull1 - centre * velocity1 ** 2 * sin2 - pull2) /
    (centre ** 2 + inertia - d2 ** 2 / d1)
  const acceleration1 = -(d2 * acceleration2 + pull1) / d1
  return [velocity1, velocity2, acceleration1, acceleration2]
}

const moved = (state: State, by: number, along: State): State => [
  state[0] + by * along[0],
  state[1] + by * along[1],
  state[2] + by * along[2],
  state[3] + by * along[3],
]

/** One step of Runge-Kutta, without limits on angles and velocities. */
export function advance(state: State, torque: number, time: number): State {
  const k1 = derivative(state, torque)
  const k2 = derivative(moved(state, time / 2, k1), torque)
  const k3 = derivative(moved(state, time / 2, k2), torque)
  const k4 = derivative(moved(state, time, k3), torque)
  const mean = moved(moved(k1, 2, k2), 1, moved(k4, 2, k3))
  return moved(state, time / 6, mean)
}

/** Kinetic and potential energy; without torque it stays. */
export function energy([angle1, angle2, velocity1, velocity2]: State): number {
  const cos2 = Math.cos(angle2)
  const d1 = centre ** 2 + (1 + centre ** 2 + 2 * centre * cos2) + 2 * inertia
  const d2 = centre ** 2 + centre * cos2 + inertia
  const kinetic =
    0.5 * d1 * velocity1 ** 2 + d2 * velocity1 * velocity2 + 0.5 * (centre ** 2 + inertia) * velocity2 ** 2
  const height1 = -centre * Math.cos(angle1)
  const height2 = -Math.cos(angle1) - centre * Math.cos(angle1 + angle2)
  return kinetic + gravity * (height1 + height2)
}

/** Whether the tip is more than a link's length above the pivot. */
export const arrived = ([angle1, angle2]: State): boolean => -Math.cos(angle1) - Math.cos(angle1 + angle2) > 1

const wrapped = (angle: number): number => {
  const turns = Math.floor((angle + Math.PI) / (2 * Math.PI))
  return angle - 2 * Math.PI * turns
}

const limited = (velocity: number, most: number): number => Math.max(-most, Math.min(most, velocity))

/** A step of the world: 0.2 s, angles brought back to [-pi, pi), velocities limited. */
export function nextState(state: State, action: number): State {
  const [angle1, angle2, velocity1, velocity2] = advance(state, torques[action]!, seconds)
  return [wrapped(angle1), wrapped(angle2), limited(velocity1, fastest[0]), limited(velocity2, fastest[1])]
}

/** What happened to one row in a step. */
export type Happened = 'goes on' | 'arrived' | 'cut off'

/** `count` acrobots; `random` gives numbers in [0, 1) for their first states, each within 0.1 of hanging still. */
export class Acrobots {
  readonly #states: State[]
  readonly #steps: Int32Array
  readonly #random: () => number

  constructor(count: number, random: () => number) {
    this.#random = random
    this.#steps = new Int32Array(count)
    this.#states = Array.from({ length: count }, () => this.#first())
  }

  #first(): State {
    const near = (): number => 0.2 * this.#random() - 0.1
    return [near(), near(), near(), near()]
  }

  /** Writes cosines and sines of the angles and the velocities of every row. */
  observe(into: Float32Array): void {
    this.#states.forEach(([angle1, angle2, velocity1, velocity2], row) => {
      into.set(
        [Math.cos(angle1), Math.sin(angle1), Math.cos(angle2), Math.sin(angle2), velocity1, velocity2],
        row * observationSize,
      )
    })
  }

  /** Moves every row; the ended ones keep their last state until `restart`. */
  step(actions: ArrayLike<number>): Happened[] {
    return this.#states.map((state, row) => {
      const next = nextState(state, actions[row]!)
      this.#states[row] = next
      this.#steps[row]!++
      return arrived(next) ? 'arrived' : this.#steps[row]! >= stepLimit ? 'cut off' : 'goes on'
    })
  }

  restart(row: number): void {
    this.#states[row] = this.#first()
    this.#steps[row] = 0
  }
}
