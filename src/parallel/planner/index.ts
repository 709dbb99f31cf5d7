/** The planner: models, hardware and a number of ranks in, ranked plans and reasons out. */
export { settingsOf, type Candidate, type Rejection } from './candidate.ts'
export { usableShare, type RankMemory } from './memory.ts'
export {
  modelByName,
  parameterCount,
  plannedLanguage,
  publishedModels,
  withContext,
  type PlannedModel,
} from './models.ts'
export {
  searchPlans,
  type Planned,
  type RejectedKind,
  type SearchOptions,
  type SearchResult,
} from './search.ts'
