//! A plan as EXPLAIN prints it: one line per node, indented as a tree.

use rutile_expr::Expr;

use super::dml::{InsertSource, InsertValue};
use super::logical::{JoinKind, LimitClause, SortKey};
use super::physical::{PhysicalNode, PhysicalPlan, PointKey, Stage, TableAccess};
use super::range::{AccessConditions, RangeExpr, RangeOp};
use super::{Plan, PlanBody, SubqueryKind};
use crate::catalog::model::IndexInfo;

/// What ANALYZE has measured of a node: its rows, and a text about its run.
pub type MeasureFn<'a> = &'a dyn Fn(&PhysicalPlan) -> Option<(usize, String)>;

/// The column titles of EXPLAIN, or of EXPLAIN ANALYZE.
pub fn titles(analyze: bool) -> &'static [&'static str] {
    if analyze {
        &["id", "estRows", "actRows", "task", "access object", "execution info", "operator info"]
    } else {
        &["id", "estRows", "task", "access object", "operator info"]
    }
}

/// The lines for a plan.
pub fn describe(plan: &Plan, measure: MeasureFn<'_>) -> Vec<Vec<String>> {
    let mut lines = Lines { out: Vec::new(), measure, serial: 0, task: "root" };
    match &plan.body {
        PlanBody::Query(query) => lines.node(query, "", ""),
        PlanBody::Insert(insert) => {
            let name = if insert.replace { "Replace" } else { "Insert" };
            let rows = match &insert.source {
                InsertSource::Values(rows) => format!("rows:{}", rows.len()),
                InsertSource::Query(_) => String::new(),
            };
            lines.statement(name, &format!("table:{}", insert.table.name), &rows);
            if let InsertSource::Query(query) = &insert.source {
                lines.node(query, "└─", "  ");
            }
        }
        PlanBody::Update(update) => {
            let set = update.assignments.iter().map(|assignment| {
                let column = &update.targets[assignment.target].table.columns[assignment.column].name;
                match &assignment.value {
                    InsertValue::Expr(expr) => format!("{column}={expr}"),
                    InsertValue::Default => format!("{column}=DEFAULT"),
                }
            });
            let set = set.collect::<Vec<_>>().join(", ");
            lines.statement("Update", &target_names(&update.targets), &set);
            lines.node(&update.reader, "└─", "  ");
        }
        PlanBody::Delete(delete) => {
            lines.statement("Delete", &target_names(&delete.targets), "");
            lines.node(&delete.reader, "└─", "  ");
        }
        PlanBody::Explain(explain) => return describe(&explain.target, measure),
    }
    for subquery in &plan.subqueries {
        let kind = if subquery.kind == SubqueryKind::Exists { "exists" } else { "scalar" };
        lines.statement("Subquery", "", &format!("{kind}, param:{}", subquery.slot));
        lines.node(&subquery.plan, "└─", "  ");
    }
    lines.out
}

fn target_names(targets: &[super::dml::DmlTarget]) -> String {
    targets.iter().map(|target| format!("table:{}", target.table.name)).collect::<Vec<_>>().join(", ")
}

struct Lines<'a> {
    out: Vec<Vec<String>>,
    measure: MeasureFn<'a>,
    serial: usize,
    /// Who runs the node: the SQL server (`root`) or the stores (`store`).
    task: &'static str,
}

impl Lines<'_> {
    fn statement(&mut self, name: &str, object: &str, info: &str) {
        self.serial += 1;
        let id = format!("{name}_{}", self.serial);
        self.out.push(vec![id, "N/A".into(), "root".into(), object.into(), info.into()]);
    }

    fn node(&mut self, plan: &PhysicalPlan, branch: &str, indent: &str) {
        self.serial += 1;
        let (name, object, info) = facts(plan);
        let id = format!("{branch}{name}_{}", self.serial);
        let rows = format!("{:.2}", plan.rows);
        let task = self.task.to_owned();
        self.out.push(match (self.measure)(plan) {
            Some((actual, run)) => vec![id, rows, actual.to_string(), task, object, run, info],
            None => vec![id, rows, task, object, info],
        });
        let outside = self.task;
        if matches!(plan.node, PhysicalNode::Gather(_)) {
            self.task = "store";
        }
        let inputs = plan.inputs();
        let count = inputs.len();
        for (i, input) in inputs.into_iter().enumerate() {
            let last = i + 1 == count;
            let branch = format!("{indent}{}", if last { "└─" } else { "├─" });
            let below = format!("{indent}{}", if last { "  " } else { "│ " });
            self.node(input, &branch, &below);
        }
        self.task = outside;
    }
}

/// Name, access object and operator info of a node.
fn facts(plan: &PhysicalPlan) -> (&'static str, String, String) {
    match &plan.node {
        PhysicalNode::PointGet(get) => (
            "Point_Get",
            object(&get.access, get.key.index.as_deref()),
            joined([key(&get.key), filter(&get.filter)]),
        ),
        PhysicalNode::BatchPointGet(get) => {
            let index = get.keys.first().and_then(|key| key.index.as_deref());
            let keys = format!("keys:{}", get.keys.len());
            ("Batch_Point_Get", object(&get.access, index), joined([keys, filter(&get.filter)]))
        }
        PhysicalNode::TableReader(reader) => {
            let name = if reader.conditions.is_full() { "TableFullScan" } else { "TableRangeScan" };
            let facts = [
                ranges(&reader.conditions, None),
                filter(&reader.filter),
                order(reader.keep_order, reader.desc),
            ];
            (name, object(&reader.access, None), joined(facts))
        }
        PhysicalNode::IndexReader(reader) => {
            let name = if reader.conditions.is_full() { "IndexFullScan" } else { "IndexRangeScan" };
            let facts = [
                ranges(&reader.conditions, Some(&reader.index)),
                filter(&reader.filter),
                order(reader.keep_order, reader.desc),
            ];
            (name, object(&reader.access, Some(&reader.index)), joined(facts))
        }
        PhysicalNode::IndexLookup(reader) => {
            let facts = [
                ranges(&reader.conditions, Some(&reader.index)),
                filter(&reader.filter),
                order(reader.keep_order, reader.desc),
            ];
            ("IndexLookUp", object(&reader.access, Some(&reader.index)), joined(facts))
        }
        PhysicalNode::MemTable(table) => ("MemTableScan", object(&table.access, None), filter(&table.filter)),
        PhysicalNode::Values { rows } => ("TableDual", String::new(), format!("rows:{}", rows.len())),
        PhysicalNode::Filter { predicates, .. } => ("Selection", String::new(), exprs(predicates)),
        PhysicalNode::Project { exprs: list, .. } => ("Projection", String::new(), exprs(list)),
        PhysicalNode::HashJoin(join) => {
            let on = join.on.iter().map(|(l, r)| format!("eq({l}, {r})")).collect::<Vec<_>>().join(", ");
            (
                "HashJoin",
                String::new(),
                joined([join_kind(join.kind).into(), format!("equal:[{on}]"), filter(&join.filter)]),
            )
        }
        PhysicalNode::LoopJoin(join) => {
            ("LoopJoin", String::new(), joined([join_kind(join.kind).into(), filter(&join.filter)]))
        }
        PhysicalNode::IndexJoin(join) => {
            let kind = join_kind(join.kind).to_owned();
            (
                "IndexJoin",
                String::new(),
                joined([kind, format!("outer key:{}", join.key), filter(&join.filter)]),
            )
        }
        PhysicalNode::Aggregate(aggregate) => {
            let call = |call: &super::logical::AggregateCall| {
                let distinct = if call.distinct { "distinct " } else { "" };
                format!("{}({distinct}{})", call.name, exprs(&call.args))
            };
            let calls = aggregate.calls.iter().map(call).collect::<Vec<_>>().join(", ");
            let group = match aggregate.group.is_empty() {
                true => String::new(),
                false => format!("group by:{}", exprs(&aggregate.group)),
            };
            let calls = if calls.is_empty() { calls } else { format!("funcs:{calls}") };
            let stage = match aggregate.stage {
                Stage::Whole => String::new(),
                Stage::Partial => "partial".to_owned(),
                Stage::Final => "final".to_owned(),
            };
            ("HashAgg", String::new(), joined([stage, group, calls]))
        }
        PhysicalNode::Sort { keys, limit, .. } => match limit {
            Some(limit) => ("TopN", String::new(), joined([sort_keys(keys), limit_text(limit)])),
            None => ("Sort", String::new(), sort_keys(keys)),
        },
        PhysicalNode::Limit { limit, .. } => ("Limit", String::new(), limit_text(limit)),
        PhysicalNode::Union { .. } => ("Union", String::new(), String::new()),
        PhysicalNode::Gather(gather) => {
            let order = if gather.keep_order { "keep order:true" } else { "" };
            ("Gather", String::new(), order.to_owned())
        }
        PhysicalNode::Apply(_) => ("Apply", String::new(), String::new()),
    }
}

fn object(access: &TableAccess, index: Option<&IndexInfo>) -> String {
    let table = format!("table:{}", access.alias);
    match index {
        None => table,
        Some(index) => {
            let columns = index.columns.iter().map(|c| access.table.columns[c.offset].name.as_str());
            format!("{table}, index:{}({})", index.name, columns.collect::<Vec<_>>().join(", "))
        }
    }
}

fn joined<const N: usize>(parts: [String; N]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

fn exprs(list: &[Expr]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn filter(list: &[Expr]) -> String {
    if list.is_empty() { String::new() } else { format!("filter:{}", exprs(list)) }
}

fn key(key: &PointKey) -> String {
    let name = if key.index.is_some() { "key" } else { "handle" };
    format!("{name}:{}", exprs(&key.values))
}

fn order(keep: bool, desc: bool) -> String {
    let order = format!("keep order:{keep}");
    if desc { format!("{order}, desc") } else { order }
}

fn ranges(conditions: &AccessConditions, _index: Option<&IndexInfo>) -> String {
    if conditions.is_full() {
        return String::new();
    }
    let columns =
        conditions.columns.iter().map(|all| all.iter().map(range).collect::<Vec<_>>().join(" and "));
    format!("range:[{}]", columns.collect::<Vec<_>>().join("; "))
}

fn range(condition: &RangeExpr) -> String {
    match condition {
        RangeExpr::Cmp { op, value } => {
            let op = match op {
                RangeOp::Eq => "=",
                RangeOp::NullEq => "<=>",
                RangeOp::Lt => "<",
                RangeOp::Le => "<=",
                RangeOp::Gt => ">",
                RangeOp::Ge => ">=",
            };
            format!("{op}{value}")
        }
        RangeExpr::In(list) if list.is_empty() => "in(outer keys)".into(),
        RangeExpr::In(list) => format!("in({})", exprs(list)),
        RangeExpr::IsNull => "is null".into(),
        RangeExpr::IsNotNull => "is not null".into(),
        RangeExpr::Like { pattern, .. } => format!("like {pattern}"),
        RangeExpr::Or(alternatives) => {
            let one = |all: &Vec<RangeExpr>| all.iter().map(range).collect::<Vec<_>>().join(" and ");
            alternatives.iter().map(one).collect::<Vec<_>>().join(" or ")
        }
    }
}

fn join_kind(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "inner join",
        JoinKind::Left => "left outer join",
        JoinKind::Right => "right outer join",
        JoinKind::Semi => "semi join",
        JoinKind::Anti => "anti semi join",
        JoinKind::NullAwareAnti => "null-aware anti semi join",
        JoinKind::Mark => "mark join",
    }
}

fn sort_keys(keys: &[SortKey]) -> String {
    let key = |key: &SortKey| if key.desc { format!("{}:desc", key.expr) } else { key.expr.to_string() };
    keys.iter().map(key).collect::<Vec<_>>().join(", ")
}

fn limit_text(limit: &LimitClause) -> String {
    let number = |expr: &Option<Expr>| expr.as_ref().map_or_else(|| "0".to_owned(), ToString::to_string);
    format!("offset:{}, count:{}", number(&limit.offset), number(&limit.count))
}
