//! ALTER TABLE, CREATE INDEX and DROP INDEX.

use crate::catalog::infoschema::Catalog;
use crate::context::StatementContext;
use crate::parser::ast::{AlterTable, CreateIndex, DropIndex};
use crate::{Error, Result};

pub async fn execute(_: &AlterTable, _: &StatementContext, _: &Catalog) -> Result<()> {
    Err(Error::not_supported("ALTER TABLE"))
}

pub async fn create_index(_: &CreateIndex, _: &StatementContext, _: &Catalog) -> Result<()> {
    Err(Error::not_supported("CREATE INDEX"))
}

pub async fn drop_index(_: &DropIndex, _: &StatementContext, _: &Catalog) -> Result<()> {
    Err(Error::not_supported("DROP INDEX"))
}
