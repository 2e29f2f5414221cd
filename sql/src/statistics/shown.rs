//! Histograms as MySQL shows them: JSON documents of information_schema.COLUMN_STATISTICS.

use base64::Engine;
use rutile_expr::types::field_type::Family;
use rutile_expr::types::{Datum, FieldType, MysqlType};
use serde_json::{Value, json};

use super::sample::Sample;

/// The document for values in order, each with its part of the rows: of single values if there are no more than buckets, else
/// of equal height.
pub fn document(
    ty: &FieldType,
    values: &[(Datum, f64)],
    null_fraction: f64,
    sample: &Sample,
    buckets_max: u32,
) -> String {
    let single = values.len() <= buckets_max as usize;
    let buckets = if single { singles(ty, values) } else { equal_heights(ty, values, buckets_max) };
    let seconds = (sample.ts.physical_ms() / 1000) as i64;
    let updated = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    json!({
        "buckets": buckets,
        "data-type": data_type(ty),
        "auto-update": false,
        "null-values": null_fraction,
        "collation-id": ty.collation.id(),
        "last-updated": updated.format("%Y-%m-%d %H:%M:%S.000000").to_string(),
        "sampling-rate": sample.share(),
        "histogram-type": if single { "singleton" } else { "equi-height" },
        "number-of-buckets-specified": buckets_max,
    })
    .to_string()
}

fn singles(ty: &FieldType, values: &[(Datum, f64)]) -> Vec<Value> {
    let mut sum = 0.0;
    let one = |(value, part): &(Datum, f64)| {
        sum += part;
        json!([shown(value, ty), sum.min(1.0)])
    };
    values.iter().map(one).collect()
}

fn equal_heights(ty: &FieldType, values: &[(Datum, f64)], buckets_max: u32) -> Vec<Value> {
    let whole: f64 = values.iter().map(|(_, part)| part).sum();
    let depth = whole / f64::from(buckets_max);
    let (mut buckets, mut first, mut sum, mut filled) = (Vec::new(), 0, 0.0, 0.0);
    for (place, (value, part)) in values.iter().enumerate() {
        sum += part;
        filled += part;
        if filled + 1e-9 >= depth || place + 1 == values.len() {
            let low = shown(&values[first].0, ty);
            buckets.push(json!([low, shown(value, ty), sum.min(1.0), place + 1 - first]));
            (first, filled) = (place + 1, 0.0);
        }
    }
    buckets
}

fn data_type(ty: &FieldType) -> &'static str {
    match ty.family() {
        Family::Int if ty.unsigned => "uint",
        Family::Int => "int",
        Family::Double => "double",
        Family::Decimal => "decimal",
        Family::Time if ty.tp == MysqlType::Date => "date",
        Family::Time => "datetime",
        Family::Duration => "time",
        Family::Enum if ty.tp == MysqlType::Enum => "enum",
        Family::Enum => "set",
        Family::String | Family::Json | Family::Null => "string",
    }
}

fn shown(value: &Datum, ty: &FieldType) -> Value {
    match value {
        Datum::Null => Value::Null,
        Datum::Int(number) => json!(number),
        Datum::UInt(number) => json!(number),
        Datum::Double(number) => json!(number),
        Datum::Decimal(number) => {
            // A number, with all its digits.
            serde_json::from_str(&number.to_string()).unwrap_or(Value::Null)
        }
        Datum::String(text) => base64(text.as_bytes()),
        Datum::Bytes(bytes) => base64(bytes),
        Datum::Time(time) if ty.tp == MysqlType::Date => json!(time.format_date()),
        Datum::Time(time) => json!(time.format_datetime(6)),
        Datum::Duration(duration) => json!(duration.format(6)),
    }
}

fn base64(bytes: &[u8]) -> Value {
    json!(format!("base64:type254:{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}
