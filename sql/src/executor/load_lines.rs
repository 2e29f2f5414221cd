//! Lines and fields of a text file as LOAD DATA's FIELDS and LINES clauses describe them.

use crate::parser::ast::LoadFormat;
use crate::{Error, Result};

/// One field of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `\N`, or the bare word NULL where fields are enclosed.
    Null,
    /// Its bytes, unescaped.
    Value(Vec<u8>),
}

/// Cuts a stream of bytes into lines of fields.
pub struct LineReader<'a> {
    format: &'a LoadFormat,
    enclosed: Option<u8>,
    escaped: Option<u8>,
    buffer: Vec<u8>,
    /// Where the next line begins in the buffer.
    at: usize,
}

/// A field or line that goes on beyond the buffer.
struct Incomplete;

/// What ended a field.
#[derive(PartialEq, Eq)]
enum End {
    Field,
    Line,
}

impl<'a> LineReader<'a> {
    /// A reader of this format.
    pub fn new(format: &'a LoadFormat) -> Result<Self> {
        if format.fields_terminated.is_empty() {
            return Err(Error::not_supported("LOAD DATA with fields of fixed size"));
        }
        Ok(LineReader {
            enclosed: format.enclosed.first().copied(),
            escaped: format.escaped.first().copied(),
            format,
            buffer: Vec::new(),
            at: 0,
        })
    }

    /// Appends more of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The fields of the next line; `None` if more of the file is needed, or at its end.
    pub fn next_line(&mut self, at_end: bool) -> Result<Option<Vec<Field>>> {
        let Some(mut position) = self.line_start() else { return Ok(None) };
        let mut fields = Vec::new();
        loop {
            let Ok((field, end, next)) = self.field(position, at_end) else { return Ok(None) };
            fields.push(field);
            position = next;
            if end == End::Line {
                self.at = position;
                return Ok(Some(fields));
            }
        }
    }

    /// Just after LINES STARTING BY; `None` if there is no further line.
    fn line_start(&self) -> Option<usize> {
        let rest = self.buffer.get(self.at..).filter(|rest| !rest.is_empty())?;
        let prefix = &self.format.lines_starting;
        if prefix.is_empty() {
            return Some(self.at);
        }
        let found = rest.windows(prefix.len()).position(|w| w == &prefix[..])?;
        Some(self.at + found + prefix.len())
    }

    fn field(&self, start: usize, at_end: bool) -> Result<(Field, End, usize), Incomplete> {
        match self.enclosed {
            Some(quote) if self.buffer.get(start) == Some(&quote) => {
                self.enclosed_field(start, quote, at_end)
            }
            _ => self.plain_field(start, at_end),
        }
    }

    /// What ends at `position`, and the position behind it.
    fn end_at(&self, position: usize) -> Option<(End, usize)> {
        let rest = &self.buffer[position..];
        let lines = &self.format.lines_terminated;
        // A terminator of lines may begin with one of fields.
        if !lines.is_empty() && rest.starts_with(lines) {
            return Some((End::Line, position + lines.len()));
        }
        let fields = &self.format.fields_terminated;
        rest.starts_with(fields).then_some((End::Field, position + fields.len()))
    }

    /// Whether a terminator may be cut off at the buffer's end.
    fn may_be_cut(&self, position: usize, at_end: bool) -> bool {
        let longest = self.format.lines_terminated.len().max(self.format.fields_terminated.len());
        !at_end && position + longest > self.buffer.len()
    }

    fn plain_field(&self, start: usize, at_end: bool) -> Result<(Field, End, usize), Incomplete> {
        let mut value = Vec::new();
        let mut is_null = false;
        let mut position = start;
        loop {
            if self.may_be_cut(position, at_end) {
                return Err(Incomplete);
            }
            if position >= self.buffer.len() {
                return Ok((self.finish(value, is_null), End::Line, position));
            }
            if let Some((end, next)) = self.end_at(position) {
                return Ok((self.finish(value, is_null), end, next));
            }
            let byte = self.buffer[position];
            position += 1;
            if Some(byte) == self.escaped {
                match self.buffer.get(position) {
                    None if !at_end => return Err(Incomplete),
                    None => value.push(byte),
                    Some(b'N') if value.is_empty() && position == start + 1 => {
                        is_null = true;
                        position += 1;
                    }
                    Some(escaped) => {
                        value.push(unescaped(*escaped));
                        position += 1;
                    }
                }
            } else {
                value.push(byte);
            }
        }
    }

    fn finish(&self, value: Vec<u8>, is_null: bool) -> Field {
        let word = self.enclosed.is_some() && value == b"NULL";
        if (is_null && value.is_empty()) || word { Field::Null } else { Field::Value(value) }
    }

    fn enclosed_field(
        &self,
        start: usize,
        quote: u8,
        at_end: bool,
    ) -> Result<(Field, End, usize), Incomplete> {
        let mut value = Vec::new();
        let mut position = start + 1;
        loop {
            if self.may_be_cut(position + 1, at_end) {
                return Err(Incomplete);
            }
            let Some(byte) = self.buffer.get(position).copied() else {
                // The closing character is missing.
                return Ok((Field::Value(value), End::Line, position));
            };
            position += 1;
            if byte == quote {
                if self.buffer.get(position) == Some(&quote) {
                    value.push(quote);
                    position += 1;
                    continue;
                }
                if position >= self.buffer.len() {
                    return Ok((Field::Value(value), End::Line, position));
                }
                if let Some((end, next)) = self.end_at(position) {
                    return Ok((Field::Value(value), end, next));
                }
                value.push(byte);
            } else if Some(byte) == self.escaped {
                match self.buffer.get(position) {
                    None => value.push(byte),
                    Some(escaped) => {
                        value.push(unescaped(*escaped));
                        position += 1;
                    }
                }
            } else {
                value.push(byte);
            }
        }
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'0' => 0,
        b'b' => 8,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'Z' => 26,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Field {
        Field::Value(text.as_bytes().to_vec())
    }

    /// All lines, whatever the pieces in which the file comes.
    fn lines(format: &LoadFormat, text: &[u8]) -> Vec<Vec<Field>> {
        let mut results: Vec<Vec<Vec<Field>>> = Vec::new();
        for piece in [1, 2, 3, text.len().max(1)] {
            let mut reader = LineReader::new(format).unwrap();
            let mut all = Vec::new();
            for bytes in text.chunks(piece) {
                reader.push(bytes);
                while let Some(line) = reader.next_line(false).unwrap() {
                    all.push(line);
                }
            }
            reader.push(b"");
            while let Some(line) = reader.next_line(true).unwrap() {
                all.push(line);
            }
            results.push(all);
        }
        assert!(results.windows(2).all(|w| w[0] == w[1]), "{results:?}");
        results.remove(0)
    }

    #[test]
    fn the_default_format() {
        let got = lines(&LoadFormat::default(), b"1\ta\\tb\t\\N\n2\t\tc\\\nd");
        assert_eq!(
            got,
            [vec![value("1"), value("a\tb"), Field::Null], vec![value("2"), value(""), value("c\nd")]]
        );
    }

    #[test]
    fn comma_separated_values() {
        let format = LoadFormat {
            fields_terminated: b",".to_vec(),
            enclosed: b"\"".to_vec(),
            optionally_enclosed: true,
            lines_terminated: b"\r\n".to_vec(),
            ..LoadFormat::default()
        };
        let got = lines(&format, b"1,\"a,\"\"b\"\"\",NULL\r\n\"NULL\",x\"y,\r\n");
        assert_eq!(
            got,
            [vec![value("1"), value("a,\"b\""), Field::Null], vec![value("NULL"), value("x\"y"), value("")]]
        );
    }

    #[test]
    fn lines_that_start_with_a_mark() {
        let format = LoadFormat { lines_starting: b"xx".to_vec(), ..LoadFormat::default() };
        assert_eq!(lines(&format, b"junk xx1\t2\nnone\nxx3\t4\n")[0], [value("1"), value("2")]);
    }
}
