//! The parser's hands: current token, look-ahead, and the small things every rule is made of.

use crate::error::{Error, Result};

use super::ParseOptions;
use super::ast::{Ident, ObjectName};
use super::keywords::is_reserved;
use super::lexer::{Lexer, Tok, Token, unescape};

/// The deepest nesting of expressions and queries; beyond it, error 1436 instead of a stack overflow.
pub(super) const DEPTH_MAX: usize = 200;
/// The longest chain of one operator that builds a tree leaning to one side.
pub(super) const CHAIN_MAX: usize = 500;
/// Characters of the statement shown after `near`.
const NEAR_LENGTH_MAX: usize = 80;
/// The longest identifier in characters.
const IDENT_LENGTH_MAX: usize = 64;

/// A parser over one statement's text.
pub(super) struct Parser<'a> {
    pub src: &'a [u8],
    pub options: ParseOptions,
    lexer: Lexer<'a>,
    /// The token not yet consumed.
    pub tok: Token,
    /// Where the last consumed token ended.
    pub prev_end: usize,
    /// Parameters met so far.
    pub params: usize,
    pub depth: usize,
}

/// A place to come back to.
#[derive(Clone, Copy)]
pub(super) struct Mark<'a> {
    lexer: Lexer<'a>,
    tok: Token,
    prev_end: usize,
    params: usize,
}

impl<'a> Parser<'a> {
    pub fn new(src: &'a [u8], options: ParseOptions) -> Self {
        let mut lexer = Lexer::new(src, options.ansi_quotes, !options.no_backslash_escapes);
        let tok = lexer.next_token();
        Self { src, options, lexer, tok, prev_end: 0, params: 0, depth: 0 }
    }

    pub fn mark(&self) -> Mark<'a> {
        Mark { lexer: self.lexer, tok: self.tok, prev_end: self.prev_end, params: self.params }
    }

    pub fn reset(&mut self, mark: Mark<'a>) {
        self.lexer = mark.lexer;
        self.tok = mark.tok;
        self.prev_end = mark.prev_end;
        self.params = mark.params;
    }

    /// Consumes the current token.
    pub fn bump(&mut self) -> Token {
        let token = self.tok;
        self.prev_end = token.end;
        self.tok = self.lexer.next_token();
        token
    }

    /// The token after the current one.
    pub fn peek(&self) -> Token {
        let mut lexer = self.lexer;
        lexer.next_token()
    }

    /// The second token after the current one.
    pub fn peek2(&self) -> Token {
        let mut lexer = self.lexer;
        lexer.next_token();
        lexer.next_token()
    }

    /// The bytes of a token.
    pub fn bytes(&self, token: Token) -> &'a [u8] {
        &self.src[token.start..token.end]
    }

    /// The source from `start` to the end of the last consumed token.
    pub fn text_from(&self, start: usize) -> String {
        String::from_utf8_lossy(&self.src[start.min(self.prev_end)..self.prev_end]).into_owned()
    }

    /// A syntax error at the current token.
    pub fn error(&self) -> Error {
        self.error_at(self.tok.start)
    }

    /// A syntax error at a position.
    pub fn error_at(&self, at: usize) -> Error {
        let near: String = String::from_utf8_lossy(&self.src[at..]).chars().take(NEAR_LENGTH_MAX).collect();
        let line = 1 + memchr::memchr_iter(b'\n', &self.src[..at]).count();
        Error::Parse { near, line }
    }

    pub fn unsupported<T>(&self, feature: &str) -> Result<T> {
        Err(Error::not_supported(feature))
    }

    /// Runs a rule one level deeper.
    pub fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::TooDeep);
        }
        let result = rule(self);
        self.depth -= 1;
        result
    }

    pub fn is(&self, kind: Tok) -> bool {
        self.tok.kind == kind
    }

    pub fn eat(&mut self, kind: Tok) -> bool {
        let found = self.tok.kind == kind;
        if found {
            self.bump();
        }
        found
    }

    pub fn expect(&mut self, kind: Tok) -> Result<Token> {
        if self.tok.kind == kind { Ok(self.bump()) } else { Err(self.error()) }
    }

    /// Whether a token is this keyword.
    pub fn token_is(&self, token: Token, keyword: &str) -> bool {
        token.kind == Tok::Word && self.bytes(token).eq_ignore_ascii_case(keyword.as_bytes())
    }

    pub fn is_kw(&self, keyword: &str) -> bool {
        self.token_is(self.tok, keyword)
    }

    pub fn is_any(&self, keywords: &[&str]) -> bool {
        self.tok.kind == Tok::Word && keywords.iter().any(|keyword| self.is_kw(keyword))
    }

    /// Whether the next token after the current one is this keyword.
    pub fn next_is(&self, keyword: &str) -> bool {
        self.token_is(self.peek(), keyword)
    }

    pub fn eat_kw(&mut self, keyword: &str) -> bool {
        let found = self.is_kw(keyword);
        if found {
            self.bump();
        }
        found
    }

    /// Consumes the first of these keywords that is there.
    pub fn eat_any(&mut self, keywords: &[&'static str]) -> Option<&'static str> {
        let found = keywords.iter().copied().find(|keyword| self.is_kw(keyword))?;
        self.bump();
        Some(found)
    }

    /// Consumes all of these keywords if all are there in a row.
    pub fn eat_kws(&mut self, keywords: &[&str]) -> bool {
        let mark = self.mark();
        for keyword in keywords {
            if !self.eat_kw(keyword) {
                self.reset(mark);
                return false;
            }
        }
        true
    }

    pub fn expect_kw(&mut self, keyword: &str) -> Result<()> {
        if self.eat_kw(keyword) { Ok(()) } else { Err(self.error()) }
    }

    pub fn expect_kws(&mut self, keywords: &[&str]) -> Result<()> {
        keywords.iter().try_for_each(|keyword| self.expect_kw(keyword))
    }

    /// Consumes the current word and gives it in upper case.
    pub fn upper_word(&mut self) -> Result<String> {
        let token = self.expect(Tok::Word)?;
        Ok(String::from_utf8_lossy(self.bytes(token)).to_ascii_uppercase())
    }

    /// Whether the current token can be an identifier where a keyword could stand as well.
    pub fn is_ident(&self) -> bool {
        self.token_is_ident(self.tok)
    }

    pub fn token_is_ident(&self, token: Token) -> bool {
        match token.kind {
            Tok::QuotedIdent => true,
            Tok::Word => !is_reserved(self.bytes(token)),
            _ => false,
        }
    }

    /// An identifier.
    pub fn ident(&mut self) -> Result<Ident> {
        if self.is_ident() { self.ident_any() } else { Err(self.error()) }
    }

    /// An identifier where no keyword can stand, such as after a dot.
    pub fn ident_any(&mut self) -> Result<Ident> {
        match self.tok.kind {
            Tok::Word | Tok::QuotedIdent => {
                let token = self.bump();
                self.ident_of(token)
            }
            _ => Err(self.error()),
        }
    }

    /// The name a word or quoted identifier stands for.
    pub fn ident_of(&self, token: Token) -> Result<Ident> {
        let bytes = self.bytes(token);
        let name = match token.kind {
            Tok::QuotedIdent => unescape(&bytes[1..bytes.len() - 1], bytes[0], false),
            _ => bytes.to_vec(),
        };
        let name = String::from_utf8(name).map_err(|error| Error::InvalidCharacterString {
            charset: "utf8mb4".into(),
            text: String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })?;
        if name.len() > IDENT_LENGTH_MAX && name.chars().count() > IDENT_LENGTH_MAX {
            return Err(Error::TooLongIdent { name });
        }
        Ok(name)
    }

    /// `[schema.]name`
    pub fn object_name(&mut self) -> Result<ObjectName> {
        if self.is(Tok::Dot) {
            self.bump();
            return Ok(ObjectName { schema: None, name: self.ident_any()? });
        }
        let first = self.ident()?;
        if self.eat(Tok::Dot) {
            return Ok(ObjectName { schema: Some(first), name: self.ident_any()? });
        }
        Ok(ObjectName { schema: None, name: first })
    }

    /// One or more of a rule, separated by commas.
    pub fn comma_list<T>(&mut self, mut rule: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut list = vec![rule(self)?];
        while self.eat(Tok::Comma) {
            list.push(rule(self)?);
        }
        Ok(list)
    }

    /// `( rule, … )`
    pub fn paren_list<T>(&mut self, rule: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect(Tok::LParen)?;
        let list = self.comma_list(rule)?;
        self.expect(Tok::RParen)?;
        Ok(list)
    }

    pub fn object_names(&mut self) -> Result<Vec<ObjectName>> {
        self.comma_list(Self::object_name)
    }

    pub fn eat_if_exists(&mut self) -> Result<bool> {
        if !self.is_kw("IF") {
            return Ok(false);
        }
        self.bump();
        self.expect_kw("EXISTS")?;
        Ok(true)
    }

    pub fn eat_if_not_exists(&mut self) -> Result<bool> {
        if !self.is_kw("IF") {
            return Ok(false);
        }
        self.bump();
        self.expect_kws(&["NOT", "EXISTS"])?;
        Ok(true)
    }

    /// The bytes of a string token.
    pub fn string_of(&self, token: Token) -> Vec<u8> {
        let mut bytes = self.bytes(token);
        if token.kind == Tok::NationalStr {
            bytes = &bytes[1..];
        }
        unescape(&bytes[1..bytes.len() - 1], bytes[0], !self.options.no_backslash_escapes)
    }

    /// A string literal's bytes; hexadecimal literals are allowed too.
    pub fn string_bytes(&mut self) -> Result<Vec<u8>> {
        match self.tok.kind {
            Tok::Str => {
                let token = self.bump();
                Ok(self.string_of(token))
            }
            Tok::HexStr | Tok::HexNum => {
                let token = self.bump();
                Ok(self.hex_of(token))
            }
            _ => Err(self.error()),
        }
    }

    /// A string literal as text.
    pub fn string(&mut self) -> Result<String> {
        if !self.is(Tok::Str) {
            return Err(self.error());
        }
        Ok(String::from_utf8_lossy(&self.string_bytes()?).into_owned())
    }

    /// An identifier or a string: names of character sets, engines, hosts.
    pub fn ident_or_string(&mut self) -> Result<String> {
        match self.tok.kind {
            Tok::Str => self.string(),
            _ => self.ident(),
        }
    }

    /// A character set or collation name; `BINARY` and `DEFAULT`-like keywords are allowed where they are names.
    pub fn charset_name(&mut self) -> Result<String> {
        if self.eat_kw("BINARY") {
            return Ok("binary".into());
        }
        Ok(self.ident_or_string()?.to_lowercase())
    }

    /// The bytes of a hexadecimal token.
    pub fn hex_of(&self, token: Token) -> Vec<u8> {
        let bytes = self.bytes(token);
        let digits = if token.kind == Tok::HexStr { &bytes[2..bytes.len() - 1] } else { &bytes[2..] };
        let value = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
        let (odd, even) = digits.split_at(digits.len() % 2);
        let pairs = even.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1]));
        odd.iter().map(|&digit| value(digit)).chain(pairs).collect()
    }

    /// The bytes of a bit token, most significant first.
    pub fn bits_of(&self, token: Token) -> Vec<u8> {
        let bytes = self.bytes(token);
        let digits = if token.kind == Tok::BitStr { &bytes[2..bytes.len() - 1] } else { &bytes[2..] };
        let mut out: Vec<u8> = digits
            .rchunks(8)
            .map(|chunk| chunk.iter().fold(0, |byte, digit| byte << 1 | (digit - b'0')))
            .collect();
        out.reverse();
        out
    }

    /// An unsigned number that fits 64 bits.
    pub fn unsigned(&mut self) -> Result<u64> {
        let at = self.tok.start;
        let value = match self.tok.kind {
            Tok::Int => std::str::from_utf8(self.bytes(self.tok)).ok().and_then(|text| text.parse().ok()),
            Tok::HexNum | Tok::HexStr => {
                let bytes = self.hex_of(self.tok);
                (bytes.len() <= 8)
                    .then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            _ => None,
        };
        match value {
            Some(value) => {
                self.bump();
                Ok(value)
            }
            None => Err(self.error_at(at)),
        }
    }

    /// Skips to the end of the statement and gives the text skipped.
    pub fn rest(&mut self) -> Result<String> {
        let start = self.tok.start;
        while !matches!(self.tok.kind, Tok::Eof | Tok::Semicolon) {
            if self.is(Tok::Error) {
                return Err(self.error());
            }
            self.bump();
        }
        Ok(if start < self.prev_end { self.text_from(start) } else { String::new() })
    }
}
