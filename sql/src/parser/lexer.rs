//! Bytes to tokens, one at a time.
//!
//! The lexer's whole state is a position and whether it is inside `/*! … */`, so the parser can look ahead and go back
//! for the price of a copy. It works on bytes: any character set in which ASCII means ASCII, and any bytes at all inside
//! string literals.

/// MySQL's version number in `/*!NNNNN … */` up to which such comments are read.
const VERSION_NUMBER: u64 = 80_400;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tok {
    Eof,
    /// An unquoted word: keyword or identifier.
    Word,
    /// `` `name` `` (or `"name"` under ANSI_QUOTES).
    QuotedIdent,
    /// `'text'` or `"text"`.
    Str,
    /// `N'text'`
    NationalStr,
    /// `_charset` before a literal is a `Word`; the parser recognizes it.
    Int,
    Decimal,
    Float,
    /// `x'4D'`
    HexStr,
    /// `0x4D`
    HexNum,
    /// `b'01'`
    BitStr,
    /// `0b01`
    BitNum,
    /// `?`
    Param,
    /// `@name` in one piece, or `@` alone.
    UserVar,
    /// `@@`
    AtAt,
    /// `:=`
    Assign,
    Eq,
    /// `<=>`
    NullSafeEq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    ShiftLeft,
    ShiftRight,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    Caret,
    Tilde,
    Bang,
    Amp,
    AmpAmp,
    Pipe,
    PipePipe,
    /// `->`
    Arrow,
    /// `->>`
    LongArrow,
    LParen,
    RParen,
    Comma,
    Dot,
    Semicolon,
    Colon,
    LBrace,
    RBrace,
    /// Something no token starts with, or an unterminated literal or comment.
    Error,
}

/// A token: its kind and where its text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: Tok,
    pub start: usize,
    pub end: usize,
}

/// Where lexing stands.
#[derive(Debug, Clone, Copy)]
pub struct Lexer<'a> {
    src: &'a [u8],
    pos: usize,
    in_version_comment: bool,
    ansi_quotes: bool,
    backslash_escapes: bool,
}

/// Whether a byte can be part of an unquoted identifier.
pub fn is_ident_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of a text.
    pub fn new(src: &'a [u8], ansi_quotes: bool, backslash_escapes: bool) -> Self {
        Self { src, pos: 0, in_version_comment: false, ansi_quotes, backslash_escapes }
    }

    fn at(&self, offset: usize) -> u8 {
        self.src.get(self.pos + offset).copied().unwrap_or(0)
    }

    /// Skips blanks and comments. False: a comment has no end.
    fn skip_blanks(&mut self) -> bool {
        loop {
            match self.at(0) {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.pos += 1,
                b'#' => self.skip_line(),
                b'-' if self.at(1) == b'-' && self.dash_comment() => self.skip_line(),
                b'/' if self.at(1) == b'*' => {
                    if !self.skip_comment() {
                        return false;
                    }
                }
                b'*' if self.in_version_comment && self.at(1) == b'/' => {
                    self.in_version_comment = false;
                    self.pos += 2;
                }
                _ => return true,
            }
        }
    }

    /// `--` starts a comment only before a blank, a control character or the end.
    fn dash_comment(&self) -> bool {
        self.src.get(self.pos + 2).is_none_or(|&byte| byte <= b' ' || byte == 0x7f)
    }

    fn skip_line(&mut self) {
        let rest = &self.src[self.pos..];
        self.pos += memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
    }

    /// At `/*`: skips the comment, or only its opening if it is `/*!` with a version we have.
    fn skip_comment(&mut self) -> bool {
        if self.at(2) == b'!' && !self.in_version_comment {
            let digits = (0..6).take_while(|&i| self.at(3 + i).is_ascii_digit()).count();
            let version = self.src[self.pos + 3..self.pos + 3 + digits]
                .iter()
                .fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
            let (digits, version) = if digits < 5 { (0, 0) } else { (digits, version) };
            if version <= VERSION_NUMBER {
                self.pos += 3 + digits;
                self.in_version_comment = true;
                return true;
            }
        }
        let rest = &self.src[self.pos + 2..];
        match memchr::memmem::find(rest, b"*/") {
            Some(at) => {
                self.pos += 2 + at + 2;
                true
            }
            None => false,
        }
    }

    /// The next token.
    pub fn next_token(&mut self) -> Token {
        if !self.skip_blanks() {
            let start = self.pos;
            return Token { kind: Tok::Error, start, end: self.src.len() };
        }
        let start = self.pos;
        if start >= self.src.len() {
            // A version comment that was never closed.
            let kind = if self.in_version_comment { Tok::Error } else { Tok::Eof };
            return Token { kind, start: self.src.len(), end: self.src.len() };
        }
        let kind = self.scan();
        Token { kind, start, end: self.pos }
    }

    fn op(&mut self, length: usize, kind: Tok) -> Tok {
        self.pos += length;
        kind
    }

    fn scan(&mut self) -> Tok {
        match self.at(0) {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | 0x80.. => self.scan_word(),
            b'0'..=b'9' => self.scan_number(),
            b'\'' => self.scan_string(b'\'', Tok::Str),
            b'"' if self.ansi_quotes => self.scan_quoted(b'"'),
            b'"' => self.scan_string(b'"', Tok::Str),
            b'`' => self.scan_quoted(b'`'),
            b'.' if self.at(1).is_ascii_digit() && !self.after_name() => self.scan_number(),
            b'.' => self.op(1, Tok::Dot),
            b'@' if self.at(1) == b'@' => self.op(2, Tok::AtAt),
            b'@' => self.scan_user_var(),
            _ => self.scan_operator(),
        }
    }

    fn scan_operator(&mut self) -> Tok {
        match (self.at(0), self.at(1), self.at(2)) {
            (b'<', b'=', b'>') => self.op(3, Tok::NullSafeEq),
            (b'<', b'=', _) => self.op(2, Tok::Le),
            (b'<', b'>', _) | (b'!', b'=', _) => self.op(2, Tok::Ne),
            (b'<', b'<', _) => self.op(2, Tok::ShiftLeft),
            (b'<', ..) => self.op(1, Tok::Lt),
            (b'>', b'=', _) => self.op(2, Tok::Ge),
            (b'>', b'>', _) => self.op(2, Tok::ShiftRight),
            (b'>', ..) => self.op(1, Tok::Gt),
            (b'-', b'>', b'>') => self.op(3, Tok::LongArrow),
            (b'-', b'>', _) => self.op(2, Tok::Arrow),
            (b':', b'=', _) => self.op(2, Tok::Assign),
            (b'&', b'&', _) => self.op(2, Tok::AmpAmp),
            (b'|', b'|', _) => self.op(2, Tok::PipePipe),
            (first, ..) => {
                let kind = match first {
                    b'=' => Tok::Eq,
                    b'+' => Tok::Plus,
                    b'-' => Tok::Minus,
                    b'*' => Tok::Star,
                    b'/' => Tok::Slash,
                    b'%' => Tok::Percent,
                    b'^' => Tok::Caret,
                    b'~' => Tok::Tilde,
                    b'!' => Tok::Bang,
                    b'&' => Tok::Amp,
                    b'|' => Tok::Pipe,
                    b'(' => Tok::LParen,
                    b')' => Tok::RParen,
                    b',' => Tok::Comma,
                    b';' => Tok::Semicolon,
                    b':' => Tok::Colon,
                    b'?' => Tok::Param,
                    b'{' => Tok::LBrace,
                    b'}' => Tok::RBrace,
                    _ => Tok::Error,
                };
                self.op(1, kind)
            }
        }
    }

    /// Whether the byte before this dot ends a name, so that what follows the dot is a name too.
    fn after_name(&self) -> bool {
        self.pos > 0 && {
            let before = self.src[self.pos - 1];
            is_ident_byte(before) || before == b'`' || (before == b'"' && self.ansi_quotes)
        }
    }

    fn scan_word(&mut self) -> Tok {
        let first = self.at(0);
        if self.at(1) == b'\'' {
            match first {
                b'x' | b'X' => return self.scan_prefixed(u8::is_ascii_hexdigit, Tok::HexStr),
                b'b' | b'B' => return self.scan_prefixed(|byte| matches!(byte, b'0' | b'1'), Tok::BitStr),
                b'n' | b'N' => {
                    self.pos += 1;
                    return self.scan_string(b'\'', Tok::NationalStr);
                }
                _ => {}
            }
        }
        self.skip_while(is_ident_byte);
        Tok::Word
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.pos < self.src.len() && wanted(self.src[self.pos]) {
            self.pos += 1;
        }
    }

    /// `x'…'` and `b'…'`.
    fn scan_prefixed(&mut self, digit: impl Fn(&u8) -> bool, kind: Tok) -> Tok {
        self.pos += 2;
        let start = self.pos;
        self.skip_while(|byte| digit(&byte));
        if self.at(0) != b'\'' || (kind == Tok::HexStr && !(self.pos - start).is_multiple_of(2)) {
            return Tok::Error;
        }
        self.op(1, kind)
    }

    /// A number, or a name that starts with digits.
    fn scan_number(&mut self) -> Tok {
        let start = self.pos;
        // `t.1a`: after a name and a dot everything is a name.
        if start > 1 && self.src[start - 1] == b'.' && {
            let before = self.src[start - 2];
            is_ident_byte(before) || before == b'`'
        } {
            self.skip_while(is_ident_byte);
            return Tok::Word;
        }
        if self.at(0) == b'0' {
            let (digit, kind): (fn(&u8) -> bool, Tok) = match self.at(1) {
                b'x' => (u8::is_ascii_hexdigit, Tok::HexNum),
                b'b' => (|byte| matches!(byte, b'0' | b'1'), Tok::BitNum),
                _ => (|_| false, Tok::Int),
            };
            if kind != Tok::Int && digit(&self.at(2)) {
                self.pos += 2;
                self.skip_while(|byte| digit(&byte));
                if !is_ident_byte(self.at(0)) || self.pos >= self.src.len() {
                    return kind;
                }
                self.skip_while(is_ident_byte);
                return Tok::Word;
            }
        }
        self.skip_while(|byte| byte.is_ascii_digit());
        let mut kind = Tok::Int;
        if self.at(0) == b'.' {
            self.pos += 1;
            self.skip_while(|byte| byte.is_ascii_digit());
            kind = Tok::Decimal;
        }
        if matches!(self.at(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.at(1), b'+' | b'-'));
            if self.at(1 + sign).is_ascii_digit() {
                self.pos += 1 + sign;
                self.skip_while(|byte| byte.is_ascii_digit());
                kind = Tok::Float;
            }
        }
        if kind == Tok::Int && self.pos < self.src.len() && is_ident_byte(self.at(0)) {
            self.skip_while(is_ident_byte);
            return Tok::Word;
        }
        kind
    }

    /// A string whose quote is at the current position; doubled quotes are part of it.
    fn scan_string(&mut self, quote: u8, kind: Tok) -> Tok {
        self.pos += 1;
        loop {
            let rest = &self.src[self.pos.min(self.src.len())..];
            let found = match self.backslash_escapes {
                true => memchr::memchr2(quote, b'\\', rest),
                false => memchr::memchr(quote, rest),
            };
            let Some(at) = found else {
                self.pos = self.src.len();
                return Tok::Error;
            };
            self.pos += at;
            let escaped = self.at(0) == b'\\' && self.backslash_escapes;
            if escaped || self.at(1) == quote {
                self.pos += 2;
            } else {
                return self.op(1, kind);
            }
        }
    }

    /// An identifier in quotes.
    fn scan_quoted(&mut self, quote: u8) -> Tok {
        self.pos += 1;
        loop {
            let Some(at) = memchr::memchr(quote, &self.src[self.pos..]) else {
                self.pos = self.src.len();
                return Tok::Error;
            };
            self.pos += at + 1;
            if self.at(0) != quote {
                return Tok::QuotedIdent;
            }
            self.pos += 1;
        }
    }

    fn scan_user_var(&mut self) -> Tok {
        self.pos += 1;
        let inner = match self.at(0) {
            b'\'' => self.scan_string(b'\'', Tok::UserVar),
            b'"' => self.scan_string(b'"', Tok::UserVar),
            b'`' => self.scan_quoted(b'`'),
            _ => {
                self.skip_while(|byte| is_ident_byte(byte) || byte == b'.');
                Tok::UserVar
            }
        };
        if inner == Tok::Error { Tok::Error } else { Tok::UserVar }
    }
}

/// The content of a string literal: `text` is without its outer quotes.
pub fn unescape(text: &[u8], quote: u8, backslash_escapes: bool) -> Vec<u8> {
    let plain = match backslash_escapes {
        true => memchr::memchr2(quote, b'\\', text).is_none(),
        false => memchr::memchr(quote, text).is_none(),
    };
    if plain {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte == quote {
            bytes.next();
            out.push(quote);
        } else if byte == b'\\' && backslash_escapes {
            match bytes.next() {
                Some(b'0') => out.push(0),
                Some(b'b') => out.push(8),
                Some(b'n') => out.push(b'\n'),
                Some(b'r') => out.push(b'\r'),
                Some(b't') => out.push(b'\t'),
                Some(b'Z') => out.push(26),
                Some(wildcard @ (b'%' | b'_')) => out.extend([b'\\', wildcard]),
                Some(other) => out.push(other),
                None => out.push(b'\\'),
            }
        } else {
            out.push(byte);
        }
    }
    out
}
