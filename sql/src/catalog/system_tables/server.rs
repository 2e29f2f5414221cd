//! What the server offers: character sets, collations, engines, plugins.

use rutile_expr::types::{Charset, Collation, Datum};

use super::{Row, s, u};

fn charsets() -> Vec<Charset> {
    let mut charsets: Vec<Charset> = Vec::new();
    for collation in Collation::ALL {
        if !charsets.contains(&collation.charset()) {
            charsets.push(collation.charset());
        }
    }
    charsets.sort_by_key(|charset| charset.name());
    charsets
}

fn collations_by_name() -> Vec<Collation> {
    let mut collations = Collation::ALL.to_vec();
    collations.sort_by_key(|collation| collation.name());
    collations
}

/// The number of bytes a sort key takes per byte of text, as MySQL states it.
fn sort_length(collation: Collation) -> u64 {
    match collation {
        Collation::Utf8mb4UnicodeCi | Collation::Utf8mb3UnicodeCi => 8,
        Collation::Utf8mb4_0900AiCi | Collation::Utf8mb4_0900AsCi | Collation::Utf8mb4_0900AsCs => 0,
        _ => 1,
    }
}

pub fn character_sets() -> Vec<Row> {
    let row = |charset: Charset| {
        vec![
            s(charset.name()),
            s(charset.default_collation().name()),
            s(charset.description()),
            u(u64::from(charset.char_bytes_max())),
        ]
    };
    charsets().into_iter().map(row).collect()
}

pub fn collations() -> Vec<Row> {
    let row = |collation: Collation| {
        vec![
            s(collation.name()),
            s(collation.charset().name()),
            u(u64::from(collation.id())),
            s(if collation.is_default() { "Yes" } else { "" }),
            s("Yes"),
            u(sort_length(collation)),
            s(if collation.pads_space() { "PAD SPACE" } else { "NO PAD" }),
        ]
    };
    collations_by_name().into_iter().map(row).collect()
}

pub fn collation_applicability() -> Vec<Row> {
    collations_by_name()
        .into_iter()
        .map(|collation| vec![s(collation.name()), s(collation.charset().name())])
        .collect()
}

pub fn engines() -> Vec<Row> {
    let comment = "Supports transactions, row-level locking, and foreign keys";
    vec![vec![s("InnoDB"), s("DEFAULT"), s(comment), s("YES"), s("NO"), s("YES")]]
}

pub fn plugins() -> Vec<Row> {
    let plugin = |name: &str, kind: &str| {
        vec![
            s(name),
            s("1.0"),
            s("ACTIVE"),
            s(kind),
            s("1.0"),
            Datum::Null,
            Datum::Null,
            Datum::Null,
            Datum::Null,
            s("Apache-2.0"),
            s("FORCE"),
        ]
    };
    vec![
        plugin("mysql_native_password", "AUTHENTICATION"),
        plugin("caching_sha2_password", "AUTHENTICATION"),
        plugin("InnoDB", "STORAGE ENGINE"),
    ]
}
