//! Character sets and collations: how strings compare, hash, sort and match.
//!
//! Invariant: `compare(a, b)` orders as the bytes of `sort_key(a)` and `sort_key(b)` do, for every collation.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::Hasher;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::uca::{self, Table};
use crate::error::{Error, Result};

/// A character set. Text of all but `Binary` is held as UTF-8; the set says what is allowed in it and how it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Charset {
    Utf8mb4,
    Utf8mb3,
    Latin1,
    Ascii,
    Binary,
}

impl Charset {
    /// Finds a character set by its name, in any letter case.
    pub fn from_name(name: &str) -> Result<Charset> {
        let all = [Charset::Utf8mb4, Charset::Utf8mb3, Charset::Latin1, Charset::Ascii, Charset::Binary];
        if name.eq_ignore_ascii_case("utf8") {
            return Ok(Charset::Utf8mb3);
        }
        let found = all.into_iter().find(|c| c.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| Error::UnknownCharset { name: name.to_string() })
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Charset::Utf8mb4 => "utf8mb4",
            Charset::Utf8mb3 => "utf8mb3",
            Charset::Latin1 => "latin1",
            Charset::Ascii => "ascii",
            Charset::Binary => "binary",
        }
    }

    /// What SHOW CHARACTER SET says of it.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Charset::Utf8mb4 => "UTF-8 Unicode",
            Charset::Utf8mb3 => "UTF-8 Unicode",
            Charset::Latin1 => "cp1252 West European",
            Charset::Ascii => "US ASCII",
            Charset::Binary => "Binary pseudo charset",
        }
    }

    #[must_use]
    pub fn default_collation(self) -> Collation {
        match self {
            Charset::Utf8mb4 => Collation::Utf8mb4_0900AiCi,
            Charset::Utf8mb3 => Collation::Utf8mb3GeneralCi,
            Charset::Latin1 => Collation::Latin1SwedishCi,
            Charset::Ascii => Collation::AsciiGeneralCi,
            Charset::Binary => Collation::Binary,
        }
    }

    /// The `_bin` collation.
    #[must_use]
    pub fn bin_collation(self) -> Collation {
        match self {
            Charset::Utf8mb4 => Collation::Utf8mb4Bin,
            Charset::Utf8mb3 => Collation::Utf8mb3Bin,
            Charset::Latin1 => Collation::Latin1Bin,
            Charset::Ascii => Collation::AsciiBin,
            Charset::Binary => Collation::Binary,
        }
    }

    /// The most bytes that one character takes.
    #[must_use]
    pub fn char_bytes_max(self) -> u32 {
        match self {
            Charset::Utf8mb4 => 4,
            Charset::Utf8mb3 => 3,
            Charset::Latin1 | Charset::Ascii | Charset::Binary => 1,
        }
    }

    /// Can the character set hold this character?
    #[must_use]
    pub fn can_hold(self, c: char) -> bool {
        match self {
            Charset::Utf8mb4 | Charset::Binary => true,
            Charset::Utf8mb3 => (c as u32) < 0x10000,
            Charset::Latin1 => latin1_byte(c).is_some(),
            Charset::Ascii => c.is_ascii(),
        }
    }

    /// The bytes of `text` in this character set; characters that it cannot hold become `?`.
    #[must_use]
    pub fn encode(self, text: &str) -> Cow<'_, [u8]> {
        match self {
            Charset::Utf8mb4 | Charset::Binary => Cow::Borrowed(text.as_bytes()),
            _ if text.is_ascii() => Cow::Borrowed(text.as_bytes()),
            Charset::Utf8mb3 => {
                let kept: String = text.chars().map(|c| if self.can_hold(c) { c } else { '?' }).collect();
                Cow::Owned(kept.into_bytes())
            }
            Charset::Latin1 => Cow::Owned(text.chars().map(|c| latin1_byte(c).unwrap_or(b'?')).collect()),
            Charset::Ascii => {
                Cow::Owned(text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect())
            }
        }
    }

    /// The text that `bytes` are in this character set; `None` when they are not valid in it.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match self {
            Charset::Latin1 if !bytes.is_ascii() => {
                Some(Cow::Owned(bytes.iter().map(|b| latin1_char(*b)).collect()))
            }
            Charset::Ascii if !bytes.is_ascii() => None,
            _ => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        }
    }
}

/// The upper half of MySQL's latin1, which is cp1252 with its five holes filled by control characters.
const CP1252_80: [char; 32] = [
    '\u{20AC}', '\u{81}', '\u{201A}', '\u{192}', '\u{201E}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2C6}',
    '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8D}', '\u{17D}', '\u{8F}', '\u{90}', '\u{2018}',
    '\u{2019}', '\u{201C}', '\u{201D}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2DC}', '\u{2122}', '\u{161}',
    '\u{203A}', '\u{153}', '\u{9D}', '\u{17E}', '\u{178}',
];

/// The character of a latin1 byte.
#[must_use]
pub fn latin1_char(byte: u8) -> char {
    if (0x80..0xA0).contains(&byte) { CP1252_80[usize::from(byte - 0x80)] } else { char::from(byte) }
}

/// The latin1 byte of a character.
#[must_use]
pub fn latin1_byte(c: char) -> Option<u8> {
    match c as u32 {
        0..=0x7F | 0xA0..=0xFF => Some(c as u32 as u8),
        _ => CP1252_80.iter().position(|x| *x == c).map(|i| i as u8 + 0x80),
    }
}

macro_rules! collations {
    ($($variant:ident = $id:literal, $name:literal, $charset:ident, $algorithm:expr, $pad:ident;)*) => {
        /// A collation that Rutile knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Collation { $(#[doc = $name] $variant,)* }

        impl Collation {
            /// Every collation.
            pub const ALL: &'static [Collation] = &[$(Collation::$variant,)*];

            /// MySQL's number of the collation, as the protocol uses it.
            #[must_use]
            pub const fn id(self) -> u16 {
                match self { $(Collation::$variant => $id,)* }
            }

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Collation::$variant => $name,)* }
            }

            #[must_use]
            pub const fn charset(self) -> Charset {
                match self { $(Collation::$variant => Charset::$charset,)* }
            }

            const fn algorithm(self) -> Algorithm {
                match self { $(Collation::$variant => $algorithm,)* }
            }

            /// Are trailing spaces ignored in comparisons (PAD SPACE)?
            #[must_use]
            pub const fn pads_space(self) -> bool {
                match self { $(Collation::$variant => matches!(Pad::$pad, Pad::Space),)* }
            }
        }
    };
}

/// How weights are found.
#[derive(Clone, Copy)]
enum Algorithm {
    /// The bytes themselves.
    Bytes,
    /// UTF-8 bytes, which order as code points do.
    CodePoint,
    /// One table's weights.
    Weights(Table),
}

enum Pad {
    Space,
    None,
}

collations! {
    Utf8mb4_0900AiCi = 255, "utf8mb4_0900_ai_ci", Utf8mb4, Algorithm::Weights(Table::Uca900Ai), None;
    Utf8mb4_0900AsCi = 305, "utf8mb4_0900_as_ci", Utf8mb4, Algorithm::Weights(Table::Uca900AsCi), None;
    Utf8mb4_0900AsCs = 278, "utf8mb4_0900_as_cs", Utf8mb4, Algorithm::Weights(Table::Uca900AsCs), None;
    Utf8mb4_0900Bin = 309, "utf8mb4_0900_bin", Utf8mb4, Algorithm::CodePoint, None;
    Utf8mb4Bin = 46, "utf8mb4_bin", Utf8mb4, Algorithm::CodePoint, Space;
    Utf8mb4GeneralCi = 45, "utf8mb4_general_ci", Utf8mb4, Algorithm::Weights(Table::General), Space;
    Utf8mb4UnicodeCi = 224, "utf8mb4_unicode_ci", Utf8mb4, Algorithm::Weights(Table::Uca400), Space;
    Utf8mb3GeneralCi = 33, "utf8mb3_general_ci", Utf8mb3, Algorithm::Weights(Table::General), Space;
    Utf8mb3UnicodeCi = 192, "utf8mb3_unicode_ci", Utf8mb3, Algorithm::Weights(Table::Uca400), Space;
    Utf8mb3Bin = 83, "utf8mb3_bin", Utf8mb3, Algorithm::CodePoint, Space;
    Latin1SwedishCi = 8, "latin1_swedish_ci", Latin1, Algorithm::Weights(Table::Latin1Swedish), Space;
    Latin1GeneralCi = 48, "latin1_general_ci", Latin1, Algorithm::Weights(Table::Latin1General), Space;
    Latin1Bin = 47, "latin1_bin", Latin1, Algorithm::Weights(Table::Latin1Bytes), Space;
    AsciiGeneralCi = 11, "ascii_general_ci", Ascii, Algorithm::Weights(Table::AsciiUpper), Space;
    AsciiBin = 65, "ascii_bin", Ascii, Algorithm::CodePoint, Space;
    Binary = 63, "binary", Binary, Algorithm::Bytes, None;
}

impl Collation {
    /// The default of a new database.
    pub const DEFAULT: Collation = Collation::Utf8mb4_0900AiCi;

    /// Finds a collation by name, in any letter case; `utf8_…` means `utf8mb3_…`.
    pub fn from_name(name: &str) -> Result<Collation> {
        let lower = name.to_ascii_lowercase();
        let lower = match lower.strip_prefix("utf8_") {
            Some(rest) => format!("utf8mb3_{rest}"),
            None => lower,
        };
        let found = Collation::ALL.iter().copied().find(|c| c.name() == lower);
        found.ok_or_else(|| Error::UnknownCollation { name: name.to_string() })
    }

    /// Finds a collation by MySQL's number.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Collation> {
        Collation::ALL.iter().copied().find(|c| c.id() == id)
    }

    /// Is it its character set's default?
    #[must_use]
    pub fn is_default(self) -> bool {
        self.charset().default_collation() == self
    }

    /// A `_bin` collation or `binary`: equal means identical (up to padding).
    #[must_use]
    pub fn is_bin(self) -> bool {
        matches!(self.algorithm(), Algorithm::Bytes | Algorithm::CodePoint) || self == Collation::Latin1Bin
    }

    /// Do equal strings always have equal bytes, so that bytes may be compared, hashed and grouped directly?
    #[must_use]
    pub fn is_bytewise(self) -> bool {
        !self.pads_space() && matches!(self.algorithm(), Algorithm::Bytes | Algorithm::CodePoint)
    }

    /// Compares two strings given as their UTF-8 (or binary) bytes.
    #[must_use]
    pub fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self.algorithm() {
            Algorithm::Bytes => a.cmp(b),
            Algorithm::CodePoint if self.pads_space() => compare_padded(a, b),
            Algorithm::CodePoint => a.cmp(b),
            Algorithm::Weights(table) => table.compare(a, b, self.pads_space()),
        }
    }

    /// Are two strings equal?
    #[must_use]
    pub fn equal(self, a: &[u8], b: &[u8]) -> bool {
        a == b || (!self.is_bytewise() && self.compare(a, b) == Ordering::Equal)
    }

    /// Appends the sort key: byte order of sort keys is the collation's order.
    pub fn sort_key_into(self, text: &[u8], out: &mut Vec<u8>) {
        let text = if self.pads_space() { trim_spaces(text) } else { text };
        match self.algorithm() {
            Algorithm::Bytes => out.extend_from_slice(text),
            // A pad-space collation orders "a\t" below "a" = "a ": a key must say so at its end.
            Algorithm::CodePoint if self.pads_space() => {
                push_padded(text.iter().copied(), b' ', out, |byte, out| out.push(byte));
            }
            Algorithm::CodePoint => out.extend_from_slice(text),
            Algorithm::Weights(table) => table.sort_key_into(text, self.pads_space(), out),
        }
    }

    /// The sort key.
    #[must_use]
    pub fn sort_key(self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() * 2 + 2);
        self.sort_key_into(text, &mut out);
        out
    }

    /// Feeds a hasher so that equal strings hash alike.
    pub fn hash_into<H: Hasher>(self, text: &[u8], hasher: &mut H) {
        if self.is_bytewise() {
            hasher.write(text);
        } else {
            hasher.write(&self.sort_key(text));
        }
        hasher.write_u8(0xFF);
    }

    /// Are two characters equal, as LIKE compares them?
    #[must_use]
    pub fn chars_equal(self, a: char, b: char) -> bool {
        if a == b {
            return true;
        }
        match self.algorithm() {
            Algorithm::Bytes | Algorithm::CodePoint => false,
            Algorithm::Weights(table) => uca::char_weights_equal(table, a, b),
        }
    }
}

fn trim_spaces(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1);
    &text[..end]
}

/// Compares as if the shorter text were padded with spaces.
fn compare_padded(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        let tail_order =
            |tail: &[u8]| tail.iter().find(|x| **x != b' ').map_or(Ordering::Equal, |x| x.cmp(&b' '));
        if a.len() >= b.len() { tail_order(&a[common..]) } else { tail_order(&b[common..]).reverse() }
    })
}

/// Writes a key for pad-space order of a text whose trailing spaces were cut: `00 01 n x` for n spaces before a weight x below
/// the space's, `00 02` for the end, `00 03 !n x` for n > 0 spaces before a weight above it, and such a weight as it is otherwise.
pub(super) fn push_padded<W: Ord + Copy>(
    weights: impl Iterator<Item = W>,
    space: W,
    out: &mut Vec<u8>,
    push: impl Fn(W, &mut Vec<u8>),
) {
    // Two bytes per mark, so that a mark is never mistaken for the first byte of a two-byte weight.
    let count = |mut n: usize, flip: u8, out: &mut Vec<u8>| {
        while n >= 0xFF {
            out.push(0xFF ^ flip);
            n -= 0xFF;
        }
        out.push(n as u8 ^ flip);
    };
    let mut spaces = 0;
    for weight in weights {
        match weight.cmp(&space) {
            Ordering::Equal => spaces += 1,
            Ordering::Less => {
                out.extend_from_slice(&[0, 1]);
                count(spaces, 0, out);
                push(weight, out);
                spaces = 0;
            }
            Ordering::Greater => {
                if spaces > 0 {
                    out.extend_from_slice(&[0, 3]);
                    count(spaces, 0xFF, out);
                    spaces = 0;
                }
                push(weight, out);
            }
        }
    }
    out.extend_from_slice(&[0, 2]);
}

impl Serialize for Collation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Collation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Collation, D::Error> {
        let name = String::deserialize(deserializer)?;
        Collation::from_name(&name).map_err(serde::de::Error::custom)
    }
}

impl std::fmt::Display for Collation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Collation {
    /// Do upper and lower case differ?
    #[must_use]
    pub fn is_case_sensitive(self) -> bool {
        self.is_bin() || self == Collation::Utf8mb4_0900AsCs
    }
}
