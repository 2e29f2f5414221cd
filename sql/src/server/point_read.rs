//! Point reads answered in place, of COM_STMT_EXECUTE and of texts whose plan is known: see [`crate::session::point_read`].

use mysql_common::constants::CapabilityFlags;
use rutile_expr::types::{Charset, FieldType};

use super::codec::{Reader, put_lenenc_bytes, put_lenenc_int};
use super::connection::Conn;
use super::params::decode_execute;
use super::response::{write_column, write_end, write_eof};
use super::resultset::{NULL_CELL, RowFormat, put_binary_int, put_text};
use crate::executor::point_read::{PointCell, PointRow};
use crate::session::point_read::PointAnswer;
use crate::session::text_plan::TextHit;

const COM_STMT_EXECUTE: u8 = 23;

impl Conn {
    /// Answers an execution of a prepared point read into the out buffer. `false`, with nothing done, for everything else.
    pub(super) fn try_point_read(&mut self, payload: &[u8]) -> bool {
        let Some((&COM_STMT_EXECUTE, body)) = payload.split_first() else { return false };
        let Ok(id) = Reader::new(body).u32() else { return false };
        if self.session.point_read(id).is_none() {
            return false;
        }
        let (Some(state), Ok(prepared)) =
            (self.statements.get_mut(&id), self.session.prepared.get(id, "mysqld_stmt_execute"))
        else {
            return false;
        };
        let sent_ahead = state.long_data_error.is_some() || state.long_data.iter().any(Option::is_some);
        if sent_ahead || state.cursor.is_some() {
            return false;
        }
        let decoded = decode_execute(&body[4..], prepared.params, &mut state.types, &mut state.long_data);
        let Ok(execute) = decoded else { return false };
        if execute.cursor {
            return false;
        }
        match self.session.try_point_read(id, &execute.params) {
            Some(answer) => self.write_point_answer(&answer, RowFormat::Binary),
            None => false,
        }
    }

    /// Answers a text that need not be parsed and reads one row by its key. `false`, with nothing done, for everything else.
    pub(super) fn try_text_point_read(&mut self, hit: &TextHit) -> bool {
        match self.session.try_text_point_read(hit) {
            Some(answer) => self.write_point_answer(&answer, RowFormat::Text),
            None => false,
        }
    }

    fn write_point_answer(&mut self, answer: &PointAnswer, format: RowFormat) -> bool {
        let charset = self.session.settings().results;
        let columns = &answer.read.schema.columns;
        put_lenenc_int(self.io.begin_packet(), columns.len() as u64);
        self.io.end_packet();
        columns.iter().for_each(|column| write_column(&mut self.io, column, charset));
        if !self.capabilities.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF) {
            write_eof(&mut self.io, answer.ok.status, 0);
        }
        if let Some(row) = &answer.row {
            let charset = charset.map(|(charset, _)| charset);
            match format {
                RowFormat::Binary => self.write_point_row(answer, row, charset),
                RowFormat::Text => self.write_point_text(answer, row, charset),
            }
        }
        write_end(&mut self.io, self.capabilities, &answer.ok);
        true
    }

    fn write_point_text(&mut self, answer: &PointAnswer, row: &PointRow, charset: Option<Charset>) {
        let out = self.io.begin_packet();
        let mut digits = itoa::Buffer::new();
        let put = |cell: PointCell<'_>, ty: &FieldType| match cell {
            PointCell::Null => out.push(NULL_CELL),
            PointCell::Int(value) => put_lenenc_bytes(out, digits.format(value).as_bytes()),
            PointCell::UInt(value) => put_lenenc_bytes(out, digits.format(value).as_bytes()),
            PointCell::Bytes(bytes) => put_bytes(out, bytes, ty, charset),
        };
        // The row was opened before: it cannot fail any more.
        let opened = answer.read.cells(row, put);
        debug_assert!(opened.is_ok());
        self.io.end_packet();
    }

    fn write_point_row(&mut self, answer: &PointAnswer, row: &PointRow, charset: Option<Charset>) {
        let columns = answer.read.schema.len();
        let out = self.io.begin_packet();
        out.push(0);
        let bitmap = out.len();
        out.resize(bitmap + (columns + 9) / 8, 0);
        let mut place = 2;
        let put = |cell: PointCell<'_>, ty: &FieldType| {
            match cell {
                PointCell::Null => out[bitmap + place / 8] |= 1 << (place % 8),
                PointCell::Int(value) => put_binary_int(out, value as u64, ty.tp),
                PointCell::UInt(value) => put_binary_int(out, value, ty.tp),
                PointCell::Bytes(bytes) => put_bytes(out, bytes, ty, charset),
            }
            place += 1;
        };
        // The row was opened before: it cannot fail any more.
        let opened = answer.read.cells(row, put);
        debug_assert!(opened.is_ok());
        self.io.end_packet();
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8], ty: &FieldType, charset: Option<Charset>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !ty.is_binary_string() => {
            put_text(out, text, charset.unwrap_or_else(|| ty.collation.charset()));
        }
        _ => put_lenenc_bytes(out, bytes),
    }
}
