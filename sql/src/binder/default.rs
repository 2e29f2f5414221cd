//! `DEFAULT (expression)`: the stored texts bound over a row of their table.

use std::rc::Rc;

use rutile_expr::Expr;

use super::scope::{Clause, Scope, ScopeChain};
use super::{BindContext, Binder, ExprScope};
use crate::catalog::model::{ColumnDefault, ColumnInfo, TableInfo};
use crate::error::{Error, Result};
use crate::parser;
use crate::plan::schema::OutputColumn;

/// The table's expression defaults: offset of the column, and the expression over the row (`Expr::Column(offset)`).
pub fn bind_defaults(db: &str, table: &TableInfo, ctx: BindContext<'_>) -> Result<Vec<(usize, Expr)>> {
    Binder::new(ctx, 0).defaults_over_row(db, table)
}

impl Binder<'_> {
    /// As [`bind_defaults`].
    pub(super) fn defaults_over_row(&mut self, db: &str, table: &TableInfo) -> Result<Vec<(usize, Expr)>> {
        let mut bound = Vec::new();
        for (offset, column) in table.public_columns() {
            if let ColumnDefault::Expr(text) = &column.default {
                let columns =
                    self.row_columns(db, table, &table.name, 0).into_iter().map(|(column, _)| column);
                bound.push((offset, self.bind_default(text, columns)?));
            }
        }
        Ok(bound)
    }

    /// A default's text over these columns.
    pub(super) fn bind_default(
        &mut self,
        text: &str,
        columns: impl IntoIterator<Item = OutputColumn>,
    ) -> Result<Expr> {
        let mut scope = Scope::default();
        scope.add_table("", "", columns.into_iter().map(|column| (column, true)))?;
        let chain = Rc::new(ScopeChain { scope: Rc::new(scope), outer: None });
        self.bind_expr(&parser::parse_expr(text)?, &mut ExprScope::new(&chain, Clause::FieldList))
    }

    /// `DEFAULT(column)`: its constant; computed defaults have none.
    pub(super) fn default_constant(&mut self, info: &ColumnInfo) -> Result<Expr> {
        use ColumnDefault as D;
        let typed_null =
            || Expr::literal(rutile_expr::types::Datum::Null, info.ty.clone().with_not_null(false));
        match &info.default {
            D::Null | D::CurrentTimestamp => Ok(typed_null()),
            D::None => Err(Error::NoDefaultForField { column: info.name.clone() }),
            D::Value(_) => {
                let value = crate::table::constraint::default_value(&self.ctx.statement.eval, info)?;
                Ok(Expr::literal(value, info.ty.clone()))
            }
            D::Expr(_) => Err(Error::Mysql {
                code: 3773,
                state: "HY000",
                message: "DEFAULT function cannot be used with default value expressions".into(),
            }),
        }
    }
}
