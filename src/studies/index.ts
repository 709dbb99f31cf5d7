/** Studies: what is measured over many runs, or computed from published figures. */
export { analysePaper, type PaperAnalysis } from './efficiency/paper.ts'
export { paperFigure } from './efficiency/paper-figure.ts'
export { paperReport, paperReportName } from './efficiency/paper-report.ts'
export { efficiencyData, readPaperTables, type PaperTables } from './efficiency/tables.ts'
export { reportHtml, reportMarkdown, type Report } from './report.ts'
