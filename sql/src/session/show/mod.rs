//! SHOW and DESCRIBE: each makes a small table, which its LIKE or WHERE then filters.

mod objects;
mod server;

use std::sync::Arc;

use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use rutile_expr::eval::{Input, truth_of};
use rutile_expr::types::{Collation, Datum, FieldType, MysqlType};
use rutile_expr::{Expr, registry};

use crate::binder::{BindContext, bind_over_table};
use crate::catalog::system_tables::{batch, virtual_table};
use crate::context::{Output, Rows, StatementContext};
use crate::parser::ast::{Ident, ObjectName, Show, ShowFilter, ShowWhat, Statement};
use crate::plan::{OutputColumn, Schema};
use crate::{Error, Result};

/// A small result: titles, types, rows, and which column LIKE looks at.
pub(super) struct Listing {
    columns: Vec<(String, FieldType)>,
    rows: Vec<Vec<Datum>>,
    like_column: usize,
}

/// A short text.
pub(super) const NAME: fn() -> FieldType = || FieldType::varchar(64, Collation::Utf8mb4GeneralCi);
/// A text of any length.
pub(super) const TEXT: fn() -> FieldType =
    || FieldType::new(MysqlType::LongBlob).with_collation(Collation::Utf8mb4GeneralCi);
/// A number.
pub(super) const INT: fn() -> FieldType = FieldType::bigint;
/// A number that is never negative.
pub(super) const UINT: fn() -> FieldType = FieldType::bigint_unsigned;
/// A time.
pub(super) const TIME: fn() -> FieldType = || FieldType::datetime(0);

impl Listing {
    pub(super) fn new(columns: &[(&str, fn() -> FieldType)], rows: Vec<Vec<Datum>>) -> Listing {
        let columns = columns.iter().map(|(name, ty)| ((*name).to_string(), ty())).collect();
        Listing { columns, rows, like_column: 0 }
    }

    /// Renames the first column: `Tables_in_x`.
    pub(super) fn titled(mut self, title: String) -> Listing {
        self.columns[0].0 = title;
        self
    }
}

/// Answers SHOW or DESCRIBE.
pub fn show(statement: &Statement, ctx: &Arc<StatementContext>) -> Result<Output> {
    match statement {
        Statement::Show(show) => answer(listing(show, ctx)?, show.filter.as_ref(), ctx),
        Statement::Describe { table, column } => {
            let mut listing = objects::columns(ctx, table, false)?;
            if let Some(wanted) = column {
                let filter = ShowFilter::Like(wanted.as_bytes().to_vec());
                return answer(listing, Some(&filter), ctx);
            }
            listing.like_column = 0;
            answer(listing, None, ctx)
        }
        other => Err(Error::internal(format!("not a SHOW: {other:?}"))),
    }
}

fn listing(show: &Show, ctx: &StatementContext) -> Result<Listing> {
    Ok(match &show.what {
        ShowWhat::Databases => objects::databases(ctx),
        ShowWhat::Tables { full, schema, .. } => objects::tables(ctx, schema_name(schema.as_ref(), ctx)?, *full, show)?,
        ShowWhat::TableStatus { schema } => objects::table_status(ctx, schema_name(schema.as_ref(), ctx)?)?,
        ShowWhat::OpenTables { .. } => empty(&["Database", "Table", "In_use", "Name_locked"]),
        ShowWhat::Columns { full, table, .. } => objects::columns(ctx, table, *full)?,
        ShowWhat::Index { table, .. } => objects::indexes(ctx, table)?,
        ShowWhat::CreateTable(table) => objects::create_table(ctx, table)?,
        ShowWhat::CreateDatabase { if_not_exists, name } => objects::create_database(ctx, name, *if_not_exists)?,
        ShowWhat::Variables { scope } => server::variables(ctx, *scope),
        ShowWhat::Status { scope } => server::status(ctx, *scope),
        ShowWhat::Warnings { count, limit } => server::remarks(ctx, *count, *limit, false),
        ShowWhat::Errors { count, limit } => server::remarks(ctx, *count, *limit, true),
        ShowWhat::ProcessList { full } => server::processes(ctx, *full),
        ShowWhat::Engines => server::engines(),
        ShowWhat::CharacterSet => server::character_sets(),
        ShowWhat::Collation => server::collations(),
        ShowWhat::Grants { user, .. } => server::grants(ctx, user.as_ref())?,
        ShowWhat::Privileges => server::privileges(),
        ShowWhat::Plugins => server::plugins(),
        ShowWhat::Triggers { .. } => empty(&[
            "Trigger", "Event", "Table", "Statement", "Timing", "Created", "sql_mode", "Definer", "character_set_client",
            "collation_connection", "Database Collation",
        ]),
        ShowWhat::Events { .. } => empty(&[
            "Db", "Name", "Definer", "Time zone", "Type", "Execute at", "Interval value", "Interval field", "Starts", "Ends",
            "Status", "Originator", "character_set_client", "collation_connection", "Database Collation",
        ]),
        ShowWhat::ProcedureStatus | ShowWhat::FunctionStatus => empty(&[
            "Db", "Name", "Language", "Type", "Definer", "Modified", "Created", "Security_type", "Comment",
            "character_set_client", "collation_connection", "Database Collation",
        ]),
        ShowWhat::BinaryLogStatus => {
            empty(&["File", "Position", "Binlog_Do_DB", "Binlog_Ignore_DB", "Executed_Gtid_Set"])
        }
        ShowWhat::BinaryLogs => return Err(Error::NoBinaryLogging),
        ShowWhat::Replicas => empty(&["Server_Id", "Host", "Port", "Source_Id", "Replica_UUID"]),
        ShowWhat::ReplicaStatus => empty(&["Replica_IO_State", "Source_Host"]),
        ShowWhat::Profiles => empty(&["Query_ID", "Duration", "Query"]),
        ShowWhat::CreateView(_) => return Err(Error::not_supported("SHOW CREATE VIEW")),
        ShowWhat::CreateUser(_) => return Err(Error::not_supported("SHOW CREATE USER")),
        ShowWhat::CreateRoutine { kind, .. } => return Err(Error::not_supported(format!("SHOW CREATE {kind}"))),
        ShowWhat::Engine { .. } => return Err(Error::not_supported("SHOW ENGINE")),
        ShowWhat::BinlogEvents => return Err(Error::not_supported("SHOW BINLOG EVENTS")),
        ShowWhat::Profile => return Err(Error::not_supported("SHOW PROFILE")),
    })
}

fn empty(titles: &[&str]) -> Listing {
    let columns: Vec<(&str, fn() -> FieldType)> = titles.iter().map(|t| (*t, NAME)).collect();
    Listing::new(&columns, Vec::new())
}

/// The database that FROM names, or the current one.
fn schema_name<'a>(given: Option<&'a Ident>, ctx: &'a StatementContext) -> Result<&'a str> {
    match given {
        Some(name) => Ok(name.as_ref()),
        None => ctx.current_database(),
    }
}

/// Database and name of a table.
pub(super) fn table_name<'a>(name: &'a ObjectName, ctx: &'a StatementContext) -> Result<(&'a str, &'a str)> {
    Ok((schema_name(name.schema.as_ref(), ctx)?, name.name.as_ref()))
}

fn answer(listing: Listing, filter: Option<&ShowFilter>, ctx: &Arc<StatementContext>) -> Result<Output> {
    let all = batch(&listing.columns, &listing.rows)?;
    let kept = match filter {
        None => all,
        Some(ShowFilter::Like(pattern)) => {
            let (name, ty) = &listing.columns[listing.like_column];
            let column = Expr::column(listing.like_column, name, ty.clone());
            let pattern = Expr::string(&String::from_utf8_lossy(pattern), ctx.eval.connection_collation);
            keep(ctx, &all, &registry::resolve(&ctx.eval, "like", vec![column, pattern])?)?
        }
        Some(ShowFilter::Where(condition)) => {
            let table = Arc::new(virtual_table(-1, "", listing.columns.iter().cloned()));
            let bind = BindContext { statement: ctx, param_types: &[] };
            keep(ctx, &all, &bind_over_table(condition, "", &table, bind)?)?
        }
    };
    let schema = listing.columns.into_iter().enumerate().map(|(i, (name, ty))| OutputColumn::computed(i, name, ty));
    Ok(Output::Rows { schema: Schema::new(schema.collect()), rows: Rows::Batches(vec![kept]) })
}

fn keep(ctx: &StatementContext, all: &RecordBatch, condition: &Expr) -> Result<RecordBatch> {
    let value = condition.eval_value(&ctx.eval, &Input::Batch(all))?;
    let truth = truth_of(&ctx.eval, &value, condition.field_type(), all.num_rows())?;
    filter_record_batch(all, &truth).map_err(|e| Error::internal(format!("filter a SHOW: {e}")))
}
