//! ANALYZE TABLE: statistics of tables, and the histograms that people see. The answer is a result set of messages, also for
//! what went wrong, as in MySQL.

use std::sync::Arc;

use rutile_expr::types::{Collation, Datum, FieldType};

use super::{QueryResult, Session};
use crate::Result;
use crate::catalog::model::{ColumnId, TableInfo, TableKind};
use crate::catalog::system_tables::{batch, s};
use crate::context::{Output, Rows, StatementContext};
use crate::parser::ast::{Analyze, HistogramClause, ObjectName, Statement};
use crate::plan::schema::{OutputColumn, Schema};
use crate::statistics::build::ShownBuckets;
use crate::statistics::worker;

/// Messages about one table.
struct Messages {
    rows: Vec<Vec<Datum>>,
    table: String,
    op: &'static str,
}

impl Messages {
    fn push(&mut self, kind: &str, text: impl Into<String>) {
        self.rows.push(vec![s(&self.table), s(self.op), s(kind), s(text.into())]);
    }
}

impl Session {
    /// Runs ANALYZE TABLE.
    pub(super) async fn analyze(
        &mut self,
        analyze: &Analyze,
        ctx: &Arc<StatementContext>,
    ) -> Result<QueryResult> {
        self.check_statement(&Statement::Analyze(analyze.clone()))?;
        let mut rows = Vec::new();
        for name in &analyze.tables {
            let db = match &name.schema {
                Some(schema) => schema.clone(),
                None => ctx.current_database()?.to_owned(),
            };
            let op = if analyze.histogram.is_some() { "histogram" } else { "analyze" };
            let mut messages = Messages { rows: Vec::new(), table: format!("{db}.{}", name.name), op };
            match &analyze.histogram {
                Some(_) if analyze.tables.len() > 1 => {
                    messages.table = String::new();
                    messages.push(
                        "Error",
                        "Only one table can be specified while modifying histogram statistics.",
                    );
                    rows = messages.rows;
                    break;
                }
                Some(clause) => self.histogram(name, &db, clause, &mut messages, ctx).await?,
                None => self.analyze_table(name, &db, &mut messages, ctx).await?,
            }
            rows.append(&mut messages.rows);
        }
        Ok(self.answer(output(&rows)?, Arc::clone(ctx)))
    }

    fn analyzed_table(&self, name: &ObjectName, db: &str, ctx: &StatementContext) -> Option<Arc<TableInfo>> {
        ctx.schema.table(db, &name.name).filter(|table| table.kind == TableKind::Base).cloned()
    }

    async fn analyze_table(
        &mut self,
        name: &ObjectName,
        db: &str,
        messages: &mut Messages,
        ctx: &Arc<StatementContext>,
    ) -> Result<()> {
        let Some(table) = self.analyzed_table(name, db, ctx) else {
            messages.push("Error", format!("Table '{db}.{}' doesn't exist", name.name));
            messages.push("status", "Operation failed");
            return Ok(());
        };
        self.look_at(&table, &ShownBuckets::new(), ctx).await?;
        messages.push("status", "OK");
        Ok(())
    }

    async fn look_at(
        &self,
        table: &Arc<TableInfo>,
        shown: &ShownBuckets,
        ctx: &Arc<StatementContext>,
    ) -> Result<()> {
        let statistics = &self.instance.statistics;
        tokio::select! {
            done = worker::analyze(&self.instance.client, statistics, table, shown) => done,
            () = ctx.cancel.cancelled() => Err(crate::Error::QueryInterrupted),
        }
    }

    async fn histogram(
        &mut self,
        name: &ObjectName,
        db: &str,
        clause: &HistogramClause,
        messages: &mut Messages,
        ctx: &Arc<StatementContext>,
    ) -> Result<()> {
        let Some(table) = self.analyzed_table(name, db, ctx) else {
            messages.push("Error", format!("Table '{db}.{}' doesn't exist", name.name));
            return Ok(());
        };
        let mut found: Vec<(String, ColumnId)> = Vec::new();
        for column in &clause.columns {
            match table.column(column) {
                None => messages.push("Error", format!("The column '{column}' does not exist.")),
                Some((offset, info)) if clause.buckets.is_some() && is_unique_alone(&table, offset) => {
                    let text =
                        format!("The column '{}' is covered by a single-part unique index.", info.name);
                    messages.push("Error", text);
                }
                Some((_, info)) => found.push((info.name.clone(), info.id)),
            }
        }
        let ids: Vec<ColumnId> = found.iter().map(|(_, id)| *id).collect();
        match clause.buckets {
            Some(_) if found.is_empty() => {}
            Some(buckets) => {
                let shown: ShownBuckets = ids.iter().map(|id| (*id, buckets)).collect();
                self.look_at(&table, &shown, ctx).await?;
                for (name, _) in &found {
                    messages.push("status", format!("Histogram statistics created for column '{name}'."));
                }
            }
            None => {
                let statistics = &self.instance.statistics;
                let dropped =
                    worker::drop_histograms(&self.instance.client, statistics, &table, &ids).await?;
                for (name, id) in &found {
                    match dropped.contains(id) {
                        true => messages
                            .push("status", format!("Histogram statistics removed for column '{name}'.")),
                        false => messages
                            .push("Error", format!("No histogram statistics found for column '{name}'.")),
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_unique_alone(table: &TableInfo, offset: usize) -> bool {
    table
        .indexes
        .iter()
        .any(|index| index.unique && index.columns.len() == 1 && index.columns[0].offset == offset)
}

fn output(rows: &[Vec<Datum>]) -> Result<Output> {
    let text = |length| FieldType::varchar(length, Collation::DEFAULT);
    let columns = [("Table", text(128)), ("Op", text(10)), ("Msg_type", text(10)), ("Msg_text", text(512))];
    let types: Vec<(&str, &FieldType)> = columns.iter().map(|(title, ty)| (*title, ty)).collect();
    let rows = Rows::Batches(vec![batch(&types, rows)?]);
    let column =
        |(id, (title, ty)): (usize, &(&str, FieldType))| OutputColumn::computed(id, *title, ty.clone());
    let schema = Schema::new(columns.iter().enumerate().map(column).collect());
    Ok(Output::Rows { schema, rows })
}
