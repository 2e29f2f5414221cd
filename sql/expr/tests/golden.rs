//! Expressions with the values that a real MySQL gave for them: `tests/golden/expressions/*.txt`, one `expression <tab> value` a line, where an
//! error is `ERROR number`. Each is evaluated for one row, and again over a batch in which its constants are columns.

#[path = "support/parser.rs"]
mod parser;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use parser::{parse, parse_type};
use rutile_expr::types::format::to_text;
use rutile_expr::types::store::{self, Target};
use rutile_expr::{Datum, Error, EvalContext, Expr, FieldType, OnBadValue, Result, SqlMode, array};

fn context() -> EvalContext {
    EvalContext { sql_mode: SqlMode::DEFAULT, now_micros: 1_704_067_200_000_000, ..EvalContext::default() }
}

fn show(value: &Datum, field_type: &FieldType) -> String {
    if value.is_null() { "NULL".into() } else { to_text(value, field_type) }
}

fn evaluate(ctx: &EvalContext, text: &str) -> Result<String> {
    let expr = parse(ctx, text)?;
    Ok(show(&expr.eval_scalar(ctx)?, expr.field_type()))
}

/// Turns constants into columns of three equal rows and evaluates the batch.
fn evaluate_batch(ctx: &EvalContext, text: &str) -> Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    let expr = parse(ctx, text)?.transform(&mut |expr| match expr {
        Expr::Call(call)
            if matches!(
                call.func.name,
                "extract" | "date_add" | "date_sub" | "timestampdiff" | "coercibility"
            ) =>
        {
            Expr::Call(call)
        }
        Expr::Call(mut call) => {
            for arg in &mut call.args {
                if let Expr::Literal { value, field_type } = arg {
                    let index = fields.len();
                    fields.push(field_type.clone().with_not_null(false).arrow_field("c"));
                    arrays.push(array::repeat(field_type, value, 3).unwrap());
                    *arg = Expr::column(index, "c", field_type.clone());
                }
            }
            Expr::Call(call)
        }
        other => other,
    });
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(3));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new_with_options(schema, arrays, &options).unwrap();
    let result = expr.eval(ctx, &batch)?;
    assert_eq!(result.data_type(), &expr.field_type().arrow(), "array type of {text}");
    let row = |row| show(&array::datum_at(&result, expr.field_type(), row), expr.field_type());
    Ok((0..3).map(row).collect())
}

fn outcome<T>(result: std::thread::Result<Result<T>>, ok: impl Fn(T) -> String) -> String {
    match result {
        Ok(Ok(value)) => ok(value),
        Ok(Err(Error::Internal(text))) => format!("INTERNAL {text}"),
        Ok(Err(e)) => format!("ERROR {}", e.code()),
        Err(_) => "PANIC".into(),
    }
}

fn guarded<T>(run: impl Fn() -> T) -> std::thread::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
}

#[test]
fn expressions_have_the_values_that_mysql_gives() {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo"))
        .join("tests/golden/expressions");
    let mut failures = Vec::new();
    let mut count = 0;
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        for line in
            std::fs::read_to_string(&path).unwrap().lines().filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            let (text, wanted) = line.split_once('\t').unwrap_or_else(|| panic!("no tab in {line}"));
            count += 1;
            let got = outcome(guarded(|| evaluate(&context(), text)), |v| v);
            let batch = outcome(guarded(|| evaluate_batch(&context(), text)), |rows| {
                if rows.iter().all(|r| *r == rows[0]) { rows[0].clone() } else { format!("{rows:?}") }
            });
            if got != wanted {
                failures.push(format!("{text}\n    wanted {wanted}\n    got    {got}"));
            } else if batch != wanted {
                failures.push(format!("{text}\n    wanted {wanted}\n    batch  {batch}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} differ:\n{}", failures.len(), failures.join("\n"));
}

fn assign(strict: bool, column_type: &str, text: &str) -> String {
    let on_bad_value = if strict { OnBadValue::Fail } else { OnBadValue::Warn };
    let sql_mode = if strict { SqlMode::DEFAULT } else { SqlMode::default() };
    let ctx = EvalContext { on_bad_value, sql_mode, ..context() };
    let to = parse_type(&ctx, column_type);
    let target = Target { column: "c", row: 1, field_type: &to };
    let expr = parse(&ctx, text).unwrap();
    let assigned = expr.eval_scalar(&ctx).and_then(|v| store::assign(&ctx, v, expr.field_type(), &target));
    match assigned {
        Err(Error::Internal(text)) => format!("INTERNAL {text}"),
        Err(e) => format!("{} {e}", e.code()),
        Ok(value) => {
            let warning = ctx.warnings.list().first().map(|w| format!(" ({})", w.code)).unwrap_or_default();
            format!("{}{warning}", show(&value, &to))
        }
    }
}

/// `tests/golden/assign.txt`: type, value, then what INSERT into a column `c` of that type did in strict mode and without any mode:
/// the value stored, with the number of the first warning, or the error.
#[test]
fn columns_take_values_as_mysql_does() {
    let path = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo"))
        .join("tests/golden/assign.txt");
    let mut failures = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let [column_type, text, strict, lenient] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        for (is_strict, wanted) in [(true, strict), (false, lenient)] {
            let got = guarded(|| assign(is_strict, column_type, text)).unwrap_or_else(|_| "PANIC".into());
            if got != wanted {
                failures.push(format!(
                    "{column_type} <- {text} (strict {is_strict})\n    wanted {wanted}\n    got    {got}"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}
