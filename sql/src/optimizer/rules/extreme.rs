//! `MAX(c)` of a whole table, where an index or the handle begins with `c`: the last key, instead of all of them.

use rutile_expr::types::field_type::Family;
use rutile_expr::{EvalContext, Expr, registry};

use crate::catalog::model::HandleKind;
use crate::plan::exprs::children_mut;
use crate::plan::logical::{LimitClause, LogicalPlan, Scan, SortKey};

/// Applies the rule to a whole tree.
pub fn extreme(mut plan: LogicalPlan, eval: &EvalContext) -> LogicalPlan {
    for child in children_mut(&mut plan) {
        let whole = std::mem::replace(child, LogicalPlan::dual());
        *child = extreme(whole, eval);
    }
    if let LogicalPlan::Aggregate(aggregate) = &mut plan
        && let ([], [call]) = (aggregate.group.as_slice(), aggregate.calls.as_slice())
        && let ("min" | "max", [column @ Expr::Column { index, .. }]) =
            (call.name.as_str(), call.args.as_slice())
        && let LogicalPlan::Scan(scan) = &*aggregate.input
        && leads_a_key(scan, *index)
        && let Ok(is_null) = registry::resolve(eval, "is_null", vec![column.clone()])
        && let Ok(not_null) = registry::resolve(eval, "not", vec![is_null])
    {
        let mut scan = scan.clone();
        if !column.field_type().not_null {
            scan.filters.push(not_null);
        }
        let keys = vec![SortKey { expr: column.clone(), desc: call.name == "max" }];
        let sort = LogicalPlan::Sort { input: Box::new(LogicalPlan::Scan(scan)), keys };
        let limit = LimitClause { offset: None, count: Some(Expr::int(1)) };
        *aggregate.input = LogicalPlan::Limit { input: Box::new(sort), limit };
    }
    plan
}

fn leads_a_key(scan: &Scan, id: usize) -> bool {
    let Some(place) = scan.schema.position(id) else { return false };
    let offset = scan.offsets[place];
    // An ENUM is kept by its number and compared by its text.
    if scan.is_virtual || scan.schema.columns[place].ty.family() == Family::Enum {
        return false;
    }
    let public = scan.table.indexes.iter().filter(|index| index.state.is_public() && !index.invisible);
    let mut leading = public.filter_map(|index| index.columns.first());
    scan.table.handle == (HandleKind::Int { offset })
        || leading.any(|column| column.offset == offset && column.prefix.is_none() && !column.desc)
}
