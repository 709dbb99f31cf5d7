/** How many files, connections included, the operating system lets this process have open; infinite where it does not say. */
export function openFileLimit(): number {
  // The types of Node do not know of `excludeNetwork` yet.
  const report: typeof process.report & { excludeNetwork?: boolean } = process.report
  const withoutNetwork = report.excludeNetwork ?? false
  // Else it would look up the name of every peer.
  report.excludeNetwork = true
  const { userLimits } = report.getReport() as {
    userLimits?: { open_files?: { soft?: number | string } }
  }
  report.excludeNetwork = withoutNetwork
  const soft = userLimits?.open_files?.soft
  return typeof soft === 'number' ? soft : Infinity
}
