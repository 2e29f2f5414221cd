//! Where the session meets the rooms below it: planning, execution, SHOW, schema changes.

use std::sync::Arc;

use crate::binder::{self, BindContext};
use crate::context::{Output, StatementContext};
use crate::executor;
use crate::parser::ast::{LoadData, Statement};
use crate::plan::Plan;
use crate::{Error, Result};

pub use crate::catalog::model::InfoSchema;

pub struct Catalog;
impl Catalog {
    pub async fn start(_: rutile_client::Client) -> Result<Arc<Catalog>> {
        Ok(Arc::new(Catalog))
    }
    pub fn snapshot(&self) -> Arc<InfoSchema> {
        Arc::default()
    }
    pub fn stop(&self) {}
}

pub fn plan(statement: &Statement, params: usize, ctx: &StatementContext) -> Result<Plan> {
    let param_types = binder::param_types(&ctx.eval);
    binder::plan(statement, params, BindContext { statement: ctx, param_types: &param_types })
}
pub async fn execute(plan: &Plan, ctx: &Arc<StatementContext>) -> Result<Output> {
    executor::execute(plan, ctx).await
}
pub async fn show(_: &Statement, _: &Arc<StatementContext>) -> Result<Output> {
    Err(Error::not_supported("x"))
}
pub async fn ddl(_: &Statement, _: &Arc<StatementContext>) -> Result<()> {
    Err(Error::not_supported("x"))
}
pub async fn load_data(load: &LoadData, ctx: &Arc<StatementContext>) -> Result<()> {
    executor::load_data::execute(load, ctx).await
}
pub fn commit_error(error: rutile_client::Error, _: &InfoSchema) -> Error {
    error.into()
}
