//! Index definitions: names, columns, lengths.

use rutile_expr::types::MysqlType;

use crate::catalog::model::{ColumnInfo, HandleKind, IndexColumnInfo, IndexId, IndexInfo, SchemaState};
use crate::parser::ast::{IndexDef, IndexKind, IndexPart};
use crate::{Error, Result};

pub const KEYS_MAX: usize = 64;
const KEY_PARTS_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 3072;

/// The name of the primary key.
pub const PRIMARY: &str = "PRIMARY";

/// Builds an index over these columns. `taken` says whether a name is in use.
pub fn build(
    def: &IndexDef,
    id: IndexId,
    columns: &[ColumnInfo],
    taken: impl Fn(&str) -> bool,
) -> Result<IndexInfo> {
    match def.kind {
        IndexKind::Fulltext => return Err(Error::not_supported("FULLTEXT indexes")),
        IndexKind::Spatial => return Err(Error::not_supported("SPATIAL indexes")),
        IndexKind::Primary | IndexKind::Unique | IndexKind::Plain => {}
    }
    if def.columns.len() > KEY_PARTS_MAX {
        return Err(Error::TooManyKeyParts { max: KEY_PARTS_MAX });
    }
    let primary = def.kind == IndexKind::Primary;
    let mut parts = Vec::with_capacity(def.columns.len());
    for part in &def.columns {
        let IndexPart::Column { name, length } = &part.part else {
            return Err(Error::not_supported("functional indexes"));
        };
        let (offset, column) =
            find(columns, name).ok_or_else(|| Error::KeyColumnMissing { column: name.clone() })?;
        if parts.iter().any(|other: &IndexColumnInfo| other.column == column.id) {
            return Err(Error::DupFieldName { column: name.clone() });
        }
        let prefix = prefix_of(column, *length)?;
        parts.push(IndexColumnInfo { column: column.id, offset, prefix, desc: part.desc });
    }
    check_length(&parts, columns)?;
    let name = match &def.name {
        _ if primary => PRIMARY.to_string(),
        Some(name) => checked_name(name, &taken)?,
        None => generated_name(&columns[parts[0].offset].name, &taken),
    };
    if primary && def.options.invisible == Some(true) {
        return Err(Error::DropPrimaryInvisible);
    }
    let comment = def.options.comment.clone().unwrap_or_default();
    if comment.chars().count() > 1024 {
        return Err(Error::Mysql {
            code: 1688,
            state: "HY000",
            message: format!("Comment for index '{name}' is too long (max = 1024)"),
        });
    }
    Ok(IndexInfo {
        id,
        name,
        columns: parts,
        unique: def.kind != IndexKind::Plain,
        primary,
        invisible: def.options.invisible.unwrap_or(false),
        comment,
        using: def.options.using.clone(),
        state: SchemaState::Public,
    })
}

fn find<'a>(columns: &'a [ColumnInfo], name: &str) -> Option<(usize, &'a ColumnInfo)> {
    columns.iter().enumerate().find(|(_, column)| column.name.to_lowercase() == name.to_lowercase())
}

fn checked_name(name: &str, taken: impl Fn(&str) -> bool) -> Result<String> {
    if name.eq_ignore_ascii_case(PRIMARY) || name.is_empty() || name.ends_with(' ') {
        return Err(Error::WrongNameForIndex { key: name.into() });
    }
    if taken(name) {
        return Err(Error::DupKeyName { key: name.into() });
    }
    Ok(name.into())
}

/// MySQL's name for an index without one: its first column's, with a number if that is taken.
fn generated_name(column: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(column) && !column.eq_ignore_ascii_case(PRIMARY) {
        return column.into();
    }
    (2..).map(|number| format!("{column}_{number}")).find(|name| !taken(name)).unwrap_or_default()
}

/// The stored prefix length of a key part, once it is known to be allowed.
fn prefix_of(column: &ColumnInfo, length: Option<u64>) -> Result<Option<u32>> {
    let ty = &column.ty;
    if ty.tp == MysqlType::Json {
        return Err(Error::Mysql {
            code: 3152,
            state: "42000",
            message: format!(
                "JSON column '{}' supports indexing only via generated columns on a specified JSON path.",
                column.name
            ),
        });
    }
    let Some(length) = length else {
        return if ty.is_blob() {
            Err(Error::BlobKeyWithoutLength { column: column.name.clone() })
        } else {
            Ok(None)
        };
    };
    if !ty.is_string() {
        return Err(Error::WrongSubKey);
    }
    if length == 0 {
        return Err(Error::Mysql {
            code: 1391,
            state: "HY000",
            message: format!("Key part '{}' length cannot be 0", column.name),
        });
    }
    if ty.is_blob() {
        return match u32::try_from(length) {
            Ok(length) if length as usize <= KEY_BYTES_MAX => Ok(Some(length)),
            _ => Err(Error::TooLongKey { max_bytes: KEY_BYTES_MAX }),
        };
    }
    match length.cmp(&u64::from(ty.flen)) {
        std::cmp::Ordering::Less => Ok(Some(length as u32)),
        std::cmp::Ordering::Equal => Ok(None),
        std::cmp::Ordering::Greater => Err(Error::WrongSubKey),
    }
}

fn check_length(parts: &[IndexColumnInfo], columns: &[ColumnInfo]) -> Result<()> {
    let total: usize = parts.iter().map(|part| part_bytes(&columns[part.offset], part.prefix)).sum();
    if total > KEY_BYTES_MAX {
        return Err(Error::TooLongKey { max_bytes: KEY_BYTES_MAX });
    }
    Ok(())
}

/// The most bytes a key part takes by MySQL's reckoning.
pub fn part_bytes(column: &ColumnInfo, prefix: Option<u32>) -> usize {
    let ty = &column.ty;
    if ty.is_string() {
        let chars = prefix.unwrap_or(ty.flen) as usize;
        return chars * ty.collation.charset().char_bytes_max() as usize;
    }
    match ty.tp {
        MysqlType::Tiny | MysqlType::Year => 1,
        MysqlType::Short | MysqlType::Enum => 2,
        MysqlType::Int24 | MysqlType::Date | MysqlType::Time => 3,
        MysqlType::Long | MysqlType::Float | MysqlType::Timestamp => 4,
        MysqlType::Decimal => ty.flen as usize / 2 + 1,
        _ => 8,
    }
}

/// Orders indexes as MySQL does: primary, unique without NULLs, unique, others; each in the order of definition.
pub fn sort(indexes: &mut [std::sync::Arc<IndexInfo>], columns: &[ColumnInfo]) {
    indexes.sort_by_key(|index| {
        let nullable = index.columns.iter().any(|part| !columns[part.offset].ty.not_null);
        match (index.primary, index.unique, nullable) {
            (true, ..) => 0,
            (_, true, false) => 1,
            (_, true, true) => 2,
            _ => 3,
        }
    });
}

/// How rows are identified, given the primary key.
pub fn handle_kind(primary: Option<&IndexInfo>, columns: &[ColumnInfo]) -> HandleKind {
    let Some(primary) = primary else { return HandleKind::Hidden };
    if let [part] = primary.columns.as_slice() {
        let ty = &columns[part.offset].ty;
        if ty.is_integer() && !matches!(ty.tp, MysqlType::Year | MysqlType::Bit) {
            return HandleKind::Int { offset: part.offset };
        }
    }
    HandleKind::Common
}
