//! The parser against lists of statements whose fate a real MySQL decided, and the shapes of what it builds.

use super::ast::*;
use super::*;

fn parse(sql: &str) -> Result<Statement> {
    parse_one(sql.as_bytes(), ParseOptions::default()).map(|parsed| parsed.statement)
}

/// Every line of the list is a statement MySQL accepts.
#[test]
fn accepts_statements() {
    let failures: Vec<String> = include_str!("testdata/accepted.sql")
        .lines()
        .filter_map(|sql| parse(sql).err().map(|error| format!("{sql}\n    {error}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Pairs of lines: a statement, and the `near` MySQL answers.
#[test]
fn reports_errors_as_mysql_does() {
    let text = include_str!("testdata/errors.txt");
    let mut lines = text.lines();
    while let (Some(sql), Some(expected)) = (lines.next(), lines.next()) {
        let near = match parse(sql) {
            Err(Error::Parse { near, line }) => format!("near '{near}' at line {line}"),
            Err(other) => format!("{} {other}", other.code()),
            Ok(_) => "accepted".into(),
        };
        assert_eq!(near, expected, "{sql}");
    }
}

/// An expression in prefix form.
fn shape(sql: &str) -> String {
    fn show(expr: &Expr) -> String {
        match expr {
            Expr::Literal(Literal::Int(value)) => value.to_string(),
            Expr::Literal(Literal::Str { value, .. }) => format!("'{}'", String::from_utf8_lossy(value)),
            Expr::Literal(literal) => format!("{literal:?}"),
            Expr::Column(name) => name.to_string(),
            Expr::UserVar(name) => format!("@{name}"),
            Expr::Assign { var, value } => format!("(:= @{var} {})", show(value)),
            Expr::Unary { op, expr } => format!("({op:?} {})", show(expr)),
            Expr::Binary { op, left, right } => format!("({op:?} {} {})", show(left), show(right)),
            Expr::Like { expr, pattern, .. } => format!("(Like {} {})", show(expr), show(pattern)),
            Expr::Between { expr, low, high, .. } => {
                format!("(Between {} {} {})", show(expr), show(low), show(high))
            }
            Expr::IsNull { expr, .. } => format!("(IsNull {})", show(expr)),
            Expr::InList { expr, list, .. } => {
                format!("(In {} {})", show(expr), list.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Expr::Cast { expr, .. } => format!("(Cast {})", show(expr)),
            Expr::Interval { value, unit } => format!("(Interval {} {})", show(value), unit.name()),
            Expr::Function(call) => {
                format!("({} {})", call.name, call.args.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Expr::Collate { expr, collation } => format!("(Collate {} {collation})", show(expr)),
            other => format!("{other:?}"),
        }
    }
    show(&parse_expr(sql).unwrap_or_else(|error| panic!("{sql}: {error}")))
}

#[test]
fn precedence() {
    for (sql, expected) in [
        ("a = 1 XOR b = 2", "(Xor (Eq a 1) (Eq b 2))"),
        ("a = 1 || b = 2", "(Or (Eq a 1) (Eq b 2))"),
        ("a OR b XOR c AND NOT d = e", "(Or a (Xor b (And c (Not (Eq d e)))))"),
        ("a * b ^ c", "(Mul a (BitXor b c))"),
        ("a & b << c", "(BitAnd a (ShiftLeft b c))"),
        ("a | b & c + d * e", "(BitOr a (BitAnd b (Add c (Mul d e))))"),
        ("a LIKE b = c", "(Eq (Like a b) c)"),
        ("~ a * b", "(Mul (BitNot a) b)"),
        ("-a ^ b", "(BitXor (Neg a) b)"),
        ("- a * b", "(Mul (Neg a) b)"),
        ("j->'$.x' + 1", "(Add (JsonExtract j '$.x') 1)"),
        ("@a := b OR c", "(:= @a (Or b c))"),
        ("BINARY a = b", "(Eq (Cast a) b)"),
        ("a BETWEEN 1 AND 2 AND b", "(And (Between a 1 2) b)"),
        ("a = b = c", "(Eq (Eq a b) c)"),
        ("a - b - c", "(Sub (Sub a b) c)"),
        ("NOT a IS NULL", "(Not (IsNull a))"),
        ("! a IS NULL", "(IsNull (Not a))"),
        ("a IN (1, 2) AND b", "(And (In a 1 2) b)"),
        ("a + INTERVAL 1 + 1 DAY", "(Add a (Interval (Add 1 1) DAY))"),
        ("a COLLATE utf8mb4_bin = b", "(Eq (Collate a utf8mb4_bin) b)"),
        ("a DIV b MOD c", "(Mod (IntDiv a b) c)"),
        ("a AND b AND c AND d", "(And (And a b) (And c d))"),
        ("MOD(a, b) MOD c", "(Mod (MOD a b) c)"),
    ] {
        assert_eq!(shape(sql), expected, "{sql}");
    }
}

#[test]
fn sql_mode_changes_the_grammar() {
    let options = ParseOptions { ansi_quotes: true, pipes_as_concat: true, ..ParseOptions::default() };
    let parsed = parse_one(br#"SELECT "a" || b || 'c'"#, options).unwrap();
    let text = format!("{:?}", parsed.statement);
    assert!(text.contains("Concat") && !text.contains("Or"), "{text}");
    let options = ParseOptions { no_backslash_escapes: true, ..ParseOptions::default() };
    let parsed = parse_one(br"SELECT 'a\'", options).unwrap();
    assert!(format!("{:?}", parsed.statement).contains("[97, 92]"));
}

fn titles(sql: &str) -> Vec<String> {
    let Ok(Statement::Query(query)) = parse(sql) else { panic!("{sql}") };
    let SetExpr::Select(select) = query.body else { panic!("{sql}") };
    select
        .items
        .into_iter()
        .map(|item| match item {
            SelectItem::Expr { title, .. } => title,
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn titles_are_the_source_text() {
    assert_eq!(
        titles(
            "SELECT 'a' 'b', _utf8mb4'abc', TRUE, (1), -1, x'41', t.c, @@version, 1 +  2 /* c */ , count( * ), (  1 + 1 ), +1, Null"
        ),
        [
            "a",
            "abc",
            "TRUE",
            "1",
            "-1",
            "x'41'",
            "c",
            "@@version",
            "1 +  2",
            "count( * )",
            "(  1 + 1 )",
            "1",
            "NULL"
        ],
    );
}

#[test]
fn joins_without_conditions_nest_to_the_left() {
    let Ok(Statement::Query(query)) = parse("SELECT * FROM a JOIN b JOIN c ON a.x = c.x") else { panic!() };
    let SetExpr::Select(select) = query.body else { panic!() };
    let TableRef::Join(outer) = &select.from[0] else { panic!() };
    assert!(matches!(outer.constraint, JoinConstraint::On(_)));
    assert!(matches!(&outer.left, TableRef::Join(inner) if inner.constraint == JoinConstraint::None));
}

#[test]
fn statements_are_split_at_semicolons() {
    let sql = b"SELECT 1 ; ; SELECT ';' ; -- the end\n";
    let first = parse_first(sql, ParseOptions::default()).unwrap();
    assert_eq!(&sql[first.end..first.end + 5], b" ; SE");
    let second = parse_first(&sql[first.end..], ParseOptions::default()).unwrap();
    assert_eq!(first.end + second.end, sql.len());
    assert_eq!(parse_first(b" -- nothing", ParseOptions::default()), Err(Error::EmptyQuery));
}

#[test]
fn any_bytes_are_allowed_in_strings() {
    let parsed = parse_one(b"SELECT '\xff\x00\xfe'", ParseOptions::default()).unwrap();
    assert!(format!("{:?}", parsed.statement).contains("[255, 0, 254]"));
}

#[test]
fn version_comments() {
    assert_eq!(shape("1 /*!50000 + 2 */ + 3"), "(Add (Add 1 2) 3)");
    assert_eq!(shape("1 /*!99999 + 2 */ + 3"), "(Add 1 3)");
    assert_eq!(shape("1 /*! + 2 */"), "(Add 1 2)");
}

/// Nesting is refused before the stack ends, also the one of a worker thread; long chains of AND and OR are not.
#[test]
fn depth_is_limited() {
    for (open, close) in
        [("(", ")"), ("-", ""), ("ABS(", ")"), ("(SELECT ", ")"), ("CASE WHEN ", " THEN 1 END")]
    {
        let sql = format!("SELECT {}1{}", open.repeat(20_000), close.repeat(20_000));
        assert_eq!(parse(&sql), Err(Error::TooDeep), "{open}");
    }
    let joins = format!("SELECT * FROM t{}", " JOIN t".repeat(20_000));
    assert_eq!(parse(&joins), Err(Error::TooDeep));
    let unions = format!("SELECT 1{}", " UNION SELECT 1".repeat(20_000));
    assert_eq!(parse(&unions), Err(Error::TooDeep));
    let chain = format!("SELECT {}", vec!["a = 1"; 40_000].join(" OR "));
    assert!(parse(&chain).is_ok());
}

#[test]
fn parameters_are_numbered() {
    let parsed = parse_one(b"SELECT ? + ? FROM t WHERE a = ? LIMIT ?", ParseOptions::default()).unwrap();
    assert_eq!(parsed.params, 4);
}

#[test]
fn what_is_known_but_not_supported_is_named() {
    for (sql, feature) in [
        ("CREATE TRIGGER t BEFORE INSERT ON u FOR EACH ROW SET @a = 1", "CREATE TRIGGER"),
        ("CALL p()", "CALL"),
        ("XA START 'x'", "XA"),
        ("HANDLER t OPEN", "HANDLER"),
    ] {
        assert_eq!(parse(sql), Err(Error::not_supported(feature)));
    }
}
