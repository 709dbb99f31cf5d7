/**
 * The 2020 analysis again ("Measuring the Algorithmic Efficiency of Neural Networks"): from its printed table the fit, the
 * intervals it never published, Moore's Law beside it, and how far the answer moves when a disputed cell is read otherwise.
 * Everything here is computed from data/efficiency; the paper's own statements are printed beside it by the report.
 */
import {
  compareWithMoore,
  fitHalving,
  frontierOf,
  halvingDetails,
  type Dated,
  type Halving,
  type HalvingDetails,
} from '../halving.ts'
import { InternalError } from '../../errors.ts'
import type { Network, PaperTables } from './tables.ts'

/** Images of an epoch of ImageNet as the paper rounds them. */
const imagesAnEpoch = 1.28e6
/** A training pass costs three forward passes: one forward, two backward. */
const passes = 3
/** Footnote 2 of the paper: AlexNet came within 99.6 % of the target at this epoch of its 90. */
const alexNetNearlyThere = 62

const seed = 2020

export interface RederivedRow extends Dated {
  readonly network: Network
  readonly onFrontier: boolean
  /** Epochs x multiply-adds x images x 3, in petaFLOP, a multiply-add as one. */
  readonly rederived: number
  readonly deviation: number
  /** AlexNet's cost over this one's. */
  readonly efficiency: number
}

export interface Variant {
  readonly name: string
  readonly halving: Halving
}

export interface PaperAnalysis {
  readonly tables: PaperTables
  readonly rows: readonly RederivedRow[]
  readonly frontier: readonly RederivedRow[]
  readonly halving: Halving
  readonly details: HalvingDetails
  readonly moore: ReturnType<typeof compareWithMoore>
  readonly rederivedFactor: number
  readonly variants: readonly Variant[]
  readonly ratios: readonly { readonly name: string; readonly printed: number; readonly computed: number }[]
  readonly speedrun: readonly Variant[]
}

export function analysePaper(tables: PaperTables): PaperAnalysis {
  const dated = tables.networks.map((network) => {
    const rederived =
      network['epochs_to_79.1pct_top5'] *
      network.gmac_per_image_forward *
      1e9 *
      imagesAnEpoch *
      passes *
      1e-15
    const { model: name, date, printed_value: cost } = network
    const deviation = rederived / cost - 1
    return { name, date, cost, network, rederived, deviation }
  })
  const frontierNames = frontierOf(dated).map(({ name }) => name)
  const first = dated.find(({ name }) => name === frontierNames[0])!
  const rows = dated.map((row) =>
    Object.assign(row, {
      onFrontier: frontierNames.includes(row.name),
      efficiency: first.cost / row.cost,
    }),
  )
  const frontier = frontierNames.map((name) => rows.find((row) => row.name === name)!)
  const halving = fitHalving(frontier)
  return {
    tables,
    rows,
    frontier,
    halving,
    details: halvingDetails(frontier, seed),
    moore: compareWithMoore(halving),
    rederivedFactor: frontier[0]!.rederived / frontier.at(-1)!.rederived,
    variants: variantsOf(tables, rows, frontier),
    ratios: tables.ratios.map((row) => ({
      name: `${row.original} -> ${row.improved}`,
      printed: row.printed_factor,
      computed: (row.original_quantity * row.original_factor) / (row.improved_quantity * row.improved_factor),
    })),
    speedrun: speedrunOf(tables),
  }
}

/** The same question, asked of other readings of the data. */
function variantsOf(
  { board }: PaperTables,
  rows: readonly RederivedRow[],
  frontier: readonly RederivedRow[],
): readonly Variant[] {
  const publicRows = board.filter(({ level }) => level === 'AlexNet-level')
  const late = publicRows.find(({ model }) => model === 'ShuffleNet v2 1x')
  const shuffleNet = frontier.find(({ name }) => name === 'ShuffleNet_v2_1x')
  const alexNet = frontier[0]!
  if (late === undefined || shuffleNet === undefined)
    throw new InternalError('no ShuffleNet v2 in the tables')
  const epochs = alexNet.network['epochs_to_79.1pct_top5']
  const { cost } = alexNet
  const variant = (name: string, among: readonly Dated[]): Variant => ({ name, halving: fitHalving(among) })
  const instead = (row: RederivedRow, change: Partial<Dated>): readonly Dated[] =>
    frontier.with(frontier.indexOf(row), { ...row, ...change })
  return [
    variant(
      "the public board's values and dates",
      publicRows.map((row) => ({ name: row.model, date: row.date_as_published_iso, cost: row.tflops_days })),
    ),
    variant(
      `ShuffleNet v2 dated ${late.date_of_arxiv_v1}`,
      instead(shuffleNet, { date: late.date_of_arxiv_v1 }),
    ),
    variant(
      `AlexNet stopped at ${alexNetNearlyThere} epochs`,
      instead(alexNet, { cost: (cost * alexNetNearlyThere) / epochs }),
    ),
    variant(`all ${rows.length} networks, not only the frontier`, rows),
  ]
}

/** The rules for timing changed after this record. */
const lastOfOldRules = 21

function speedrunOf({ speedrun }: PaperTables): readonly Variant[] {
  const records = speedrun.map((row) => ({
    name: `record ${row.record}`,
    record: row.record,
    date: row.date,
    cost: row.seconds_8xH100,
  }))
  const last = records.at(-1)!.record
  const between = (from: number, to: number): Variant => ({
    name: `records ${from} to ${to}`,
    halving: fitHalving(records.filter(({ record }) => record >= from && record <= to)),
  })
  return [between(1, lastOfOldRules), between(lastOfOldRules + 1, last), between(1, last)]
}
