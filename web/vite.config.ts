/**
 * How the page is built: into `dist/web`, where the server and the package find it. Nothing is inlined, since the server's
 * Content-Security-Policy allows only files.
 */
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  logLevel: 'warn',
  build: {
    outDir: fileURLToPath(new URL('../dist/web', import.meta.url)),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
  },
  // `npx vite web` beside a running lab, for working on the page.
  server: { proxy: { '/api': 'http://127.0.0.1:4242', '/v1': 'http://127.0.0.1:4242' } },
})
