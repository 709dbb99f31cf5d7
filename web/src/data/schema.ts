/** The fields of a recipe's form, read from its JSON schema, so that a new setting shows up by itself. */

export interface Field {
  /** Dotted, as on the command line. */
  readonly key: string
  readonly name: string
  readonly group: string
  readonly help: string
  readonly kind: 'number' | 'choice' | 'switch' | 'text'
  readonly options: readonly string[]
  readonly least?: number
  readonly whole: boolean
}

interface Schema {
  readonly type?: string
  readonly description?: string
  readonly properties?: Readonly<Record<string, Schema>>
  readonly enum?: readonly unknown[]
  readonly minimum?: number
}

/** Leaves of a schema in its order. */
export function fieldsOf(schema: object, prefix = ''): Field[] {
  return Object.entries((schema as Schema).properties ?? {}).flatMap(([name, field]): Field[] => {
    if (field.properties) return fieldsOf(field, `${prefix}${name}.`)
    const options = (field.enum ?? []).map(String)
    const isNumber = field.type === 'number' || field.type === 'integer'
    return [
      {
        key: prefix + name,
        name,
        group: prefix === '' ? 'run' : prefix.slice(0, -1),
        help: field.description ?? '',
        kind:
          options.length > 0 ? 'choice' : field.type === 'boolean' ? 'switch' : isNumber ? 'number' : 'text',
        options: options.length > 0 ? options : field.type === 'boolean' ? ['true', 'false'] : [],
        ...(isNumber && field.minimum !== undefined && field.minimum > -1e15 ? { least: field.minimum } : {}),
        whole: field.type === 'integer',
      },
    ]
  })
}
