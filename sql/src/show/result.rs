//! A result set being made: columns, rows, and the filter of LIKE or WHERE.

use std::sync::Arc;

use arrow::compute::filter_record_batch;
use rutile_expr::types::{Datum, FieldType};

use crate::binder::{self, BindContext};
use crate::catalog::model::{
    ColumnDefault, ColumnId, ColumnInfo, HandleKind, IndexId, SchemaState, TableId, TableInfo, TableKind,
};
use crate::catalog::system_tables::{batch, text};
use crate::context::{Output, Rows, StatementContext};
use crate::parser::ast::{ColumnName, Expr, Literal, ShowFilter};
use crate::plan::schema::{OutputColumn, Schema};
use crate::{Error, Result};

/// Characters of a text column whose length is not otherwise known.
const TEXT_LENGTH: u32 = 1024;

pub struct ResultSet {
    pub columns: Vec<(String, FieldType)>,
    pub rows: Vec<Vec<Datum>>,
}

impl ResultSet {
    /// Columns from a list of titles: text, or with `:n` a number; `~` stands for a blank.
    pub fn empty(titles: &str) -> ResultSet {
        let column = |word: &str| match word.split_once(':') {
            Some((title, _)) => (title.replace('~', " "), FieldType::bigint_unsigned()),
            None => (word.replace('~', " "), text(TEXT_LENGTH)),
        };
        ResultSet { columns: titles.split_ascii_whitespace().map(column).collect(), rows: Vec::new() }
    }

    /// The same with rows. A column in which no NULL stands is NOT NULL, but for a column's default.
    pub fn with_rows(mut self, rows: Vec<Vec<Datum>>) -> ResultSet {
        for (i, (title, ty)) in self.columns.iter_mut().enumerate() {
            ty.not_null = title != "Default" && rows.iter().all(|row| !row[i].is_null());
        }
        self.rows = rows;
        self
    }

    /// Keeps the rows LIKE (on the first column) or WHERE (on any) let through.
    pub fn filtered(self, filter: Option<&ShowFilter>, ctx: &StatementContext) -> Result<Filtered> {
        let types: Vec<(&str, &FieldType)> =
            self.columns.iter().map(|(title, ty)| (title.as_str(), ty)).collect();
        let mut rows = batch(&types, &self.rows)?;
        let Some(filter) = filter else { return Ok(Filtered { columns: self.columns, rows }) };
        let condition = match filter {
            ShowFilter::Where(condition) => condition.clone(),
            ShowFilter::Like(pattern) => Expr::Like {
                expr: Box::new(Expr::Column(ColumnName::bare(self.columns[0].0.clone()))),
                pattern: Box::new(Expr::Literal(Literal::str(pattern.clone()))),
                escape: None,
                negated: false,
            },
        };
        let table = Arc::new(self.as_table());
        let context = BindContext { statement: ctx, param_types: &[] };
        let condition = binder::bind_over_table(&condition, "", &table, context)?;
        let keep = condition.eval_predicate(&ctx.eval, &rows)?;
        rows = filter_record_batch(&rows, &keep).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Filtered { columns: self.columns, rows })
    }

    /// All rows.
    pub fn output(self) -> Result<Output> {
        let types: Vec<(&str, &FieldType)> =
            self.columns.iter().map(|(title, ty)| (title.as_str(), ty)).collect();
        let rows = batch(&types, &self.rows)?;
        Filtered { columns: self.columns, rows }.output()
    }

    /// The columns as a table's, for binding a condition.
    fn as_table(&self) -> TableInfo {
        let column = |(position, (title, ty)): (usize, &(String, FieldType))| ColumnInfo {
            id: ColumnId(position as i64 + 1),
            name: title.clone(),
            ty: ty.clone(),
            default: ColumnDefault::Null,
            origin_default: ColumnDefault::Null,
            auto_increment: false,
            on_update_now: false,
            generated: None,
            comment: String::new(),
            invisible: false,
            explicit_collation: false,
            state: SchemaState::Public,
        };
        TableInfo {
            id: TableId(0),
            name: String::new(),
            kind: TableKind::System,
            columns: self.columns.iter().enumerate().map(column).collect(),
            indexes: Vec::new(),
            handle: HandleKind::Hidden,
            collation: rutile_expr::types::Collation::DEFAULT,
            comment: String::new(),
            auto_increment: 0,
            checks: Vec::new(),
            foreign_keys: Vec::new(),
            options: Vec::new(),
            next_column_id: ColumnId(self.columns.len() as i64 + 1),
            next_index_id: IndexId(1),
            create_time_ms: 0,
            version: 0,
            change: None,
        }
    }
}

/// Rows ready to be sent.
pub struct Filtered {
    columns: Vec<(String, FieldType)>,
    rows: arrow::record_batch::RecordBatch,
}

impl Filtered {
    pub fn output(self) -> Result<Output> {
        let column = |(id, (title, ty)): (usize, (String, FieldType))| OutputColumn::computed(id, title, ty);
        let schema = Schema::new(self.columns.into_iter().enumerate().map(column).collect());
        Ok(Output::Rows { schema, rows: Rows::Batches(vec![self.rows]) })
    }
}
