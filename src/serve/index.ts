/** What other layers use of the server: the HTTP ground, and how errors look. */
export { serveHttp, isLoopback, type HttpOptions, type HttpServer } from './http.ts'
export { describeError, errorResponse, invalid, RequestError, type ErrorDetails } from './error.ts'
