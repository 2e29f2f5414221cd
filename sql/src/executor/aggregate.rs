//! Grouping and aggregate functions.

use super::{ExecContext, RowStream};
use crate::error::{Error, Result};
use crate::plan::physical::{AggregateNode, PhysicalPlan};

pub(super) fn open(_aggregate: &AggregateNode, _plan: &PhysicalPlan, _ctx: &ExecContext) -> Result<RowStream> {
    Err(Error::not_supported("aggregation"))
}
