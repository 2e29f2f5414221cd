//! Stored forms and orders, on random values: what is encoded decodes to itself, and byte order is MySQL's order.

use std::sync::Arc;

use std::cmp::Ordering;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rutile_expr::func::compare::compare_datums;
use rutile_expr::index_key::{self, KeyPart};
use rutile_expr::row::{self, Cell, RowView};
use rutile_expr::store_plan::scan::{ColumnFrom, ScanColumn, ScanDecoder, ScanSource, ScanSpec};
use rutile_expr::{Collation, Datum, Decimal, Duration, FieldType, MysqlType, Time, array};

fn types() -> Vec<FieldType> {
    vec![
        FieldType::bigint(),
        FieldType::bigint_unsigned(),
        FieldType::double(),
        FieldType::decimal(10, 2),
        FieldType::decimal(38, 10),
        FieldType::decimal(65, 30),
        FieldType::datetime(6),
        FieldType::date(),
        FieldType::time(3),
        FieldType::varchar(20, Collation::DEFAULT),
        FieldType::varchar(20, Collation::Utf8mb4Bin),
        FieldType::varchar(20, Collation::Utf8mb4_0900Bin),
        FieldType::varchar(20, Collation::Utf8mb4GeneralCi),
        FieldType::varchar(20, Collation::Utf8mb4UnicodeCi),
        FieldType::varchar(20, Collation::Latin1SwedishCi),
        FieldType::varchar(20, Collation::Binary),
        FieldType::new(MysqlType::Enum).with_elems(vec!["a".to_string(), "b".to_string()]),
    ]
}

fn text(rng: &mut StdRng, collation: Collation) -> String {
    let alphabet: Vec<char> = match collation.charset() {
        rutile_expr::Charset::Latin1 => "aAbB \téÉzZ1_".chars().collect(),
        _ => "aAbB  \t\u{1}éÉß日한z1_\u{301}😀".chars().collect(),
    };
    (0..rng.random_range(0..6)).map(|_| alphabet[rng.random_range(0..alphabet.len())]).collect()
}

fn decimal(rng: &mut StdRng, precision: u32, scale: u8) -> Decimal {
    let digits = rng.random_range(1..=precision);
    let sign = if rng.random() { "-" } else { "" };
    let all: String = (0..digits).map(|_| char::from(b'0' + rng.random_range(0..10u8))).collect();
    Decimal::parse(&format!("{sign}{all}e-{scale}")).unwrap().rescale(scale)
}

fn value(rng: &mut StdRng, field_type: &FieldType) -> Datum {
    use rutile_expr::types::field_type::Family;
    if rng.random_range(0..8) == 0 {
        return Datum::Null;
    }
    let shift = rng.random_range(0..64);
    match field_type.family() {
        Family::Int if !field_type.unsigned => Datum::Int(rng.random::<i64>() >> shift),
        Family::Int => Datum::UInt(rng.random::<u64>() >> shift),
        Family::Enum => Datum::UInt(rng.random_range(0..3)),
        Family::Double => Datum::Double(f64::from(rng.random::<i32>() >> (shift % 32)) / 8.0),
        Family::Decimal => Datum::Decimal(decimal(rng, field_type.flen, field_type.decimals)),
        Family::Time => {
            let (year, month, day) =
                (rng.random_range(0..10_000), rng.random_range(1..13), rng.random_range(1..29));
            let clock = if field_type.tp == MysqlType::Date {
                (0, 0)
            } else {
                (rng.random_range(0..24), rng.random_range(0..60))
            };
            Datum::Time(Time::datetime(year, month, day, clock.0, clock.1, 0, 0))
        }
        Family::Duration => {
            Datum::Duration(Duration(rng.random_range(-3_000_000_000i64..3_000_000_000) * 1000))
        }
        _ if field_type.is_binary_string() => {
            Datum::Bytes((0..rng.random_range(0..20)).map(|_| rng.random_range(0..3) * 127).collect())
        }
        _ => Datum::String(text(rng, field_type.collation)),
    }
}

#[test]
fn index_keys_order_as_values_do_and_decode() {
    let mut rng = StdRng::seed_from_u64(1);
    for field_type in types() {
        for descending in [false, true] {
            let part = KeyPart { descending, ..KeyPart::new(&field_type) };
            for _ in 0..3_000 {
                let (a, b) = (value(&mut rng, &field_type), value(&mut rng, &field_type));
                let encode = |v: &Datum| {
                    let mut key = Vec::new();
                    index_key::encode(v, &part, &mut key).unwrap();
                    key
                };
                let (ka, kb) = (encode(&a), encode(&b));
                let order = compare_datums(&a, &b, field_type.collation);
                let order = if descending { order.reverse() } else { order };
                assert_eq!(ka.cmp(&kb), order, "{a:?} {b:?} as {}", field_type.sql_name());
                let both = [ka.clone(), kb].concat();
                assert_eq!(index_key::encoded_len(&both, &part).unwrap(), ka.len());
                let mut rest = &both[..];
                match index_key::decode(&mut rest, &part).unwrap() {
                    Some(decoded) => assert_eq!(decoded, a),
                    None => assert!(!index_key::is_restorable(&part) && !a.is_null()),
                }
                assert_eq!(rest.len(), both.len() - ka.len());
            }
        }
    }
}

#[test]
fn prefixes_of_characters_enter_an_index() {
    let field_type = FieldType::varchar(20, Collation::Utf8mb4_0900Bin);
    let part = KeyPart { prefix_len: Some(2), ..KeyPart::new(&field_type) };
    let encode = |v: &str| {
        let mut key = Vec::new();
        index_key::encode(&Datum::from(v), &part, &mut key).unwrap();
        key
    };
    assert_eq!(encode("héllo"), encode("hé"));
    assert_ne!(encode("héllo"), encode("h"));
}

#[test]
fn rows_decode_to_what_was_encoded() {
    let mut rng = StdRng::seed_from_u64(2);
    let types = types();
    for round in 0..500 {
        // Every other round has ids that need the large form.
        let id = |i: usize| (i as i64 + 1) * if round % 2 == 0 { 1 } else { 300 };
        let values: Vec<Datum> = types.iter().map(|t| value(&mut rng, t)).collect();
        let columns: Vec<(i64, &Datum)> = values.iter().enumerate().map(|(i, v)| (id(i), v)).rev().collect();
        let mut encoded = Vec::new();
        row::encode(&columns, &mut encoded);
        let view = RowView::new(&encoded).unwrap();
        assert_eq!(view.cell(9_999).unwrap(), Cell::Missing);
        let read = types.iter().enumerate().map(|(i, t)| ScanColumn {
            field_type: t.clone(),
            from: ColumnFrom::Stored { id: id(i), missing: Datum::Null },
        });
        let spec = ScanSpec { source: ScanSource::Rows, columns: read.collect() };
        let mut decoder = ScanDecoder::new(Arc::new(spec), Arc::default(), 1);
        decoder.push(b"", &encoded).unwrap();
        let arrays = decoder.finish();
        for (i, field_type) in types.iter().enumerate() {
            assert_eq!(view.datum(id(i), field_type, &Datum::Null).unwrap(), values[i]);
            assert_eq!(array::datum_at(&arrays[i], field_type, 0), values[i]);
            assert_eq!(arrays[i].data_type(), &field_type.arrow());
        }
        assert_eq!(view.datum(9_999, &types[0], &Datum::Int(7)).unwrap(), Datum::Int(7));
        for cut in 0..encoded.len().min(40) {
            // A row that was cut short is refused or reads as something, but never panics.
            if let Ok(view) = RowView::new(&encoded[..cut]) {
                types.iter().enumerate().for_each(|(i, t)| drop(view.datum(id(i), t, &Datum::Null)));
            }
        }
    }
}

#[test]
fn sort_keys_agree_with_comparisons() {
    let mut rng = StdRng::seed_from_u64(3);
    for collation in Collation::ALL.iter().copied() {
        for _ in 0..5_000 {
            let (a, b) = (text(&mut rng, collation), text(&mut rng, collation));
            let by_key = collation.sort_key(a.as_bytes()).cmp(&collation.sort_key(b.as_bytes()));
            let order = collation.compare(a.as_bytes(), b.as_bytes());
            assert_eq!(order, by_key, "{a:?} {b:?} in {collation}");
            assert_eq!(collation.equal(a.as_bytes(), b.as_bytes()), order == Ordering::Equal);
            if collation.pads_space() {
                assert!(collation.equal(a.as_bytes(), format!("{a}  ").as_bytes()), "{a:?} in {collation}");
            }
        }
    }
}

#[test]
fn decimals_compute_as_big_integers_do() {
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..5_000 {
        let (a, b) = (decimal(&mut rng, 18, 4), decimal(&mut rng, 18, 4));
        let (x, y) = (a.unscaled_i128().unwrap(), b.unscaled_i128().unwrap());
        assert_eq!(a.add(&b).unwrap().unscaled_i128(), Some(x + y));
        assert_eq!(a.sub(&b).unwrap().unscaled_i128(), Some(x - y));
        assert_eq!(a.mul(&b).unwrap(), Decimal::from_i128(x * y, 8));
        assert_eq!(Decimal::parse(&a.to_string()), Some(a));
        if y != 0 {
            let exact = x * 10_000 * 10;
            let half = if (x < 0) == (y < 0) { 5 } else { -5 };
            assert_eq!(a.div(&b, 4).unwrap(), Decimal::from_i128((exact / y + half) / 10, 4), "{a} / {b}");
            assert_eq!(a.rem(&b).unwrap(), Decimal::from_i128(x % y, 4));
        }
        assert!((a.to_f64() - a.to_string().parse::<f64>().unwrap()).abs() < 1e-9);
    }
}
