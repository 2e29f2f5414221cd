//! Just enough of SQL's expression grammar to write tests in it.

use rutile_expr::{Collation, EvalContext, Expr, FieldType, MysqlType, Result, registry};

/// Reads one expression or type.
struct Parser<'a> {
    ctx: &'a EvalContext,
    tokens: Vec<Token>,
    at: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Number(String),
    Text(String),
    Bytes(Vec<u8>),
    Op(String),
}

fn tokenize(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        let start = i;
        if c.is_whitespace() {
            i += 1;
        } else if c == '\'' {
            let mut value = String::new();
            i += 1;
            while chars[i] != '\'' || chars.get(i + 1) == Some(&'\'') {
                if chars[i] == '\\' {
                    i += 1;
                    if matches!(chars[i], '%' | '_') {
                        value.push('\\');
                    }
                    value.push(match chars[i] {
                        'n' => '\n',
                        't' => '\t',
                        '0' => '\0',
                        other => other,
                    });
                } else {
                    value.push(chars[i]);
                    i += usize::from(chars[i] == '\'');
                }
                i += 1;
            }
            i += 1;
            tokens.push(Token::Text(value));
        } else if c == '0' && chars.get(i + 1) == Some(&'x') {
            i += 2;
            while i < chars.len() && chars[i].is_ascii_hexdigit() {
                i += 1;
            }
            let digits: String = chars[start + 2..i].iter().collect();
            let bytes =
                (0..digits.len()).step_by(2).map(|k| u8::from_str_radix(&digits[k..k + 2], 16).unwrap());
            tokens.push(Token::Bytes(bytes.collect()));
        } else if c.is_ascii_digit() || (c == '.' && chars.get(i + 1).is_some_and(char::is_ascii_digit)) {
            while i < chars.len() && (chars[i].is_ascii_digit() || chars[i] == '.') {
                i += 1;
            }
            if i < chars.len() && chars[i] == 'e' {
                i += 1;
                i += usize::from(chars.get(i) == Some(&'-') || chars.get(i) == Some(&'+'));
                while i < chars.len() && chars[i].is_ascii_digit() {
                    i += 1;
                }
            }
            tokens.push(Token::Number(chars[start..i].iter().collect()));
        } else if c.is_alphabetic() || c == '_' {
            while i < chars.len() && (chars[i].is_alphanumeric() || chars[i] == '_') {
                i += 1;
            }
            tokens.push(Token::Word(chars[start..i].iter().collect::<String>().to_lowercase()));
        } else {
            let two: String = chars[i..(i + 2).min(chars.len())].iter().collect();
            let three: String = chars[i..(i + 3).min(chars.len())].iter().collect();
            let len = if three == "<=>" {
                3
            } else if matches!(two.as_str(), "<=" | ">=" | "<>" | "!=" | "<<" | ">>" | "&&" | "||") {
                2
            } else {
                1
            };
            i += len;
            tokens.push(Token::Op(chars[start..i].iter().collect()));
        }
    }
    tokens
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(&Token::Word(word.into()));
        self.at += usize::from(found);
        found
    }

    fn op(&mut self, op: &str) -> bool {
        let found = self.peek() == Some(&Token::Op(op.into()));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, op: &str) {
        assert!(self.op(op), "{op} expected at {:?}", &self.tokens[self.at..]);
    }

    fn call(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        registry::resolve(self.ctx, name, args)
    }

    fn text(&self, value: &str) -> Expr {
        Expr::string(value, self.ctx.connection_collation)
    }

    /// Binding power and name of the operator ahead.
    fn infix(&self) -> Option<(u8, String)> {
        let name = match self.peek()? {
            Token::Word(w) | Token::Op(w) => w.clone(),
            _ => return None,
        };
        let power = match name.as_str() {
            "or" | "||" => 1,
            "xor" => 2,
            "and" | "&&" => 3,
            "=" | "<=>" | "<" | "<=" | ">" | ">=" | "<>" | "!=" | "is" | "like" | "in" | "regexp"
            | "rlike" | "between" | "not" => 5,
            "|" => 6,
            "&" => 7,
            "<<" | ">>" => 8,
            "+" | "-" => 9,
            "*" | "/" | "%" | "div" | "mod" => 10,
            "^" => 11,
            "collate" => 13,
            _ => return None,
        };
        Some((power, name))
    }

    fn expr(&mut self, min: u8) -> Result<Expr> {
        let mut left = self.prefix()?;
        while let Some((power, name)) = self.infix().filter(|(p, _)| *p >= min) {
            self.at += 1;
            left = self.infix_rest(left, power, &name)?;
        }
        Ok(left)
    }

    fn infix_rest(&mut self, left: Expr, power: u8, name: &str) -> Result<Expr> {
        match name {
            "is" => {
                let negated = self.word("not");
                let test = ["null", "true", "false"].into_iter().find(|w| self.word(w)).unwrap();
                let found = self.call(&format!("is_{test}"), vec![left])?;
                if negated { self.call("not", vec![found]) } else { Ok(found) }
            }
            "not" => {
                let (_, name) = self.infix().unwrap();
                self.at += 1;
                let found = self.infix_rest(left, power, &name)?;
                self.call("not", vec![found])
            }
            "in" => {
                self.expect("(");
                let mut args = vec![left];
                args.extend(self.list(")")?);
                self.call("in", args)
            }
            "between" => {
                let low = self.expr(6)?;
                assert!(self.word("and"));
                let high = self.expr(6)?;
                self.call("between", vec![left, low, high])
            }
            "like" => {
                let mut args = vec![left, self.expr(6)?];
                if self.word("escape") {
                    args.push(self.expr(6)?);
                }
                self.call("like", args)
            }
            "collate" => {
                let Some(Token::Word(name)) = self.peek().cloned() else { panic!("collation expected") };
                self.at += 1;
                registry::collate(left, Collation::from_name(&name)?)
            }
            "+" | "-" if self.word("interval") => {
                let (amount, unit) = self.interval()?;
                self.call(if name == "+" { "date_add" } else { "date_sub" }, vec![left, amount, unit])
            }
            _ => {
                let right = self.expr(power + 1)?;
                let name = match name {
                    "||" => "or",
                    "&&" => "and",
                    other => other,
                };
                self.call(name, vec![left, right])
            }
        }
    }

    fn interval(&mut self) -> Result<(Expr, Expr)> {
        let amount = self.expr(0)?;
        let Some(Token::Word(unit)) = self.peek().cloned() else { panic!("unit expected") };
        self.at += 1;
        Ok((amount, self.text(&unit)))
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>> {
        let mut items = Vec::new();
        if self.op(end) {
            return Ok(items);
        }
        loop {
            if self.word("interval") {
                let (amount, unit) = self.interval()?;
                items.extend([amount, unit]);
            } else {
                items.push(self.expr(0)?);
            }
            if self.op(end) {
                return Ok(items);
            }
            self.expect(",");
        }
    }

    fn prefix(&mut self) -> Result<Expr> {
        let token = self.peek().cloned().expect("an expression");
        self.at += 1;
        match token {
            Token::Number(n) => Expr::number(&n),
            Token::Text(t) => Ok(self.text(&t)),
            Token::Bytes(b) => Ok(Expr::bytes(b)),
            Token::Op(op) => match op.as_str() {
                "(" => {
                    let inner = self.expr(0)?;
                    self.expect(")");
                    Ok(inner)
                }
                "-" => {
                    let arg = self.expr(12)?;
                    self.call("neg", vec![arg])
                }
                "~" | "!" => {
                    let arg = self.expr(12)?;
                    self.call(&op, vec![arg])
                }
                other => panic!("{other} unexpected"),
            },
            Token::Word(word) => self.named(&word),
        }
    }

    fn named(&mut self, word: &str) -> Result<Expr> {
        match word {
            "null" => return Ok(Expr::null()),
            "true" | "false" => return Ok(Expr::bool(word == "true")),
            "not" => {
                let arg = self.expr(4)?;
                return self.call("not", vec![arg]);
            }
            "binary" => {
                let arg = self.expr(12)?;
                return self.call("binary", vec![arg]);
            }
            "case" => return self.case(),
            "date" | "time" | "timestamp" => {
                if let Some(Token::Text(t)) = self.peek().cloned() {
                    self.at += 1;
                    return self.call(&format!("{word}_literal"), vec![self.text(&t)]);
                }
            }
            _ => {}
        }
        self.expect("(");
        match word {
            "cast" => {
                let arg = self.expr(0)?;
                assert!(self.word("as"));
                let to = self.cast_type();
                self.expect(")");
                Ok(registry::explicit_cast(arg, to))
            }
            "extract" | "timestampdiff" | "timestampadd" | "get_format" => {
                let Some(Token::Word(unit)) = self.peek().cloned() else { panic!("unit expected") };
                self.at += 1;
                assert!(self.word("from") || self.op(","));
                let mut args = vec![self.text(&unit)];
                args.extend(self.list(")")?);
                self.call(word, args)
            }
            _ => {
                let args = self.list(")")?;
                self.call(word, args)
            }
        }
    }

    fn case(&mut self) -> Result<Expr> {
        let operand =
            if self.peek() == Some(&Token::Word("when".into())) { None } else { Some(self.expr(0)?) };
        let mut whens = Vec::new();
        while self.word("when") {
            let when = self.expr(0)?;
            assert!(self.word("then"));
            whens.push((when, self.expr(0)?));
        }
        let otherwise = if self.word("else") { Some(self.expr(0)?) } else { None };
        assert!(self.word("end"));
        registry::case(self.ctx, operand, whens, otherwise)
    }

    fn cast_type(&mut self) -> FieldType {
        let Some(Token::Word(name)) = self.peek().cloned() else { panic!("type expected") };
        self.at += 1;
        let mut numbers = Vec::new();
        if self.op("(") {
            while let Some(Token::Number(n)) = self.peek().cloned() {
                self.at += 1;
                numbers.push(n.parse::<u32>().unwrap());
                self.op(",");
            }
            self.expect(")");
        }
        let first = numbers.first().copied();
        let string = |collation| match first {
            Some(n) => FieldType::new(MysqlType::Char).with_flen(n).with_collation(collation),
            None => FieldType::varchar(u32::MAX, collation),
        };
        match name.as_str() {
            "signed" => FieldType::bigint(),
            "unsigned" => FieldType::bigint_unsigned(),
            "double" => FieldType::double(),
            "float" => FieldType::new(MysqlType::Float),
            "decimal" => FieldType::decimal(first.unwrap_or(10), numbers.get(1).copied().unwrap_or(0) as u8),
            "date" => FieldType::date(),
            "datetime" => FieldType::datetime(first.unwrap_or(0) as u8),
            "time" => FieldType::time(first.unwrap_or(0) as u8),
            "year" => FieldType::new(MysqlType::Year),
            "char" => string(self.ctx.connection_collation),
            "binary" => string(Collation::Binary),
            other => panic!("type {other}"),
        }
    }

    fn column_type(&mut self) -> FieldType {
        use MysqlType as T;
        let Some(Token::Word(name)) = self.peek().cloned() else { panic!("type expected") };
        self.at += 1;
        let (mut numbers, mut elems) = (Vec::new(), Vec::new());
        if self.op("(") {
            while !self.op(")") {
                match self.peek().cloned() {
                    Some(Token::Number(n)) => numbers.push(n.parse::<u32>().unwrap()),
                    Some(Token::Text(t)) => elems.push(t),
                    _ => {}
                }
                self.at += 1;
            }
        }
        let first = numbers.first().copied();
        let text = |tp| FieldType::new(tp).with_collation(self.ctx.connection_collation);
        let sized = |ft: FieldType| if let Some(n) = first { ft.with_flen(n) } else { ft };
        let fsp = first.unwrap_or(0) as u8;
        let found = match name.as_str() {
            "tinyint" => FieldType::new(T::Tiny),
            "smallint" => FieldType::new(T::Short),
            "mediumint" => FieldType::new(T::Int24),
            "int" => FieldType::new(T::Long),
            "bigint" => FieldType::new(T::LongLong),
            "float" => FieldType::new(T::Float),
            "double" => FieldType::new(T::Double),
            "decimal" => FieldType::decimal(first.unwrap_or(10), numbers.get(1).copied().unwrap_or(0) as u8),
            "year" => FieldType::new(T::Year),
            "bit" => sized(FieldType::new(T::Bit)),
            "date" => FieldType::date(),
            "datetime" => FieldType::datetime(fsp),
            "timestamp" => FieldType::timestamp(fsp),
            "time" => FieldType::time(fsp),
            "char" => sized(text(T::Char)),
            "varchar" => sized(text(T::Varchar)),
            "tinytext" => text(T::TinyBlob),
            "text" => text(T::Blob),
            "binary" => sized(FieldType::new(T::Char)),
            "varbinary" => sized(FieldType::new(T::Varchar)),
            "blob" => FieldType::new(T::Blob),
            "enum" => text(T::Enum).with_elems(elems),
            "set" => text(T::Set).with_elems(elems),
            other => panic!("type {other}"),
        };
        if self.word("unsigned") {
            return found.with_unsigned(true);
        }
        if self.word("ascii") { found.with_collation(Collation::AsciiGeneralCi) } else { found }
    }
}

/// Reads an expression.
pub fn parse(ctx: &EvalContext, text: &str) -> Result<Expr> {
    let mut parser = Parser { ctx, tokens: tokenize(text), at: 0 };
    let expr = parser.expr(0)?;
    assert_eq!(parser.at, parser.tokens.len(), "text left over in {text}");
    Ok(expr)
}

/// Reads a column type: `int unsigned`, `varchar(10)`, `enum('a','b')`.
pub fn parse_type(ctx: &EvalContext, text: &str) -> FieldType {
    let mut parser = Parser { ctx, tokens: tokenize(text), at: 0 };
    parser.column_type()
}
