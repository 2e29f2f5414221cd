//! Optimizer hints of a SELECT about its joins: `STRAIGHT_JOIN`, `JOIN_FIXED_ORDER()`, `JOIN_ORDER(t, …)`, `JOIN_PREFIX(t, …)`,
//! `LEADING(t, …)`, and `HASH_JOIN(t, …)`, `INL_JOIN(t, …)`, `INL_HASH_JOIN(t, …)`. Other hints, and names that are no tables of
//! the block, are ignored; so is `MERGE_JOIN`, there being no such join.

use crate::parser::ast;
use crate::plan::logical::{Join, JoinKind, JoinMethod, LogicalPlan};
use crate::plan::schema::Schema;

/// Puts what the hints say on the plan of a FROM clause.
pub(super) fn apply(mut plan: LogicalPlan, select: &ast::Select) -> LogicalPlan {
    if select.straight_join {
        straighten(&mut plan);
    }
    for (name, tables) in select.hints.as_deref().map(parse).unwrap_or_default() {
        match name.as_str() {
            "JOIN_FIXED_ORDER" | "STRAIGHT_JOIN" => straighten(&mut plan),
            "JOIN_ORDER" | "JOIN_PREFIX" | "LEADING" => plan = lead(plan, &tables),
            "HASH_JOIN" | "BNL" => set_method(&mut plan, &tables, JoinMethod::Hash),
            "INL_JOIN" | "TIDB_INLJ" | "INL_HASH_JOIN" => set_method(&mut plan, &tables, JoinMethod::Index),
            _ => {}
        }
    }
    plan
}

/// Names of hints in upper case with their arguments.
fn parse(text: &str) -> Vec<(String, Vec<String>)> {
    let mut hints = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('(') {
        let Some((args, after)) = after.split_once(')') else { break };
        let name = name.trim_start_matches([',', ' ', '\n', '\t', '\r']).trim().to_ascii_uppercase();
        let table = |arg: &str| {
            let arg = arg.trim().trim_matches('`');
            arg.split('@').next().unwrap_or(arg).trim().trim_matches('`').to_owned()
        };
        hints.push((name, args.split(',').map(table).filter(|arg| !arg.is_empty()).collect()));
        rest = after;
    }
    hints
}

fn straighten(plan: &mut LogicalPlan) {
    if let LogicalPlan::Join(join) = plan {
        join.straight = true;
        straighten(&mut join.left);
        straighten(&mut join.right);
    }
}

fn set_method(plan: &mut LogicalPlan, tables: &[String], method: JoinMethod) {
    match plan {
        LogicalPlan::Scan(scan) if tables.iter().any(|name| name.eq_ignore_ascii_case(&scan.alias)) => {
            scan.join_method = Some(method);
        }
        LogicalPlan::Join(join) => {
            set_method(&mut join.left, tables, method);
            set_method(&mut join.right, tables, method);
        }
        _ => {}
    }
}

/// The named tables first, in that order, then the others as written. Outer joins keep their place.
fn lead(plan: LogicalPlan, tables: &[String]) -> LogicalPlan {
    let known = |plan: &LogicalPlan| tables.iter().position(|name| is_named(plan, name));
    let (mut nodes, mut conditions) = (Vec::new(), Vec::new());
    flatten(plan, &mut nodes, &mut conditions);
    nodes.sort_by_key(|node| known(node).unwrap_or(usize::MAX));
    let mut nodes = nodes.into_iter();
    let Some(mut joined) = nodes.next() else { return LogicalPlan::dual() };
    for right in nodes {
        let columns = joined.schema().columns.iter().chain(&right.schema().columns).cloned().collect();
        joined = LogicalPlan::Join(Join {
            kind: JoinKind::Inner,
            left: Box::new(joined),
            right: Box::new(right),
            filter: Vec::new(),
            schema: Schema::new(columns),
            straight: true,
        });
    }
    super::filtered(joined, conditions)
}

fn is_named(plan: &LogicalPlan, name: &str) -> bool {
    let columns = &plan.schema().columns;
    match plan {
        LogicalPlan::Scan(scan) => scan.alias.eq_ignore_ascii_case(name),
        _ => columns.iter().any(|column| column.table.eq_ignore_ascii_case(name)),
    }
}

fn flatten(plan: LogicalPlan, nodes: &mut Vec<LogicalPlan>, conditions: &mut Vec<rutile_expr::Expr>) {
    match plan {
        LogicalPlan::Join(join) if join.kind == JoinKind::Inner => {
            flatten(*join.left, nodes, conditions);
            flatten(*join.right, nodes, conditions);
            conditions.extend(join.filter);
        }
        other => nodes.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read() {
        let found = parse("LEADING(a, `b`@qb) hash_join(c), NO_SUCH");
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found,
            [("LEADING".to_owned(), names(&["a", "b"])), ("HASH_JOIN".to_owned(), names(&["c"]))]
        );
    }
}
