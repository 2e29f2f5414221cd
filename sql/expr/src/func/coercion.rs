//! Which collation a call works in, and which type values of several types have in common.

use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::{Coercibility, Expr};
use crate::types::field_type::{Family, LENGTH_UNSPECIFIED, NOT_FIXED_DECIMALS};
use crate::types::{Charset, Collation, FieldType, MysqlType};

/// A collation and how strongly it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derivation {
    pub collation: Collation,
    pub coercibility: Coercibility,
}

fn derivation(ctx: &EvalContext, expr: &Expr) -> Derivation {
    let field_type = expr.field_type();
    let collation = if field_type.has_charset() { field_type.collation } else { ctx.connection_collation };
    Derivation { collation, coercibility: expr.coercibility() }
}

/// Is every text of `inner` also one of `outer`, so that it converts without loss?
fn is_superset(outer: Charset, inner: Charset) -> bool {
    let rank = |c: Charset| match c {
        Charset::Ascii => 0,
        Charset::Latin1 => 1,
        Charset::Utf8mb3 => 2,
        Charset::Utf8mb4 => 3,
        Charset::Binary => 4,
    };
    rank(outer) > rank(inner)
}

fn merge(a: Derivation, b: Derivation) -> Option<Derivation> {
    if a.collation == b.collation {
        return Some(Derivation { collation: a.collation, coercibility: a.coercibility.min(b.coercibility) });
    }
    if a.coercibility != b.coercibility {
        return Some(if a.coercibility < b.coercibility { a } else { b });
    }
    if a.coercibility == Coercibility::Explicit {
        return None;
    }
    // Equal strength: binary wins, then the larger character set, then the _bin collation.
    if a.collation == Collation::Binary || b.collation == Collation::Binary {
        return Some(if a.collation == Collation::Binary { a } else { b });
    }
    let (ca, cb) = (a.collation.charset(), b.collation.charset());
    if ca != cb {
        return Some(if is_superset(ca, cb) { a } else { b });
    }
    match (a.collation.is_bin(), b.collation.is_bin()) {
        (true, false) => Some(a),
        (false, true) => Some(b),
        _ => Some(Derivation { collation: ca.bin_collation(), coercibility: Coercibility::None }),
    }
}

/// The collation that string arguments agree on; the connection's when there are none. Error 1267 or 1271 when they do not.
pub fn aggregate(ctx: &EvalContext, args: &[&Expr], operation: &str) -> Result<Derivation> {
    let mut all = args.iter().map(|arg| derivation(ctx, arg));
    let Some(mut merged) = all.next() else {
        return Ok(Derivation { collation: ctx.connection_collation, coercibility: Coercibility::Coercible });
    };
    let mut clash = None;
    for next in all {
        let Some(both) = merge(merged, next) else {
            return Err(mix_error(args.len(), merged, next, operation));
        };
        if both.coercibility == Coercibility::None {
            clash = Some((merged, next));
        }
        merged = both;
    }
    if merged.coercibility == Coercibility::None
        && let Some((a, b)) = clash
    {
        return Err(mix_error(args.len(), a, b, operation));
    }
    Ok(merged)
}

fn mix_error(count: usize, a: Derivation, b: Derivation, operation: &str) -> Error {
    if count > 2 {
        return Error::IllegalMix { operation: operation.to_string() };
    }
    Error::IllegalMix2 {
        a: a.collation.name(),
        a_coercibility: a.coercibility.name(),
        b: b.collation.name(),
        b_coercibility: b.coercibility.name(),
        operation: operation.to_string(),
    }
}

/// The type that can hold values of all these expressions: what CASE, IF, COALESCE and UNION give.
pub fn common_type(ctx: &EvalContext, exprs: &[&Expr], operation: &str) -> Result<FieldType> {
    let real: Vec<&Expr> =
        exprs.iter().copied().filter(|e| e.field_type().family() != Family::Null).collect();
    let not_null = exprs.iter().all(|e| e.field_type().not_null);
    let Some(first) = real.first() else { return Ok(FieldType::null()) };
    let all = |test: &dyn Fn(&FieldType) -> bool| real.iter().all(|e| test(e.field_type()));
    let max_by =
        |get: &dyn Fn(&FieldType) -> u32| real.iter().map(|e| get(e.field_type())).max().unwrap_or(0);
    let found = if all(&|t| t == first.field_type()) {
        let same = first.field_type().clone();
        if same.has_charset() {
            same.with_collation(aggregate(ctx, &real, operation)?.collation)
        } else {
            same
        }
    } else if all(&FieldType::is_numeric) {
        common_number(&real)
    } else if all(&|t| t.family() == Family::Duration) {
        FieldType::time(max_by(&|t| u32::from(t.decimals)) as u8)
    } else if all(&FieldType::is_temporal) {
        FieldType::datetime(max_by(&|t| u32::from(t.decimals)) as u8)
    } else {
        common_string(ctx, &real, operation)?
    };
    Ok(found.with_not_null(not_null))
}

fn common_string(ctx: &EvalContext, real: &[&Expr], operation: &str) -> Result<FieldType> {
    let collation = aggregate(ctx, real, operation)?.collation;
    let texts = real.iter().map(|e| crate::types::format::text_type(e.field_type(), collation).flen);
    let is_blob = real.iter().any(|e| e.field_type().is_blob());
    let flen = texts.max().unwrap_or(LENGTH_UNSPECIFIED);
    let mut field_type = FieldType::varchar(flen, collation);
    if is_blob {
        field_type.tp = MysqlType::LongBlob;
        field_type.flen = LENGTH_UNSPECIFIED;
    }
    Ok(field_type)
}

fn common_number(real: &[&Expr]) -> FieldType {
    let types: Vec<&FieldType> = real.iter().map(|e| e.field_type()).collect();
    if types.iter().any(|t| t.family() == Family::Double) {
        let mut found = FieldType::double();
        if types.iter().all(|t| t.tp == MysqlType::Float && t.decimals == NOT_FIXED_DECIMALS) {
            found = FieldType::new(MysqlType::Float);
        }
        return found;
    }
    let mixed_sign = types.iter().any(|t| t.unsigned) && types.iter().any(|t| !t.unsigned);
    if types.iter().all(|t| t.family() == Family::Int) && !mixed_sign {
        let widest =
            types.iter().map(|t| t.tp).filter(|t| !matches!(t, MysqlType::Bit | MysqlType::Year)).max();
        let tp = widest.unwrap_or(MysqlType::LongLong);
        let flen = types.iter().map(|t| t.flen).max().unwrap_or(20);
        return FieldType::new(tp).with_unsigned(types[0].unsigned).with_flen(flen);
    }
    // A signed and an unsigned integer meet in BIGINT as long as the unsigned one is narrower.
    if types.iter().all(|t| t.family() == Family::Int)
        && types.iter().filter(|t| t.unsigned).all(|t| t.tp < MysqlType::LongLong)
    {
        return FieldType::bigint();
    }
    let scale = real.iter().map(|e| e.field_type().decimal_scale()).max().unwrap_or(0);
    let whole =
        real.iter().map(|e| precision_of(e).saturating_sub(u32::from(e.field_type().decimal_scale()))).max();
    FieldType::decimal(whole.unwrap_or(10) + u32::from(scale), scale)
}

/// Digits of an exact number; a literal has as many as were written.
#[must_use]
pub fn precision_of(expr: &Expr) -> u32 {
    match expr {
        Expr::Literal { value: crate::types::Datum::Int(v), .. } => {
            v.unsigned_abs().checked_ilog10().unwrap_or(0) + 1
        }
        other => other.field_type().decimal_precision(),
    }
}
