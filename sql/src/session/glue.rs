//! Where the session meets the rooms below it.

use crate::Error;
use crate::Result;
use crate::binder::BindContext;
use crate::context::StatementContext;
use crate::parser::ast::Statement;
use crate::plan::Plan;

/// Binds and optimizes a statement.
pub fn plan(statement: &Statement, params: usize, ctx: &StatementContext) -> Result<Plan> {
    let param_types = crate::binder::param_types(&ctx.eval);
    crate::binder::plan(statement, params, BindContext { statement: ctx, param_types: &param_types })
}

/// What a failed commit says to the client. A key that turned out to exist is a conflict here: run again, the statement
/// finds the row and names its key.
pub fn commit_error(error: rutile_client::Error) -> Error {
    match error {
        rutile_client::Error::AlreadyExists { .. } => Error::WriteConflict { detail: error.to_string() },
        other => other.into(),
    }
}

/// Runs SHOW and DESCRIBE.
pub async fn show(statement: &Statement, ctx: &StatementContext) -> Result<crate::context::Output> {
    crate::show::execute(statement, ctx).await
}
