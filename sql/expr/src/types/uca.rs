//! Weights of characters: the tables behind the case- and accent-insensitive collations.
//!
//! `weights/*.bin`: per code point with explicit weights `varint(delta) | primary count + secondary count << 4 | tertiary count |
//! varint weights`. uca900 is the Default Unicode Collation Element Table of UCA 9.0.0, uca400 that of 4.0.0, general MySQL's
//! one-weight folding. Han, Hangul and unassigned characters are computed as the UCA says.

use std::cmp::Ordering;
use std::sync::OnceLock;

/// Which weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// UCA 9.0.0, primary weights.
    Uca900Ai,
    /// UCA 9.0.0, primary and secondary weights.
    Uca900AsCi,
    /// UCA 9.0.0, all three levels.
    Uca900AsCs,
    /// UCA 4.0.0, primary weights.
    Uca400,
    /// One weight per character of the basic plane.
    General,
    Latin1Swedish,
    Latin1General,
    /// The latin1 bytes themselves.
    Latin1Bytes,
    /// ASCII without case.
    AsciiUpper,
}

static UCA900: &[u8] = include_bytes!("weights/uca900.bin");
static UCA400: &[u8] = include_bytes!("weights/uca400.bin");
static GENERAL: &[u8] = include_bytes!("weights/general.bin");
static LATIN1_SWEDISH: &[u8; 256] = include_bytes!("weights/latin1_swedish.bin");
static LATIN1_GENERAL: &[u8; 256] = include_bytes!("weights/latin1_general.bin");

const LEVELS: usize = 3;

#[derive(Clone, Copy)]
struct Entry {
    offset: u32,
    counts: [u8; LEVELS],
}

const NO_ENTRY: Entry = Entry { offset: u32::MAX, counts: [0; LEVELS] };

struct Loaded {
    entries: Vec<Entry>,
    weights: Vec<u16>,
    /// Primary weight of an ASCII character; 0 when it has none.
    ascii: [u16; 128],
}

fn varint(data: &[u8], at: &mut usize) -> u32 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = data[*at];
        *at += 1;
        value |= u32::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn load(data: &[u8]) -> Loaded {
    let mut loaded = Loaded { entries: Vec::new(), weights: Vec::new(), ascii: [0; 128] };
    let (mut at, mut code) = (0, 0usize);
    while at < data.len() {
        code += varint(data, &mut at) as usize;
        let counts = [data[at] & 15, data[at] >> 4, data[at + 1]];
        at += 2;
        let offset = loaded.weights.len() as u32;
        for _ in 0..counts.iter().sum::<u8>() {
            let weight = varint(data, &mut at) as u16;
            loaded.weights.push(weight);
        }
        loaded.entries.resize(code, NO_ENTRY);
        loaded.entries.push(Entry { offset, counts });
        if code < 128 && counts[0] == 1 {
            loaded.ascii[code] = loaded.weights[offset as usize];
        }
    }
    loaded
}

fn uca900() -> &'static Loaded {
    static TABLE: OnceLock<Loaded> = OnceLock::new();
    TABLE.get_or_init(|| load(UCA900))
}

fn uca400() -> &'static Loaded {
    static TABLE: OnceLock<Loaded> = OnceLock::new();
    TABLE.get_or_init(|| load(UCA400))
}

fn general() -> &'static Loaded {
    static TABLE: OnceLock<Loaded> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut loaded = load(GENERAL);
        for (code, weight) in loaded.ascii.iter_mut().enumerate() {
            *weight = (code as u8).to_ascii_uppercase().into();
        }
        loaded
    })
}

/// The character at the front of `text` and its length; a stray byte counts as a character of its own.
#[inline]
fn next_char(text: &[u8]) -> (u32, usize) {
    let continued = |at: usize| text.get(at).map_or(0, |b| u32::from(b & 0x3F));
    match text[0] {
        b @ 0..=0x7F => (u32::from(b), 1),
        b @ 0xC0..=0xDF if text.len() > 1 => (u32::from(b & 0x1F) << 6 | continued(1), 2),
        b @ 0xE0..=0xEF if text.len() > 2 => {
            (u32::from(b & 0x0F) << 12 | continued(1) << 6 | continued(2), 3)
        }
        b @ 0xF0..=0xF7 if text.len() > 3 => {
            (u32::from(b & 7) << 18 | continued(1) << 12 | continued(2) << 6 | continued(3), 4)
        }
        b => (u32::from(b), 1),
    }
}

impl Loaded {
    /// The explicit weights of one level.
    fn explicit(&self, code: u32, level: usize) -> Option<&[u16]> {
        let entry = self.entries.get(code as usize).filter(|e| e.offset != u32::MAX)?;
        let start =
            entry.offset as usize + entry.counts[..level].iter().map(|c| usize::from(*c)).sum::<usize>();
        Some(&self.weights[start..start + usize::from(entry.counts[level])])
    }
}

/// Weights of a character without an entry, by UCA 9.0.0: two primaries in two elements.
fn implicit900(code: u32, level: usize, push: &mut dyn FnMut(u16)) {
    match level {
        1 => return push(0x20),
        2 => return push(0x02),
        _ => {}
    }
    if (0x17000..=0x18AFF).contains(&code) {
        push(0xFB00);
        return push(((code - 0x17000) | 0x8000) as u16);
    }
    let base = match code {
        0x3400..=0x4DB5 | 0x20000..=0x2A6D6 | 0x2A700..=0x2B734 | 0x2B740..=0x2B81D | 0x2B820..=0x2CEA1 => {
            0xFB80
        }
        0x4E00..=0x9FD5 | 0xFA0E..=0xFA29 => 0xFB40,
        _ => 0xFBC0,
    };
    push((base + (code >> 15)) as u16);
    push((code & 0x7FFF | 0x8000) as u16);
}

fn implicit400(code: u32, push: &mut dyn FnMut(u16)) {
    if code > 0xFFFF {
        return push(0xFFFD);
    }
    let base = match code {
        0x4E00..=0x9FA5 => 0xFB40,
        0x3400..=0x4DB5 => 0xFB80,
        _ => 0xFBC0,
    };
    push((base + (code >> 15)) as u16);
    push((code & 0x7FFF | 0x8000) as u16);
}

fn hangul900(table: &Loaded, code: u32, level: usize, push: &mut dyn FnMut(u16)) {
    let syllable = code - 0xAC00;
    let jamos = [0x1100 + syllable / 588, 0x1161 + syllable % 588 / 28, 0x11A7 + syllable % 28];
    let count = if jamos[2] == 0x11A7 { 2 } else { 3 };
    for jamo in &jamos[..count] {
        table.explicit(*jamo, level).unwrap_or_default().iter().for_each(|w| push(*w));
    }
}

impl Table {
    fn levels(self) -> usize {
        match self {
            Table::Uca900AsCi => 2,
            Table::Uca900AsCs => 3,
            _ => 1,
        }
    }

    /// Primary weights of ASCII, 0 where a character has none or several.
    fn ascii(self) -> Option<&'static [u16; 128]> {
        match self {
            Table::Uca900Ai => Some(&uca900().ascii),
            Table::Uca400 => Some(&uca400().ascii),
            Table::General => Some(&general().ascii),
            _ => None,
        }
    }

    fn latin1(self) -> Option<&'static [u8; 256]> {
        match self {
            Table::Latin1Swedish => Some(LATIN1_SWEDISH),
            Table::Latin1General => Some(LATIN1_GENERAL),
            _ => None,
        }
    }

    /// The weights of a character at a level.
    fn char_weights(self, code: u32, level: usize, push: &mut dyn FnMut(u16)) {
        match self {
            Table::Uca900Ai | Table::Uca900AsCi | Table::Uca900AsCs => {
                let table = uca900();
                match table.explicit(code, level) {
                    Some(weights) => weights.iter().for_each(|w| push(*w)),
                    None if (0xAC00..=0xD7A3).contains(&code) => hangul900(table, code, level, push),
                    None => implicit900(code, level, push),
                }
            }
            Table::Uca400 => match uca400().explicit(code, 0) {
                Some(weights) => weights.iter().for_each(|w| push(*w)),
                None => implicit400(code, push),
            },
            Table::General if code > 0xFFFF => push(0xFFFD),
            Table::General => match general().explicit(code, 0) {
                Some(weights) => weights.iter().for_each(|w| push(*w)),
                None => push(code as u16),
            },
            Table::AsciiUpper => push(u16::from((code as u8).to_ascii_uppercase())),
            Table::Latin1Bytes | Table::Latin1Swedish | Table::Latin1General => {
                let byte = char::from_u32(code).and_then(super::collation::latin1_byte).unwrap_or(b'?');
                push(u16::from(self.latin1().map_or(byte, |table| table[usize::from(byte)])));
            }
        }
    }

    /// The weight of a space, which pads shorter texts.
    fn space(self) -> u16 {
        let mut weight = 0;
        self.char_weights(0x20, 0, &mut |w| weight = w);
        weight
    }

    /// Compares two texts.
    #[must_use]
    pub fn compare(self, a: &[u8], b: &[u8], pad: bool) -> Ordering {
        let (mut a, mut b) = (a, b);
        if let Some(ascii) = self.ascii() {
            // The equal beginning, as far as both are ASCII with one weight each.
            let mut at = 0;
            while let (Some(x @ 0..=0x7F), Some(y @ 0..=0x7F)) = (a.get(at), b.get(at)) {
                let (wx, wy) = (ascii[usize::from(*x)], ascii[usize::from(*y)]);
                if wx == 0 || wy == 0 {
                    break;
                }
                if wx != wy {
                    // A following combining mark may be ignorable but never changes a primary weight.
                    return wx.cmp(&wy);
                }
                at += 1;
            }
            (a, b) = (&a[at..], &b[at..]);
            if a.is_empty() && b.is_empty() {
                return Ordering::Equal;
            }
        }
        for level in 0..self.levels() {
            let order = self.compare_level(a, b, level, pad);
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    }

    fn compare_level(self, a: &[u8], b: &[u8], level: usize, pad: bool) -> Ordering {
        let mut left = Weights::new(self, level, a);
        let mut right = Weights::new(self, level, b);
        let space = if pad { self.space() } else { 0 };
        loop {
            match (left.next(), right.next()) {
                (None, None) => return Ordering::Equal,
                (x, y) => {
                    let order = x.unwrap_or(space).cmp(&y.unwrap_or(space));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
            }
        }
    }

    /// Appends the sort key: big-endian weights, levels separated by a zero weight. With `pad`, the text's trailing spaces were cut.
    pub fn sort_key_into(self, text: &[u8], pad: bool, out: &mut Vec<u8>) {
        if pad {
            let space = self.space();
            return super::collation::push_padded(Weights::new(self, 0, text), space, out, |w, out| {
                out.extend_from_slice(&w.to_be_bytes());
            });
        }
        for level in 0..self.levels() {
            if level > 0 {
                out.extend_from_slice(&[0, 0]);
            }
            match self.ascii().filter(|_| level == 0) {
                Some(ascii) if text.is_ascii() => {
                    for weight in text.iter().map(|b| ascii[usize::from(*b)]).filter(|w| *w != 0) {
                        out.extend_from_slice(&weight.to_be_bytes());
                    }
                }
                _ => Weights::new(self, level, text).for_each(|w| out.extend_from_slice(&w.to_be_bytes())),
            }
        }
    }
}

/// The weights of a text at one level, in order.
struct Weights<'a> {
    table: Table,
    level: usize,
    text: &'a [u8],
    pending: smallvec::SmallVec<[u16; 8]>,
    at: usize,
}

impl<'a> Weights<'a> {
    fn new(table: Table, level: usize, text: &'a [u8]) -> Weights<'a> {
        Weights { table, level, text, pending: smallvec::SmallVec::new(), at: 0 }
    }
}

impl Iterator for Weights<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        while self.at >= self.pending.len() {
            if self.text.is_empty() {
                return None;
            }
            let (code, len) = next_char(self.text);
            self.text = &self.text[len..];
            self.pending.clear();
            self.at = 0;
            let pending = &mut self.pending;
            self.table.char_weights(code, self.level, &mut |w| pending.push(w));
        }
        self.at += 1;
        Some(self.pending[self.at - 1])
    }
}

/// Do two characters have the same weights on every level?
#[must_use]
pub fn char_weights_equal(table: Table, a: char, b: char) -> bool {
    (0..table.levels()).all(|level| {
        let weights = |c: char| {
            let mut found = smallvec::SmallVec::<[u16; 8]>::new();
            table.char_weights(c as u32, level, &mut |w| found.push(w));
            found
        };
        weights(a) == weights(b)
    })
}
