//! What the server answers: OK, ERR, EOF, and column definitions.

use mysql_common::constants::{CapabilityFlags, ColumnFlags, ColumnType, StatusFlags};
use rutile_expr::types::{Charset, FieldType, MysqlType};

use super::codec::{put_lenenc_bytes, put_lenenc_int};
use super::packet::PacketIo;
use crate::Error;
use crate::plan::OutputColumn;
use crate::session::{OkInfo, StateChange};

/// The collation id of everything that is no text.
const BINARY_COLLATION_ID: u16 = 63;

/// Appends an OK packet; `header` is 0x00, or 0xfe where it stands for an EOF.
pub fn write_ok(io: &mut PacketIo, capabilities: CapabilityFlags, header: u8, ok: &OkInfo) {
    let out = io.begin_packet();
    out.push(header);
    put_lenenc_int(out, ok.affected_rows);
    put_lenenc_int(out, ok.insert_id);
    let tracked =
        capabilities.contains(CapabilityFlags::CLIENT_SESSION_TRACK) && !ok.state_changes.is_empty();
    let mut status = ok.status;
    status.set(StatusFlags::SERVER_SESSION_STATE_CHANGED, tracked);
    out.extend_from_slice(&status.bits().to_le_bytes());
    out.extend_from_slice(&ok.warnings.to_le_bytes());
    // With a length in front whether sessions are tracked or not, as a MySQL server sends it.
    if tracked || !ok.info.is_empty() {
        put_lenenc_bytes(out, ok.info.as_bytes());
    }
    if tracked {
        let mut changes = Vec::new();
        ok.state_changes.iter().for_each(|change| put_state_change(&mut changes, change));
        put_lenenc_bytes(out, &changes);
    }
    io.end_packet();
}

fn put_state_change(out: &mut Vec<u8>, change: &StateChange) {
    let mut data = Vec::new();
    let kind = match change {
        StateChange::Variable { name, value } => {
            put_lenenc_bytes(&mut data, name.as_bytes());
            put_lenenc_bytes(&mut data, value.as_bytes());
            0
        }
        StateChange::Schema(name) => {
            put_lenenc_bytes(&mut data, name.as_bytes());
            1
        }
    };
    out.push(kind);
    put_lenenc_bytes(out, &data);
}

/// Ends a list of column definitions or rows: an EOF packet, or an OK in its place for clients that know no EOF.
pub fn write_end(io: &mut PacketIo, capabilities: CapabilityFlags, ok: &OkInfo) {
    if capabilities.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF) {
        write_ok(io, capabilities, 0xfe, ok);
        return;
    }
    write_eof(io, ok.status, ok.warnings);
}

/// Appends an EOF packet.
pub fn write_eof(io: &mut PacketIo, status: StatusFlags, warnings: u16) {
    let out = io.begin_packet();
    out.push(0xfe);
    out.extend_from_slice(&warnings.to_le_bytes());
    out.extend_from_slice(&status.bits().to_le_bytes());
    io.end_packet();
}

/// Appends an ERR packet.
pub fn write_error(io: &mut PacketIo, capabilities: CapabilityFlags, error: &Error) {
    let out = io.begin_packet();
    out.push(0xff);
    out.extend_from_slice(&error.code().to_le_bytes());
    if capabilities.contains(CapabilityFlags::CLIENT_PROTOCOL_41) {
        out.push(b'#');
        out.extend_from_slice(error.sql_state().as_bytes());
    }
    // MySQL cuts messages at 512 bytes.
    let message = error.to_string();
    let mut end = message.len().min(511);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&message.as_bytes()[..end]);
    io.end_packet();
}

/// Appends one column definition; `charset` is `character_set_results` with its collation's id.
pub fn write_column(io: &mut PacketIo, column: &OutputColumn, charset: Option<(Charset, u16)>) {
    let out = io.begin_packet();
    put_column(out, column, charset);
    io.end_packet();
}

/// Appends the definition with the default value that COM_FIELD_LIST adds: always NULL.
pub fn write_field_list_column(io: &mut PacketIo, column: &OutputColumn, charset: Option<(Charset, u16)>) {
    let out = io.begin_packet();
    put_column(out, column, charset);
    out.push(0xfb);
    io.end_packet();
}

fn put_column(out: &mut Vec<u8>, column: &OutputColumn, charset: Option<(Charset, u16)>) {
    put_lenenc_bytes(out, b"def");
    put_lenenc_bytes(out, column.db.as_bytes());
    put_lenenc_bytes(out, column.table.as_bytes());
    put_lenenc_bytes(out, column.org_table.as_bytes());
    put_lenenc_bytes(out, column.name.as_bytes());
    put_lenenc_bytes(out, column.org_name.as_bytes());
    out.push(0x0c);
    let (collation_id, length) = collation_and_length(&column.ty, charset);
    out.extend_from_slice(&collation_id.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.push(protocol_type(column.ty.tp) as u8);
    out.extend_from_slice(&column_flags(column).bits().to_le_bytes());
    out.push(column_decimals(column));
    out.extend_from_slice(&[0, 0]);
}

fn collation_and_length(ty: &FieldType, charset: Option<(Charset, u16)>) -> (u16, u32) {
    if !ty.has_charset() || ty.is_binary_string() {
        return (BINARY_COLLATION_ID, ty.display_length());
    }
    match charset {
        Some((charset, id)) => (id, ty.display_length().saturating_mul(charset.char_bytes_max())),
        None => {
            (ty.collation.id(), ty.display_length().saturating_mul(ty.collation.charset().char_bytes_max()))
        }
    }
}

fn column_decimals(column: &OutputColumn) -> u8 {
    const NOT_FIXED: u8 = 31;
    if column.ty.is_string() && column.org_name.is_empty() { NOT_FIXED } else { column.ty.decimals }
}

fn column_flags(column: &OutputColumn) -> ColumnFlags {
    use ColumnFlags as F;
    let (ty, key) = (&column.ty, &column.key);
    let mut flags = F::empty();
    flags.set(F::NOT_NULL_FLAG, ty.not_null);
    flags.set(F::PRI_KEY_FLAG, key.primary);
    flags.set(F::UNIQUE_KEY_FLAG, key.unique);
    flags.set(F::MULTIPLE_KEY_FLAG, key.multiple);
    flags.set(F::PART_KEY_FLAG, key.primary || key.unique || key.multiple);
    flags.set(F::AUTO_INCREMENT_FLAG, key.auto_increment);
    flags.set(F::NO_DEFAULT_VALUE_FLAG, key.no_default);
    flags.set(F::ON_UPDATE_NOW_FLAG, key.on_update_now);
    flags.set(F::BLOB_FLAG, ty.is_blob() || matches!(ty.tp, MysqlType::Json | MysqlType::Geometry));
    flags.set(F::UNSIGNED_FLAG, ty.unsigned);
    flags.set(F::ZEROFILL_FLAG, ty.zerofill || ty.tp == MysqlType::Year);
    flags.set(F::ENUM_FLAG, ty.tp == MysqlType::Enum);
    flags.set(F::SET_FLAG, ty.tp == MysqlType::Set);
    flags.set(F::TIMESTAMP_FLAG, ty.tp == MysqlType::Timestamp && key.on_update_now);
    let computed_number = column.org_name.is_empty() && ty.is_numeric();
    let binary_text = ty.has_charset() && ty.collation.is_bin();
    let binary = computed_number || binary_text || ty.is_temporal() || ty.tp == MysqlType::Json;
    flags.set(F::BINARY_FLAG, binary);
    flags
}

/// A type's number on the wire.
pub fn protocol_type(tp: MysqlType) -> ColumnType {
    use ColumnType as C;
    match tp {
        MysqlType::Null => C::MYSQL_TYPE_NULL,
        MysqlType::Tiny => C::MYSQL_TYPE_TINY,
        MysqlType::Short => C::MYSQL_TYPE_SHORT,
        MysqlType::Int24 => C::MYSQL_TYPE_INT24,
        MysqlType::Long => C::MYSQL_TYPE_LONG,
        MysqlType::LongLong => C::MYSQL_TYPE_LONGLONG,
        MysqlType::Float => C::MYSQL_TYPE_FLOAT,
        MysqlType::Double => C::MYSQL_TYPE_DOUBLE,
        MysqlType::Decimal => C::MYSQL_TYPE_NEWDECIMAL,
        MysqlType::Year => C::MYSQL_TYPE_YEAR,
        MysqlType::Bit => C::MYSQL_TYPE_BIT,
        MysqlType::Date => C::MYSQL_TYPE_DATE,
        MysqlType::DateTime => C::MYSQL_TYPE_DATETIME,
        MysqlType::Timestamp => C::MYSQL_TYPE_TIMESTAMP,
        MysqlType::Time => C::MYSQL_TYPE_TIME,
        MysqlType::Varchar => C::MYSQL_TYPE_VAR_STRING,
        MysqlType::Char | MysqlType::Enum | MysqlType::Set => C::MYSQL_TYPE_STRING,
        MysqlType::TinyBlob | MysqlType::Blob | MysqlType::MediumBlob | MysqlType::LongBlob => {
            C::MYSQL_TYPE_BLOB
        }
        MysqlType::Json => C::MYSQL_TYPE_JSON,
        MysqlType::Geometry => C::MYSQL_TYPE_GEOMETRY,
    }
}
