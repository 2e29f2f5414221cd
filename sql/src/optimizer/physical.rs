//! Operators for the logical nodes; column ids become positions.

use rutile_expr::Expr;

use super::access_path::{self, Path, TABLE_ROWS_GUESS};
use super::cardinality;
use crate::error::{Error, Result};
use crate::plan::logical::{
    Aggregate, AggregateCall, Apply, Join, JoinKind, JoinMethod, LimitClause, LogicalPlan, Scan, SortKey,
};
use crate::plan::physical::{
    AggregateNode, Apply as PhysicalApply, BatchPointGet, HashJoin, IndexJoin, IndexLookup, IndexReader,
    LoopJoin, MemTable, PhysicalNode, PhysicalPlan, PointGet, Stage, TableAccess, TableReader,
};
use crate::plan::schema::{Schema, SchemaRef};

/// The physical plan of a logical one.
pub fn plan(logical: LogicalPlan) -> Result<PhysicalPlan> {
    Ok(node(logical, &Wanted::default())?.0)
}

/// What the parent would like: an order it otherwise sorts for, and few rows of it.
#[derive(Default, Clone)]
struct Wanted {
    order: Vec<SortKey>,
    limit: Option<LimitClause>,
}

/// The node, and whether its output has the wanted order.
fn node(logical: LogicalPlan, wanted: &Wanted) -> Result<(PhysicalPlan, bool)> {
    let unordered = Wanted::default();
    let plan = match logical {
        LogicalPlan::Scan(scan) => return read(scan, wanted),
        LogicalPlan::Filter { input, predicates } => {
            let below = Wanted { order: wanted.order.clone(), limit: None };
            let (input, ordered) = node(*input, &below)?;
            return Ok((filter(input, predicates)?, ordered));
        }
        LogicalPlan::Project { input, exprs, schema } => {
            let (input, ordered) = node(*input, wanted)?;
            return Ok((project(input, exprs, schema)?, ordered));
        }
        LogicalPlan::Limit { input, limit } => return limited(*input, limit, wanted),
        LogicalPlan::Sort { input, keys } => return Ok((sorted(*input, keys, None)?, false)),
        LogicalPlan::Values { rows, schema } => {
            let count = rows.len() as f64;
            PhysicalPlan { node: PhysicalNode::Values { rows }, schema, rows: count }
        }
        LogicalPlan::Join(join) => return Ok((join_node(join)?, false)),
        LogicalPlan::Aggregate(aggregate) => aggregate_node(aggregate)?,
        LogicalPlan::Distinct { input } => distinct(node(*input, &unordered)?.0),
        LogicalPlan::Union { inputs, schema } => {
            let inputs: Vec<_> = inputs.into_iter().map(plan).collect::<Result<_>>()?;
            let rows = inputs.iter().map(|input| input.rows).sum();
            PhysicalPlan { node: PhysicalNode::Union { inputs }, schema, rows }
        }
        LogicalPlan::Apply(apply) => apply_node(apply)?,
    };
    Ok((plan, false))
}

/// Column ids of an expression become positions in `schema`.
fn place(expr: Expr, schema: &Schema) -> Result<Expr> {
    if let Some(id) = expr.columns().into_iter().find(|id| !schema.contains(*id)) {
        return Err(Error::internal(format!("column {id} of {expr} is not among the input's")));
    }
    Ok(expr.map_columns(&|id| schema.position(id).unwrap_or(id)))
}

fn place_all(exprs: Vec<Expr>, schema: &Schema) -> Result<Vec<Expr>> {
    exprs.into_iter().map(|expr| place(expr, schema)).collect()
}

fn filter(input: PhysicalPlan, predicates: Vec<Expr>) -> Result<PhysicalPlan> {
    if predicates.is_empty() {
        return Ok(input);
    }
    let predicates = place_all(predicates, &input.schema)?;
    let (schema, rows) = (input.schema.clone(), (input.rows * 0.8).max(1.0));
    Ok(PhysicalPlan { node: PhysicalNode::Filter { input: Box::new(input), predicates }, schema, rows })
}

/// Leaves a projection out when it changes nothing but names, and gives it to a point get, which then needs no tree.
fn project(mut input: PhysicalPlan, exprs: Vec<Expr>, schema: SchemaRef) -> Result<PhysicalPlan> {
    let exprs = place_all(exprs, &input.schema)?;
    let same = exprs.len() == input.schema.len()
        && exprs
            .iter()
            .enumerate()
            .all(|(i, expr)| matches!(expr, Expr::Column { index, .. } if *index == i));
    if same {
        input.schema = schema;
        return Ok(input);
    }
    if let PhysicalNode::PointGet(get) = &mut input.node
        && get.project.is_none()
    {
        get.project = Some(exprs);
        input.schema = schema;
        return Ok(input);
    }
    let rows = input.rows;
    Ok(PhysicalPlan { node: PhysicalNode::Project { input: Box::new(input), exprs }, schema, rows })
}

fn limited(input: LogicalPlan, limit: LimitClause, wanted: &Wanted) -> Result<(PhysicalPlan, bool)> {
    if let LogicalPlan::Sort { input, keys } = input {
        return Ok((sorted(*input, keys, Some(limit))?, false));
    }
    let below = Wanted { order: wanted.order.clone(), limit: Some(limit.clone()) };
    let (input, ordered) = node(input, &below)?;
    if matches!(input.node, PhysicalNode::PointGet(_)) && limit.offset.is_none() && keeps_first(&limit) {
        return Ok((input, true));
    }
    Ok((limit_node(input, limit), ordered))
}

/// Whether a limit certainly lets one row pass.
fn keeps_first(limit: &LimitClause) -> bool {
    matches!(&limit.count, Some(Expr::Literal { value, .. }) if value.as_u64().is_some_and(|n| n > 0))
}

fn limit_node(input: PhysicalPlan, limit: LimitClause) -> PhysicalPlan {
    let schema = input.schema.clone();
    let count = match &limit.count {
        Some(Expr::Literal { value, .. }) => value.as_u64().unwrap_or(u64::MAX) as f64,
        _ => input.rows,
    };
    let rows = input.rows.min(count);
    PhysicalPlan { node: PhysicalNode::Limit { input: Box::new(input), limit }, schema, rows }
}

/// Sorts, unless the input can be read in the order.
fn sorted(input: LogicalPlan, keys: Vec<SortKey>, limit: Option<LimitClause>) -> Result<PhysicalPlan> {
    let order = resolve_order(&input, &keys);
    // Rows in no order the parent knows: it wants all of them.
    let below = if order.is_empty() { Wanted::default() } else { Wanted { order, limit: limit.clone() } };
    let (input, ordered) = node(input, &below)?;
    if ordered {
        return Ok(match limit {
            Some(limit) => limit_node(input, limit),
            None => input,
        });
    }
    let mut placed = Vec::with_capacity(keys.len());
    for key in keys {
        placed.push(SortKey { expr: place(key.expr, &input.schema)?, desc: key.desc });
    }
    let (schema, rows) = (input.schema.clone(), input.rows);
    Ok(PhysicalPlan {
        node: PhysicalNode::Sort { input: Box::new(input), keys: placed, limit },
        schema,
        rows,
    })
}

/// The keys in terms of what lies below projections; empty when they are computed there.
fn resolve_order(plan: &LogicalPlan, keys: &[SortKey]) -> Vec<SortKey> {
    let bare = keys.iter().all(|key| matches!(key.expr, Expr::Column { .. }));
    let LogicalPlan::Project { exprs, schema, .. } = plan else {
        return if bare { keys.to_vec() } else { Vec::new() };
    };
    let mut below = Vec::with_capacity(keys.len());
    for key in keys {
        let Expr::Column { index, .. } = &key.expr else { return Vec::new() };
        match schema.position(*index).map(|place| &exprs[place]) {
            Some(expr @ Expr::Column { .. }) => below.push(SortKey { expr: expr.clone(), desc: key.desc }),
            _ => return Vec::new(),
        }
    }
    below
}

fn distinct(input: PhysicalPlan) -> PhysicalPlan {
    let schema = input.schema.clone();
    let group =
        schema.columns.iter().enumerate().map(|(i, c)| Expr::column(i, &c.name, c.ty.clone())).collect();
    let rows = input.rows;
    let aggregate = AggregateNode { stage: Stage::Whole, input: Box::new(input), group, calls: Vec::new() };
    PhysicalPlan { node: PhysicalNode::Aggregate(aggregate), schema, rows }
}

fn aggregate_node(aggregate: Aggregate) -> Result<PhysicalPlan> {
    let rows = cardinality::groups(&aggregate).max(1.0);
    let Aggregate { input, group, calls, schema } = aggregate;
    let (input, _) = node(*input, &Wanted::default())?;
    let group = place_all(group, &input.schema)?;
    let mut placed = Vec::with_capacity(calls.len());
    for call in calls {
        let args = place_all(call.args, &input.schema)?;
        let mut order_by = Vec::with_capacity(call.order_by.len());
        for key in call.order_by {
            order_by.push(SortKey { expr: place(key.expr, &input.schema)?, desc: key.desc });
        }
        placed.push(AggregateCall { args, order_by, ..call });
    }
    let aggregate = AggregateNode { stage: Stage::Whole, input: Box::new(input), group, calls: placed };
    Ok(PhysicalPlan { node: PhysicalNode::Aggregate(aggregate), schema, rows })
}

fn apply_node(apply: Apply) -> Result<PhysicalPlan> {
    let (outer, _) = node(*apply.outer, &Wanted::default())?;
    let inner = plan(*apply.inner)?;
    let mut bindings = Vec::with_capacity(apply.bindings.len());
    for (id, slot) in apply.bindings {
        let place = outer.schema.position(id).ok_or_else(|| Error::internal("an outer column got lost"))?;
        bindings.push((place, slot));
    }
    let mut columns = outer.schema.columns.clone();
    columns.extend(apply.schema.columns.last().cloned());
    let rows = outer.rows;
    let node = PhysicalNode::Apply(PhysicalApply {
        outer: Box::new(outer),
        inner: Box::new(inner),
        kind: apply.kind,
        bindings,
    });
    Ok(PhysicalPlan { node, schema: Schema::new(columns), rows })
}

/// Looking a key up costs as much as so many rows of a scan, besides the rows it finds.
const KEY_COST: f64 = 8.0;
/// Above so many outer rows nothing is looked up in a table of which nothing is known.
const GUESSED_LOOKUPS_MAX: f64 = 500.0;

fn join_node(join: Join) -> Result<PhysicalPlan> {
    let rows = cardinality::join_rows(&join);
    let mark = match join.kind {
        JoinKind::Mark => join.schema.columns.last().cloned(),
        _ => None,
    };
    let mut plan = pick_join(join)?;
    plan.rows = rows;
    if mark.is_some() {
        plan.schema = Schema::new(plan.schema.columns.iter().cloned().chain(mark).collect());
    }
    Ok(plan)
}

fn pick_join(join: Join) -> Result<PhysicalPlan> {
    let Join { kind, left, right, filter, straight, .. } = join;
    let (left, right) = (*left, *right);
    if kind == JoinKind::Inner
        && !straight
        && let LogicalPlan::Scan(scan) = &left
        && !matches!(&right, LogicalPlan::Scan(_))
    {
        // Inner joins may be turned round, to look up in the table on the left.
        let outer = node(right, &Wanted::default())?.0;
        return match index_join(kind, outer, scan, &filter)? {
            Ok(plan) => Ok(plan),
            Err(outer) => hash_or_loop(kind, node(left, &Wanted::default())?.0, outer, filter, straight),
        };
    }
    let outer = node(left, &Wanted::default())?.0;
    let outer = match &right {
        LogicalPlan::Scan(scan) => match index_join(kind, outer, scan, &filter)? {
            Ok(plan) => return Ok(plan),
            Err(outer) => outer,
        },
        _ => outer,
    };
    hash_or_loop(kind, outer, node(right, &Wanted::default())?.0, filter, straight)
}

/// Looks the outer rows up in the scanned table; gives the outer plan back when that does not pay.
fn index_join(
    kind: JoinKind,
    outer: PhysicalPlan,
    scan: &Scan,
    conditions: &[Expr],
) -> Result<std::result::Result<PhysicalPlan, PhysicalPlan>> {
    let possible = matches!(kind, JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti);
    let guessed = scan.stats.is_guess() && outer.rows > GUESSED_LOOKUPS_MAX;
    let forbidden = scan.join_method == Some(JoinMethod::Hash);
    if !possible || guessed || forbidden || access_path::point_keys(scan).is_some() {
        return Ok(Err(outer));
    }
    let usable = |condition: &&Expr| {
        let columns = condition.columns();
        columns.iter().any(|id| outer.schema.contains(*id))
    };
    let conditions_on_both: Vec<Expr> = conditions.iter().filter(usable).cloned().collect();
    let found = access_path::lookup(scan, &conditions_on_both);
    let Some((path, key)) =
        found.filter(|(_, key)| key.columns().iter().all(|id| outer.schema.contains(*id)))
    else {
        return Ok(Err(outer));
    };
    // As it is read otherwise: by its own conditions.
    let alone = access_path::choose(scan, &[], false);
    let wanted = scan.join_method == Some(JoinMethod::Index);
    if (path.cost + KEY_COST) * outer.rows > alone.cost && !wanted {
        return Ok(Err(outer));
    }
    let rows = (outer.rows * path.rows).max(1.0);
    let access = table_access(scan);
    let inner = reader(scan.clone(), access, path, &Wanted::default())?.0;
    let (mut on, mut rest) = (Vec::new(), Vec::new());
    for condition in conditions {
        match hash_key(condition, &outer.schema, &inner.schema) {
            Some((false, pair)) => on.push(pair),
            _ => rest.push(condition.clone()),
        }
    }
    if on.is_empty() {
        return Ok(Err(outer));
    }
    let both = Schema::new(outer.schema.columns.iter().chain(&inner.schema.columns).cloned().collect());
    let filter = place_all(rest, &both)?;
    let key = place(key, &outer.schema)?;
    let schema = output_schema(kind, &outer.schema, &inner.schema);
    let (outer, inner) = (Box::new(outer), Box::new(inner));
    let node = PhysicalNode::IndexJoin(IndexJoin { kind, outer, inner, key, on, filter });
    Ok(Ok(PhysicalPlan { node, schema, rows }))
}

fn hash_or_loop(
    mut kind: JoinKind,
    mut left: PhysicalPlan,
    mut right: PhysicalPlan,
    conditions: Vec<Expr>,
    straight: bool,
) -> Result<PhysicalPlan> {
    // The left side is kept in memory: let it be the smaller one.
    if left.rows > right.rows
        && !straight
        && matches!(kind, JoinKind::Inner | JoinKind::Left | JoinKind::Right)
    {
        std::mem::swap(&mut left, &mut right);
        kind = match kind {
            JoinKind::Left => JoinKind::Right,
            JoinKind::Right => JoinKind::Left,
            other => other,
        };
    }
    let (mut on, mut null_on, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for condition in conditions {
        match hash_key(&condition, &left.schema, &right.schema) {
            Some((false, pair)) => on.push((pair, condition)),
            Some((true, pair)) => null_on.push((pair, condition)),
            None => rest.push(condition),
        }
    }
    // One hash join compares NULLs one way: keep the pairs of one kind.
    let null_equal = on.is_empty() && !null_on.is_empty();
    let (pairs, others) = if null_equal { (null_on, on) } else { (on, null_on) };
    rest.extend(others.into_iter().map(|(_, condition)| condition));
    let both = Schema::new(left.schema.columns.iter().chain(&right.schema.columns).cloned().collect());
    let filter = place_all(rest, &both)?;
    let keys: Vec<(Expr, Expr)> = pairs.into_iter().map(|(pair, _)| pair).collect();
    let schema = output_schema(kind, &left.schema, &right.schema);
    // The caller knows better.
    let rows = left.rows.max(right.rows);
    // Semi and anti joins keep either side in memory.
    let build_right =
        matches!(kind, JoinKind::Semi | JoinKind::Anti | JoinKind::Mark) && right.rows < left.rows;
    let (left, right) = (Box::new(left), Box::new(right));
    let node = if keys.is_empty() {
        if kind == JoinKind::NullAwareAnti {
            return Err(Error::not_supported("NOT IN (subquery) with such operands"));
        }
        PhysicalNode::LoopJoin(LoopJoin { kind, left, right, filter })
    } else {
        PhysicalNode::HashJoin(HashJoin { kind, left, right, on: keys, null_equal, filter, build_right })
    };
    Ok(PhysicalPlan { node, schema, rows })
}

fn output_schema(kind: JoinKind, left: &SchemaRef, right: &SchemaRef) -> SchemaRef {
    if matches!(kind, JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti | JoinKind::Mark) {
        return left.clone();
    }
    Schema::new(left.columns.iter().chain(&right.columns).cloned().collect())
}

/// An equality of one side's expression with the other's, of types that hash alike; true for `<=>`.
fn hash_key(condition: &Expr, left: &Schema, right: &Schema) -> Option<(bool, (Expr, Expr))> {
    let Expr::Call(call) = condition else { return None };
    let null_equal = match call.func.name {
        "=" => false,
        "<=>" => true,
        _ => return None,
    };
    let [a, b] = call.args.as_slice() else { return None };
    let inside = |expr: &Expr, schema: &Schema| {
        let columns = expr.columns();
        !columns.is_empty() && columns.iter().all(|id| schema.contains(*id))
    };
    let (l, r) = match () {
        () if inside(a, left) && inside(b, right) => (a, b),
        () if inside(b, left) && inside(a, right) => (b, a),
        () => return None,
    };
    let (l, r) = super::join_key::alike(l.clone(), r.clone(), call.collation)?;
    Some((null_equal, (place(l, left).ok()?, place(r, right).ok()?)))
}

fn read(scan: Scan, wanted: &Wanted) -> Result<(PhysicalPlan, bool)> {
    let access = table_access(&scan);
    let schema = scan.schema.clone();
    if scan.is_virtual {
        let filter = place_all(scan.filters, &schema)?;
        let node = PhysicalNode::MemTable(MemTable { access, filter });
        return Ok((PhysicalPlan { node, schema, rows: TABLE_ROWS_GUESS }, false));
    }
    if let Some((mut keys, exact)) = access_path::point_keys(&scan) {
        let filter = place_all(rest_of(scan.filters, &exact), &schema)?;
        let (lock, rows) = (scan.lock, keys.len() as f64);
        if keys.len() == 1 {
            let key = keys.remove(0);
            let node = PhysicalNode::PointGet(PointGet {
                access,
                columns: schema.clone(),
                key,
                filter,
                project: None,
                lock,
            });
            return Ok((PhysicalPlan { node, schema, rows }, true));
        }
        let node = PhysicalNode::BatchPointGet(BatchPointGet { access, keys, filter, lock });
        return Ok((PhysicalPlan { node, schema, rows }, false));
    }
    let limited = wanted.limit.is_some() || scan.limit.is_some();
    let path = access_path::choose(&scan, &wanted.order, limited);
    reader(scan, access, path, wanted)
}

fn table_access(scan: &Scan) -> TableAccess {
    TableAccess {
        db: scan.db.clone(),
        alias: scan.alias.clone(),
        table: scan.table.clone(),
        offsets: scan.offsets.clone(),
    }
}

fn rest_of(filters: Vec<Expr>, exact: &[usize]) -> Vec<Expr> {
    let mut place = 0..;
    filters.into_iter().filter(|_| place.next().is_none_or(|place| !exact.contains(&place))).collect()
}

fn reader(scan: Scan, access: TableAccess, path: Path, wanted: &Wanted) -> Result<(PhysicalPlan, bool)> {
    let schema = scan.schema.clone();
    let rows = if scan.filters.is_empty() { path.rows } else { path.rows.min(scan.rows()) };
    let filter = place_all(rest_of(scan.filters, &path.found.exact), &schema)?;
    let (ordered, scanned) = (path.ordered, path.rows);
    // A limit counts rows only where all that pass the reader count, in the order they are wanted.
    let limit = if wanted.order.is_empty() || ordered { wanted.limit.clone().or(scan.limit) } else { None };
    let (conditions, desc, keep_order, lock) = (path.found.conditions, path.desc, ordered, scan.lock);
    let node = match path.index {
        None => PhysicalNode::TableReader(TableReader {
            access,
            conditions,
            filter,
            desc,
            keep_order,
            limit,
            lock,
            scanned,
        }),
        Some(index) if path.covering => PhysicalNode::IndexReader(IndexReader {
            access,
            index,
            conditions,
            filter,
            desc,
            keep_order,
            limit,
            scanned,
        }),
        Some(index) => PhysicalNode::IndexLookup(IndexLookup {
            access,
            index,
            conditions,
            filter,
            desc,
            keep_order,
            limit,
            lock,
        }),
    };
    Ok((PhysicalPlan { node, schema, rows }, ordered))
}
