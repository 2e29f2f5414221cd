//! Bringing both sides of an equality to values that are equal exactly when their bytes are.

use rutile_expr::types::field_type::Family;
use rutile_expr::types::{Collation, FieldType};
use rutile_expr::{Expr, registry};

/// Both sides as hash keys, or `None` when they must be compared pair by pair.
pub fn alike(left: Expr, right: Expr, collation: Collation) -> Option<(Expr, Expr)> {
    let (l, r) = (left.field_type().clone(), right.field_type().clone());
    match (l.family(), r.family()) {
        (Family::Int, Family::Int) if l.unsigned == r.unsigned => Some((left, right)),
        (Family::Int | Family::Decimal, Family::Int | Family::Decimal) => {
            if l.arrow() == r.arrow() {
                return Some((left, right));
            }
            let scale = l.decimal_scale().max(r.decimal_scale());
            let whole = |ty: &FieldType| ty.decimal_precision().saturating_sub(u32::from(ty.decimal_scale()));
            let ty = FieldType::decimal(whole(&l).max(whole(&r)) + u32::from(scale), scale);
            Some((registry::cast(left, ty.clone()), registry::cast(right, ty)))
        }
        (Family::String, Family::String) => Some((text_key(left, collation)?, text_key(right, collation)?)),
        (Family::Time, Family::Time) | (Family::Duration, Family::Duration) => Some((left, right)),
        (Family::Double, Family::Double) => Some((left, right)),
        _ => None,
    }
}

fn text_key(expr: Expr, collation: Collation) -> Option<Expr> {
    let expr = if expr.field_type().collation == collation {
        expr
    } else {
        registry::collate(expr, collation).ok()?
    };
    Some(registry::sort_key(expr))
}
