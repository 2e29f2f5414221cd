//! How to read one table: by point, by range, through which index, in which order.
//!
//! The unit of cost is one row of a scan. Reading a row through an index costs [`LOOKUP_COST_PER_ROW`] of them, less where the
//! index has the rows' own order; how many rows there are is what the table's statistics say.

use std::sync::Arc;

use rutile_expr::Expr;

use super::ranges::{KeyColumn, Match, lookup_value, match_key};
use crate::catalog::model::{HandleKind, IndexInfo, TableInfo};
use crate::plan::logical::{IndexHintKind, ROWID_OFFSET, Scan, SortKey};
use crate::plan::physical::PointKey;
use crate::plan::range::{AccessConditions, RangeExpr, RangeOp};
use crate::plan::schema::ColumnId;

/// Rows a table is taken to have when nothing is known of it.
pub use crate::statistics::model::ROWS_GUESS as TABLE_ROWS_GUESS;

/// Of a row that an index points to, where it may lie anywhere in the table.
const LOOKUP_COST_PER_ROW: f64 = 4.0;
/// Of a row that an index points to, where the rows lie in the index's order.
const LOOKUP_COST_PER_ROW_NEAR: f64 = 2.0;
/// Of a query that wants few rows, so many.
const ROWS_WANTED: f64 = 100.0;

/// One way to read a table.
#[derive(Debug, Clone)]
pub struct Path {
    /// `None`: the rows themselves, in the order of handles.
    pub index: Option<Arc<IndexInfo>>,
    pub found: Match,
    /// The index holds all columns the query reads.
    pub covering: bool,
    /// The rows come in the order asked for, when read backwards if `desc`.
    pub ordered: bool,
    pub desc: bool,
    pub rows: f64,
    pub cost: f64,
}

/// The cheapest path. `order` is what the parent would otherwise sort by; `limited` says it wants few rows only.
pub fn choose(scan: &Scan, order: &[SortKey], limited: bool) -> Path {
    let mut paths = vec![table_path(scan, order)];
    for index in &scan.table.indexes {
        if index.state.is_public()
            && !index.invisible
            && !scan.table.is_clustered(index)
            && allowed(scan, index)
        {
            paths.push(index_path(scan, index, order));
        }
    }
    let forced = scan.hints.iter().any(|hint| hint.kind == IndexHintKind::Force && !hint.indexes.is_empty());
    if forced && paths.len() > 1 {
        paths.remove(0);
    }
    for path in &mut paths {
        path.cost = cost(scan, path, order, limited);
    }
    let best = paths.into_iter().min_by(|a, b| a.cost.total_cmp(&b.cost));
    best.unwrap_or_else(|| table_path(scan, order))
}

fn cost(scan: &Scan, path: &Path, order: &[SortKey], limited: bool) -> f64 {
    let per_row = match &path.index {
        Some(index) if !path.covering => lookup_cost(scan, index),
        _ => 1.0,
    };
    // An index entry is smaller than a row.
    let per_row = if path.index.is_some() && path.covering { 0.8 } else { per_row };
    let mut rows = path.rows;
    if limited && path.ordered {
        // So many are read until enough have passed the other conditions.
        rows = rows.min(ROWS_WANTED * (path.rows / scan.rows()).max(1.0));
    }
    let sort =
        if order.is_empty() || path.ordered { 0.0 } else { path.rows * (path.rows.max(2.0).log2() * 0.1) };
    let lookups_setup = if path.index.is_some() && !path.covering { 1.0 } else { 0.0 };
    rows * per_row + sort + lookups_setup
}

/// What a row costs that is read through an index: the nearer the two orders, the fewer places are visited.
fn lookup_cost(scan: &Scan, index: &IndexInfo) -> f64 {
    let first = index.columns.first().and_then(|column| scan.stats.column(&scan.table, column.offset));
    let order = first.map_or(0.0, |column| column.correlation.powi(2));
    LOOKUP_COST_PER_ROW - (LOOKUP_COST_PER_ROW - LOOKUP_COST_PER_ROW_NEAR) * order
}

fn allowed(scan: &Scan, index: &IndexInfo) -> bool {
    let named = |kind: IndexHintKind| {
        let mut hints = scan.hints.iter().filter(move |hint| hint.kind == kind);
        hints.any(|hint| hint.indexes.iter().any(|name| name.eq_ignore_ascii_case(&index.name)))
    };
    let listed = scan.hints.iter().any(|hint| hint.kind != IndexHintKind::Ignore);
    !named(IndexHintKind::Ignore) && (!listed || named(IndexHintKind::Use) || named(IndexHintKind::Force))
}

fn column_id(scan: &Scan, offset: usize) -> Option<ColumnId> {
    let place = scan.offsets.iter().position(|read| *read == offset)?;
    Some(scan.schema.columns[place].id)
}

/// The columns of an index as its keys hold them.
pub fn key_columns(scan: &Scan, index: &IndexInfo) -> Vec<KeyColumn> {
    let columns = index.columns.iter().map(|column| KeyColumn {
        id: column_id(scan, column.offset),
        ty: scan.table.columns[column.offset].ty.clone(),
        prefix: column.prefix.is_some(),
    });
    columns.collect()
}

fn handle_columns(scan: &Scan) -> Vec<KeyColumn> {
    match scan.table.handle {
        HandleKind::Int { offset } => {
            let ty = scan.table.columns[offset].ty.clone();
            vec![KeyColumn { id: column_id(scan, offset), ty, prefix: false }]
        }
        HandleKind::Common => {
            scan.table.primary().map_or_else(Vec::new, |primary| key_columns(scan, primary))
        }
        HandleKind::Hidden => Vec::new(),
    }
}

fn table_path(scan: &Scan, order: &[SortKey]) -> Path {
    let columns = handle_columns(scan);
    let found = match_key(&columns, &scan.filters);
    let unique = !columns.is_empty() && found.points == columns.len();
    path(scan, None, columns, found, order, true, unique)
}

fn index_path(scan: &Scan, index: &Arc<IndexInfo>, order: &[SortKey]) -> Path {
    let columns = key_columns(scan, index);
    let found = match_key(&columns, &scan.filters);
    let unique = index.unique && found.points == columns.len();
    let covering = covers(&scan.table, index, &scan.offsets) && scan.lock.is_none();
    path(scan, Some(Arc::clone(index)), columns, found, order, covering, unique)
}

fn path(
    scan: &Scan,
    index: Option<Arc<IndexInfo>>,
    columns: Vec<KeyColumn>,
    found: Match,
    order: &[SortKey],
    covering: bool,
    unique: bool,
) -> Path {
    let rows = if unique { 1.0 } else { rows_in(scan, &found) };
    let direction = gives_order(&columns, &found, order);
    let desc_index = index.as_ref().is_some_and(|index| index.columns.iter().any(|column| column.desc));
    let ordered = direction.is_some() && !desc_index && !scan.is_virtual;
    Path { index, found, covering, ordered, desc: ordered && direction == Some(true), rows, cost: 0.0 }
}

/// Rows in the part of a key that conditions select.
fn rows_in(scan: &Scan, found: &Match) -> f64 {
    if found.used.is_empty() {
        return scan.stats.rows.max(1.0);
    }
    let used: Vec<Expr> = found.used.iter().map(|place| scan.filters[*place].clone()).collect();
    (scan.stats.rows * scan.selectivity(&used)).max(1.0)
}

/// Whether reading the key forwards (`Some(false)`) or backwards (`Some(true)`) gives the order asked for: columns fixed to one
/// value may be skipped.
fn gives_order(columns: &[KeyColumn], found: &Match, order: &[SortKey]) -> Option<bool> {
    if order.is_empty() {
        return None;
    }
    let desc = order[0].desc;
    let mut keys = order.iter().peekable();
    for (place, column) in columns.iter().enumerate() {
        let Some(key) = keys.peek() else { break };
        let same = matches!((&key.expr, column.id), (Expr::Column { index, .. }, Some(id)) if *index == id);
        if same && !column.prefix && key.desc == desc {
            keys.next();
        } else if place < found.points {
            continue;
        } else {
            return None;
        }
    }
    keys.peek().is_none().then_some(desc)
}

/// Whether an index's entries hold all these columns: its own ones that are whole, and the handle.
pub fn covers(table: &TableInfo, index: &IndexInfo, offsets: &[usize]) -> bool {
    let in_index = |offset: usize| index.columns.iter().any(|c| c.offset == offset && c.prefix.is_none());
    let in_handle = |offset: usize| match table.handle {
        HandleKind::Int { offset: handle } => handle == offset,
        HandleKind::Common | HandleKind::Hidden => false,
    };
    offsets.iter().all(|&offset| {
        if offset == ROWID_OFFSET {
            table.handle == HandleKind::Hidden
        } else {
            in_index(offset) || in_handle(offset)
        }
    })
}

/// A key that begins with a column which `conditions` equate with something outside the table: the path to look it up by (its
/// conditions are a placeholder), and that value. The most selective key wins.
pub fn lookup(scan: &Scan, conditions: &[Expr]) -> Option<(Path, Expr)> {
    if scan.is_virtual {
        return None;
    }
    let mut best: Option<(Path, Expr)> = None;
    let mut offer = |index: Option<Arc<IndexInfo>>, columns: Vec<KeyColumn>, covering: bool, unique: bool| {
        let Some(first) = columns.first().filter(|column| !column.prefix) else { return };
        let Some(value) = conditions.iter().find_map(|condition| lookup_value(condition, first)) else {
            return;
        };
        let rows = match first.id.and_then(|id| scan.ndv(id)) {
            _ if unique && columns.len() == 1 => 1.0,
            Some(ndv) => (scan.stats.rows / ndv).max(1.0),
            None => scan.stats.rows,
        };
        let per_row = index.as_ref().filter(|_| !covering).map_or(1.0, |index| lookup_cost(scan, index));
        let cost = rows * per_row;
        if best.as_ref().is_some_and(|(path, _)| path.cost <= cost) {
            return;
        }
        let conditions = AccessConditions { columns: vec![vec![RangeExpr::In(Vec::new())]] };
        let found = Match { conditions, ..Match::default() };
        best =
            Some((Path { index, found, covering, ordered: false, desc: false, rows, cost }, value.clone()));
    };
    offer(None, handle_columns(scan), true, true);
    for index in &scan.table.indexes {
        if index.state.is_public()
            && !index.invisible
            && !scan.table.is_clustered(index)
            && allowed(scan, index)
        {
            let covering = covers(&scan.table, index, &scan.offsets) && scan.lock.is_none();
            offer(Some(Arc::clone(index)), key_columns(scan, index), covering, index.unique);
        }
    }
    best
}

/// The single key that conditions fix entirely, for a point get; several when one column has a list.
pub fn point_keys(scan: &Scan) -> Option<(Vec<PointKey>, Vec<usize>)> {
    if scan.is_virtual {
        return None;
    }
    let handle = handle_columns(scan);
    let mut candidates: Vec<(Option<Arc<IndexInfo>>, Vec<KeyColumn>)> = Vec::new();
    if !handle.is_empty() {
        candidates.push((None, handle));
    }
    for index in &scan.table.indexes {
        let usable = index.unique && index.state.is_public() && !index.invisible && allowed(scan, index);
        if usable && !scan.table.is_clustered(index) {
            candidates.push((Some(Arc::clone(index)), key_columns(scan, index)));
        }
    }
    let mut best: Option<(Vec<PointKey>, Vec<usize>)> = None;
    for (index, columns) in candidates {
        let found = match_key(&columns, &scan.filters);
        if found.conditions.columns.len() != columns.len() || columns.iter().any(|column| column.prefix) {
            continue;
        }
        let Some(keys) = whole_keys(&index, &found) else { continue };
        if best.as_ref().is_none_or(|(known, _)| keys.len() < known.len()) {
            best = Some((keys, found.exact));
        }
    }
    best
}

/// How many keys a batch of point gets may have.
const POINT_KEYS_MAX: usize = 4096;

fn whole_keys(index: &Option<Arc<IndexInfo>>, found: &Match) -> Option<Vec<PointKey>> {
    let mut keys: Vec<Vec<Expr>> = vec![Vec::new()];
    let (mut exact_columns, mut lists) = (0, 0);
    for conditions in &found.conditions.columns {
        // One condition per column, so that nothing contradicts it, and one that its filter says exactly.
        let [condition] = conditions.as_slice() else { return None };
        match condition {
            RangeExpr::Cmp { op: RangeOp::Eq, value } => {
                keys.iter_mut().for_each(|key| key.push(value.clone()))
            }
            RangeExpr::In(list) => {
                lists += 1;
                if lists > 1 || list.len() > POINT_KEYS_MAX {
                    return None;
                }
                let prefix = keys.pop()?;
                keys = list.iter().map(|value| prefix.iter().chain([value]).cloned().collect()).collect();
            }
            _ => return None,
        }
        exact_columns += 1;
    }
    (found.exact.len() == exact_columns)
        .then(|| keys.into_iter().map(|values| PointKey { index: index.clone(), values }).collect())
}
