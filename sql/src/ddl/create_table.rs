//! CREATE TABLE: from the syntax tree to a [`TableInfo`]. Decides only; nothing is written here.

use std::sync::Arc;

use rutile_expr::EvalContext;
use rutile_expr::types::Collation;

use crate::catalog::infoschema::now_ms;
use crate::catalog::model::{
    ColumnId, HandleKind, IndexId, IndexInfo, SchemaState, TableId, TableInfo, TableKind,
};
use crate::parser::ast::{
    CreateTable, IndexColumn, IndexDef, IndexKind, IndexOptions, IndexPart, TableConstraint, TableOption,
};
use crate::{Error, Result};

use super::column::{self, BuiltColumn};
use super::{index, types};

const COLUMNS_MAX: usize = 1017;
const ROW_BYTES_MAX: usize = 65_535;

/// Storage engines a table may name; all of them are ours.
const ENGINES: &[&str] = &[
    "INNODB",
    "MYISAM",
    "MEMORY",
    "HEAP",
    "MRG_MYISAM",
    "MERGE",
    "CSV",
    "ARCHIVE",
    "BLACKHOLE",
    "FEDERATED",
    "NDB",
    "NDBCLUSTER",
    "ARIA",
    "ROCKSDB",
    "TOKUDB",
];

/// What options say about a table.
#[derive(Debug, Default)]
pub struct Options {
    pub charset: Option<String>,
    pub collate: Option<String>,
    pub comment: Option<String>,
    pub auto_increment: Option<u64>,
    pub others: Vec<(String, String)>,
}

/// Reads table options; the last of each kind counts.
pub fn options(list: &[TableOption]) -> Result<Options> {
    let mut options = Options::default();
    for option in list {
        match option {
            TableOption::Engine(name) => {
                if !ENGINES.iter().any(|engine| engine.eq_ignore_ascii_case(name)) {
                    return Err(Error::UnknownStorageEngine { engine: name.clone() });
                }
            }
            TableOption::AutoIncrement(value) => options.auto_increment = Some(*value),
            TableOption::Charset(name) => options.charset = Some(name.clone()),
            TableOption::Collate(name) => options.collate = Some(name.clone()),
            TableOption::Comment(text) => {
                if text.chars().count() > 2048 {
                    return Err(Error::Mysql {
                        code: 1628,
                        state: "HY000",
                        message: "Comment for table '%s' is too long (max = 2048)".into(),
                    });
                }
                options.comment = Some(text.clone());
            }
            TableOption::RowFormat(format) => options.others.push(("ROW_FORMAT".into(), format.clone())),
            TableOption::Other { name, value } => match name.as_str() {
                "ENCRYPTION" if value.trim_matches(['\'', '"']).eq_ignore_ascii_case("n") => {}
                "ENCRYPTION" => return Err(Error::not_supported("ENCRYPTION")),
                "DATA DIRECTORY" | "INDEX DIRECTORY" | "TABLESPACE" | "UNION" | "CONNECTION"
                | "START TRANSACTION" | "SECONDARY_ENGINE" => return Err(Error::not_supported(name.clone())),
                _ => options.others.push((name.clone(), value.clone())),
            },
        }
    }
    Ok(options)
}

/// Builds the table. `database` is the database's collation; the id is given by the caller.
pub fn build(create: &CreateTable, database: Collation, ctx: &EvalContext) -> Result<TableInfo> {
    refuse_unsupported(create)?;
    check_table_name(&create.name.name)?;
    let options = options(&create.options)?;
    let collation = types::collation_of(options.charset.as_deref(), options.collate.as_deref(), database)?;
    let mut columns: Vec<BuiltColumn> = Vec::with_capacity(create.columns.len());
    for (position, def) in create.columns.iter().enumerate() {
        if columns.iter().any(|other| other.info.name.to_lowercase() == def.name.to_lowercase()) {
            return Err(Error::DupFieldName { column: def.name.clone() });
        }
        columns.push(column::build(def, ColumnId(position as i64 + 1), collation, ctx)?);
    }
    if columns.is_empty() {
        return Err(Error::TableMustHaveVisibleColumn);
    }
    if columns.len() > COLUMNS_MAX {
        return Err(Error::TooManyFields);
    }
    let defs = index_defs(create, &columns)?;
    make_primary_not_null(&mut columns, &defs)?;
    let next_column_id = ColumnId(columns.len() as i64 + 1);
    let columns: Vec<_> = columns.into_iter().map(|column| column.info).collect();
    if columns.iter().all(|column| column.invisible) {
        return Err(Error::TableMustHaveVisibleColumn);
    }
    let indexes = build_indexes(&defs, &columns)?;
    let mut table = TableInfo {
        id: TableId(0),
        name: create.name.name.clone(),
        kind: TableKind::Base,
        handle: HandleKind::Hidden,
        next_column_id,
        next_index_id: IndexId(indexes.len() as i64 + 1),
        columns,
        indexes,
        collation,
        comment: options.comment.unwrap_or_default(),
        auto_increment: options.auto_increment.unwrap_or(0),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        options: options.others,
        create_time_ms: now_ms(),
        version: 0,
        change: None,
    };
    table.handle = index::handle_kind(table.primary().map(|primary| &**primary), &table.columns);
    check_table(&table)?;
    Ok(table)
}

fn refuse_unsupported(create: &CreateTable) -> Result<()> {
    if create.temporary {
        return Err(Error::not_supported("TEMPORARY tables"));
    }
    if create.partition.is_some() {
        return Err(Error::not_supported("PARTITION BY"));
    }
    if create.select.is_some() {
        return Err(Error::not_supported("CREATE TABLE ... SELECT"));
    }
    for constraint in &create.constraints {
        match constraint {
            TableConstraint::ForeignKey { .. } => return Err(Error::not_supported("FOREIGN KEY")),
            TableConstraint::Check { enforced: true, .. } => {
                return Err(Error::not_supported("CHECK constraints"));
            }
            TableConstraint::Check { .. } | TableConstraint::Index(_) => {}
        }
    }
    Ok(())
}

/// Names of tables may not end in blanks or be empty.
pub fn check_table_name(name: &str) -> Result<()> {
    if name.is_empty() || name.ends_with(' ') || name.contains('\0') {
        return Err(Error::WrongTableName { table: name.into() });
    }
    Ok(())
}

/// Indexes in the order MySQL names them: those of columns first, then those of the table.
fn index_defs(create: &CreateTable, columns: &[BuiltColumn]) -> Result<Vec<IndexDef>> {
    let of_column = |kind, name: &str| IndexDef {
        kind,
        name: None,
        columns: vec![IndexColumn {
            part: IndexPart::Column { name: name.into(), length: None },
            desc: false,
        }],
        options: IndexOptions::default(),
    };
    let mut defs = Vec::new();
    for column in columns {
        if column.primary {
            defs.push(of_column(IndexKind::Primary, &column.info.name));
        }
        if column.unique {
            defs.push(of_column(IndexKind::Unique, &column.info.name));
        }
    }
    for constraint in &create.constraints {
        if let TableConstraint::Index(def) = constraint {
            defs.push(def.clone());
        }
    }
    if defs.iter().filter(|def| def.kind == IndexKind::Primary).count() > 1 {
        return Err(Error::MultiplePrimaryKey);
    }
    if defs.len() > index::KEYS_MAX {
        return Err(Error::TooManyKeys { max: index::KEYS_MAX });
    }
    Ok(defs)
}

/// The columns of the primary key become NOT NULL.
fn make_primary_not_null(columns: &mut [BuiltColumn], defs: &[IndexDef]) -> Result<()> {
    let Some(primary) = defs.iter().find(|def| def.kind == IndexKind::Primary) else { return Ok(()) };
    for part in &primary.columns {
        let IndexPart::Column { name, .. } = &part.part else { continue };
        let Some(column) = columns.iter_mut().find(|c| c.info.name.to_lowercase() == name.to_lowercase())
        else {
            continue;
        };
        if column.explicit_null {
            return Err(Error::PrimaryCantHaveNull);
        }
        column.info.ty.not_null = true;
        if column.info.default == crate::catalog::model::ColumnDefault::Null {
            column.info.default = crate::catalog::model::ColumnDefault::None;
        }
    }
    Ok(())
}

fn build_indexes(
    defs: &[IndexDef],
    columns: &[crate::catalog::model::ColumnInfo],
) -> Result<Vec<Arc<IndexInfo>>> {
    let mut indexes: Vec<Arc<IndexInfo>> = Vec::with_capacity(defs.len());
    // Names that were given come first, so that generated ones avoid them.
    let given: Vec<&str> = defs.iter().filter_map(|def| def.name.as_deref()).collect();
    for (position, def) in defs.iter().enumerate() {
        let named = def.name.is_some();
        let taken = |name: &str| {
            indexes.iter().any(|index: &Arc<IndexInfo>| index.name.eq_ignore_ascii_case(name))
                || (!named && given.iter().any(|other| other.eq_ignore_ascii_case(name)))
        };
        let index = index::build(def, IndexId(position as i64 + 1), columns, taken)?;
        indexes.push(Arc::new(index));
    }
    index::sort(&mut indexes, columns);
    Ok(indexes)
}

/// What must hold of a table as a whole.
pub fn check_table(table: &TableInfo) -> Result<()> {
    super::default_expr::check(table)?;
    let mut autos = table.columns.iter().enumerate().filter(|(_, column)| column.auto_increment);
    if let Some((offset, _)) = autos.next() {
        let keyed = table.indexes.iter().any(|index| {
            index.state == SchemaState::Public
                && index.columns.first().is_some_and(|part| part.offset == offset)
        });
        if autos.next().is_some() || !keyed {
            return Err(Error::WrongAutoKey);
        }
    }
    let bytes: usize = table
        .columns
        .iter()
        .filter(|column| !column.ty.is_blob())
        .map(|column| {
            let bytes = index::part_bytes(column, None);
            bytes + if column.ty.is_string() { if bytes > 255 { 2 } else { 1 } } else { 0 }
        })
        .sum();
    if bytes > ROW_BYTES_MAX {
        return Err(Error::TooBigRowSize { max: ROW_BYTES_MAX });
    }
    Ok(())
}
