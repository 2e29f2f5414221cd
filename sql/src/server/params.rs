//! Parameters of COM_STMT_EXECUTE: the NULL bitmap, the types (kept from the last execution when the client does not
//! repeat them), the values, and what came before as long data.

use bytes::Bytes;
use mysql_common::constants::ColumnType;
use rutile_expr::types::{Datum, Duration, Time};

use super::codec::Reader;
use crate::{Error, Result};

/// A parameter's type as the client bound it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParamType {
    tp: ColumnType,
    unsigned: bool,
}

/// What COM_STMT_EXECUTE carries besides the statement's id.
#[derive(Debug, PartialEq)]
pub struct Execute {
    /// Whether the client wants to fetch rows piece by piece.
    pub cursor: bool,
    /// One value per parameter.
    pub params: Vec<Datum>,
}

/// Decodes the payload after the statement's id. `types` holds the types bound last and receives new ones; a parameter with
/// long data has no value in the payload.
pub fn decode_execute(
    payload: &[u8],
    count: usize,
    types: &mut Vec<ParamType>,
    long_data: &mut [Option<Vec<u8>>],
) -> Result<Execute> {
    let mut reader = Reader::new(payload);
    let flags = reader.u8()?;
    let _iterations = reader.u32()?;
    let mut params = Vec::with_capacity(count);
    if count == 0 {
        return Ok(Execute { cursor: flags & 1 != 0, params });
    }
    let nulls = reader.bytes(count.div_ceil(8))?;
    if reader.u8()? == 1 {
        types.clear();
        for _ in 0..count {
            let [tp, flag] = reader.array()?;
            let tp = ColumnType::try_from(tp).map_err(|_| Error::MalformedPacket)?;
            types.push(ParamType { tp, unsigned: flag & 0x80 != 0 });
        }
    }
    if types.len() != count {
        return Err(Error::WrongArguments { to: "mysqld_stmt_execute".to_owned() });
    }
    for (index, param_type) in types.iter().enumerate() {
        let long = long_data.get_mut(index).and_then(Option::take);
        let datum = match long {
            Some(bytes) => text_or_bytes(*param_type, &bytes),
            None if nulls[index / 8] & (1 << (index % 8)) != 0 => Datum::Null,
            None => read_value(&mut reader, *param_type)?,
        };
        params.push(datum);
    }
    Ok(Execute { cursor: flags & 1 != 0, params })
}

fn text_or_bytes(param_type: ParamType, bytes: &[u8]) -> Datum {
    use ColumnType as C;
    let blob = matches!(
        param_type.tp,
        C::MYSQL_TYPE_TINY_BLOB | C::MYSQL_TYPE_MEDIUM_BLOB | C::MYSQL_TYPE_LONG_BLOB | C::MYSQL_TYPE_BLOB
    );
    match std::str::from_utf8(bytes) {
        Ok(text) if !blob => Datum::String(text.to_owned()),
        _ => Datum::Bytes(bytes.to_vec()),
    }
}

fn read_value(reader: &mut Reader<'_>, param_type: ParamType) -> Result<Datum> {
    use ColumnType as C;
    let unsigned = param_type.unsigned;
    let int = |signed: i64, bits: u64| if unsigned { Datum::UInt(bits) } else { Datum::Int(signed) };
    Ok(match param_type.tp {
        C::MYSQL_TYPE_NULL => Datum::Null,
        C::MYSQL_TYPE_TINY => {
            let value = reader.u8()?;
            int(i64::from(value as i8), u64::from(value))
        }
        C::MYSQL_TYPE_SHORT | C::MYSQL_TYPE_YEAR => {
            let value = reader.u16()?;
            int(i64::from(value as i16), u64::from(value))
        }
        C::MYSQL_TYPE_LONG | C::MYSQL_TYPE_INT24 => {
            let value = reader.u32()?;
            int(i64::from(value as i32), u64::from(value))
        }
        C::MYSQL_TYPE_LONGLONG => {
            let value = reader.u64()?;
            int(value as i64, value)
        }
        C::MYSQL_TYPE_FLOAT => {
            // A FLOAT's shortest text is what the client meant, not its binary expansion.
            let value = f32::from_le_bytes(reader.array()?);
            Datum::Double(ryu::Buffer::new().format(value).parse().unwrap_or(f64::from(value)))
        }
        C::MYSQL_TYPE_DOUBLE => Datum::Double(f64::from_le_bytes(reader.array()?)),
        C::MYSQL_TYPE_DATE | C::MYSQL_TYPE_DATETIME | C::MYSQL_TYPE_TIMESTAMP => {
            Datum::Time(read_datetime(reader)?)
        }
        C::MYSQL_TYPE_TIME => Datum::Duration(read_time(reader)?),
        C::MYSQL_TYPE_DECIMAL
        | C::MYSQL_TYPE_NEWDECIMAL
        | C::MYSQL_TYPE_VARCHAR
        | C::MYSQL_TYPE_BIT
        | C::MYSQL_TYPE_ENUM
        | C::MYSQL_TYPE_SET
        | C::MYSQL_TYPE_TINY_BLOB
        | C::MYSQL_TYPE_MEDIUM_BLOB
        | C::MYSQL_TYPE_LONG_BLOB
        | C::MYSQL_TYPE_BLOB
        | C::MYSQL_TYPE_VAR_STRING
        | C::MYSQL_TYPE_STRING
        | C::MYSQL_TYPE_GEOMETRY
        | C::MYSQL_TYPE_JSON => text_or_bytes(param_type, reader.lenenc_bytes()?),
        _ => return Err(Error::MalformedPacket),
    })
}

fn read_datetime(reader: &mut Reader<'_>) -> Result<Time> {
    let length = reader.u8()?;
    if !matches!(length, 0 | 4 | 7 | 11) {
        return Err(Error::MalformedPacket);
    }
    if length == 0 {
        return Ok(Time(0));
    }
    let (year, month, day) = (reader.u16()?, reader.u8()?, reader.u8()?);
    let (mut hour, mut minute, mut second, mut micros) = (0, 0, 0, 0);
    if length >= 7 {
        (hour, minute, second) = (reader.u8()?, reader.u8()?, reader.u8()?);
    }
    if length == 11 {
        micros = reader.u32()?;
    }
    let in_range = year <= 9999 && month <= 12 && day <= 31 && hour < 24 && minute < 60 && second < 60;
    if !in_range || micros > 999_999 {
        return Err(Error::WrongArguments { to: "mysqld_stmt_execute".to_owned() });
    }
    Ok(Time::datetime(
        u32::from(year),
        u32::from(month),
        u32::from(day),
        u32::from(hour),
        u32::from(minute),
        u32::from(second),
        micros,
    ))
}

fn read_time(reader: &mut Reader<'_>) -> Result<Duration> {
    let length = reader.u8()?;
    if !matches!(length, 0 | 8 | 12) {
        return Err(Error::MalformedPacket);
    }
    if length == 0 {
        return Ok(Duration(0));
    }
    let negative = reader.u8()? != 0;
    let days = reader.u32()?;
    let (hour, minute, second) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let micros = if length == 12 { reader.u32()? } else { 0 };
    let hours = u64::from(days) * 24 + u64::from(hour);
    Duration::from_parts(negative, hours, u32::from(minute), u32::from(second), micros)
        .ok_or_else(|| Error::WrongArguments { to: "mysqld_stmt_execute".to_owned() })
}

/// COM_STMT_SEND_LONG_DATA's payload: statement, parameter, and a piece of its value.
pub fn decode_long_data(payload: &Bytes) -> Result<(u32, usize, &[u8])> {
    let mut reader = Reader::new(payload);
    let statement = reader.u32()?;
    let parameter = usize::from(reader.u16()?);
    Ok((statement, parameter, reader.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `EXECUTE` with a BIGINT of 7, a NULL and a string `ab`, types bound or not.
    fn payload(bound: bool) -> Vec<u8> {
        let mut payload = vec![0, 1, 0, 0, 0, 0b010, u8::from(bound)];
        if bound {
            payload.extend_from_slice(&[8, 0, 6, 0, 253, 0]);
        }
        payload.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b']);
        payload
    }

    #[test]
    fn types_are_remembered_when_the_client_does_not_repeat_them() {
        let mut types = Vec::new();
        let unbound = decode_execute(&payload(false), 3, &mut types, &mut []);
        assert_eq!(unbound, Err(Error::WrongArguments { to: "mysqld_stmt_execute".to_owned() }));
        let expected = vec![Datum::Int(7), Datum::Null, Datum::String("ab".to_owned())];
        for bound in [true, false, false] {
            let execute = decode_execute(&payload(bound), 3, &mut types, &mut []).unwrap();
            assert_eq!(execute, Execute { cursor: false, params: expected.clone() });
        }
    }

    #[test]
    fn long_data_stands_for_a_value() {
        let mut payload = vec![1, 1, 0, 0, 0, 0, 1, 252, 0, 1, 0x80];
        payload.push(200);
        let mut long = [Some(vec![1, 0xff]), None];
        let execute = decode_execute(&payload, 2, &mut Vec::new(), &mut long).unwrap();
        assert_eq!(execute.params, [Datum::Bytes(vec![1, 0xff]), Datum::UInt(200)]);
        assert!(execute.cursor);
    }

    #[test]
    fn every_truncation_is_refused() {
        let payload = payload(true);
        for length in 0..payload.len() {
            assert!(decode_execute(&payload[..length], 3, &mut Vec::new(), &mut []).is_err(), "{length}");
        }
    }

    #[test]
    fn dates_and_times_are_checked() {
        let mut reader = Reader::new(&[4, 0xea, 7, 11, 23]);
        assert_eq!(read_datetime(&mut reader).unwrap(), Time::datetime(2026, 11, 23, 0, 0, 0, 0));
        assert!(read_datetime(&mut Reader::new(&[4, 0xea, 7, 13, 23])).is_err());
        assert_eq!(
            read_time(&mut Reader::new(&[8, 1, 1, 0, 0, 0, 1, 1, 1])).unwrap().0,
            -(25 * 3600 + 61) * 1_000_000
        );
        assert!(read_time(&mut Reader::new(&[8, 0, 255, 255, 0, 0, 1, 1, 1])).is_err());
    }
}
