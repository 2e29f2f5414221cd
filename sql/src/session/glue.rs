//! Where the session meets the rooms below it: planning, and what a failed commit means.

use rutile_client::{Client, Transaction};
use rutile_expr::EvalContext;

use crate::binder::{self, BindContext};
use crate::catalog::model::InfoSchema;
use crate::context::StatementContext;
use crate::parser::ast::Statement;
use crate::plan::Plan;
use crate::table::mutate::duplicate_of_key;
use crate::{Error, Result};

/// Binds and optimizes a statement.
pub fn plan(statement: &Statement, params: usize, ctx: &StatementContext) -> Result<Plan> {
    let param_types = binder::param_types(&ctx.eval);
    binder::plan(statement, params, BindContext { statement: ctx, param_types: &param_types })
}

/// What a failed commit says to the client. A key that turned out to exist is named by the row that was to have it.
pub async fn commit_error(
    error: rutile_client::Error,
    schema: &InfoSchema,
    client: &Client,
    eval: &EvalContext,
    txn: Option<&Transaction>,
) -> Error {
    match error {
        rutile_client::Error::AlreadyExists { key } => {
            duplicate_of_key(schema, client, eval, &key, txn).await
        }
        other => other.into(),
    }
}
