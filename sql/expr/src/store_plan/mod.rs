//! What a store can run over its own rows: a scan, and steps over the scan's rows in order.
//!
//! - [`scan`]: from stored rows and index entries to arrays of the columns asked for. The SQL layer decodes with it, too.
//! - [`pipeline`]: the steps as DataFusion's operators; [`aggregate`]: grouping in one or two stages.
//! - [`wire`]: plans and answers as bytes; [`wire_expr`]: expressions, types and values.
//!
//! What is evaluated in a store is evaluated by the very code that the SQL layer uses, with the same context: sql_mode, time zone,
//! the statement's time and parameters travel with the plan.

pub mod aggregate;
pub mod pipeline;
pub mod scan;
pub mod wire;
pub mod wire_expr;

use std::sync::Arc;

use crate::expr::{Expr, Volatility};
use crate::func::agg::AggregateCall;
use scan::ScanSpec;

/// A scan and what is done with its rows.
#[derive(Debug, Clone)]
pub struct StorePlan {
    pub scan: Arc<ScanSpec>,
    /// From the last key to the first.
    pub desc: bool,
    pub steps: Vec<Step>,
}

/// One step over rows. Columns of expressions are positions in what the step before gives.
#[derive(Debug, Clone)]
pub enum Step {
    /// Keeps the rows for which all conditions are true.
    Filter(Vec<Expr>),
    Project(Vec<Expr>),
    /// Partial groups: the keys, then the states of the calls (see [`aggregate`]).
    Aggregate {
        group: Vec<Expr>,
        calls: Vec<AggregateCall>,
    },
    /// The first so many rows in an order; each key with whether it is descending.
    TopN {
        keys: Vec<(Expr, bool)>,
        limit: usize,
    },
    Limit(usize),
    /// Keeps each row with this chance.
    Sample(f64),
}

impl Step {
    /// Whether rows are kept back until the input ends.
    #[must_use]
    pub fn collects(&self) -> bool {
        matches!(self, Step::Aggregate { .. } | Step::TopN { .. })
    }
}

/// Constant functions that look at what only the SQL server knows: the session, or the statements before.
const OF_THE_SESSION: [&str; 9] = [
    "database",
    "user",
    "current_user",
    "current_role",
    "version",
    "connection_id",
    "found_rows",
    "row_count",
    "getvar",
];

/// Whether a store can evaluate the expression: it changes nothing, is the same for every evaluation, and looks at nothing of the
/// session that does not travel with the plan.
#[must_use]
pub fn can_run_in_store(expr: &Expr) -> bool {
    let mut can = true;
    expr.visit(&mut |part| {
        if let Expr::Call(call) = part {
            let name = call.func.name;
            can &= call.func.volatility != Volatility::Volatile && !OF_THE_SESSION.contains(&name);
        }
        can
    });
    can
}

/// Whether stores can make partial groups of the call, which are put together afterwards.
#[must_use]
pub fn can_group_in_store(call: &AggregateCall) -> bool {
    // The states of DISTINCT and GROUP_CONCAT hold all values: nothing would be saved.
    !call.distinct
        && !call.name.eq_ignore_ascii_case("group_concat")
        && call.order_by.is_empty()
        && call.args.iter().all(can_run_in_store)
}
