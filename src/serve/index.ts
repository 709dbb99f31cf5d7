/** What other layers use of the server: the HTTP ground, how errors look, engines and their routes. */
export { serveHttp, isLoopback, type HttpOptions, type HttpServer } from './http.ts'
export { describeError, errorResponse, invalid, RequestError, type ErrorDetails } from './error.ts'
export { Engine, type EngineOptions, type Served } from './engine.ts'
export { enginesOf, type Engines, type ModelEntry } from './engines.ts'
export { openaiRoutes, type RouteOptions } from './routes.ts'
export { serveRun, type RunServingOptions, type ServedRun } from './run.ts'
export { isPublicFolder, servePublic, type PublicServingOptions } from './public.ts'
export { runEngines, type RunEngines } from './run-engines.ts'
