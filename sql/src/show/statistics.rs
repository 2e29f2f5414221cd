//! SHOW STATS_META, STATS_HISTOGRAMS and STATS_HEALTHY: what the optimizer knows, in TiDB's titles.

use std::sync::Arc;

use rutile_expr::types::{Datum, FieldType};

use super::result::ResultSet;
use crate::catalog::model::{TableInfo, TableKind};
use crate::catalog::system_tables::{s, time_of, u};
use crate::context::StatementContext;
use crate::statistics::TableStats;

/// The stored tables of all databases with what is known of them.
fn tables(ctx: &StatementContext) -> Vec<(String, Arc<TableInfo>, Arc<TableStats>)> {
    let mut found = Vec::new();
    for entry in ctx.schema.databases() {
        for table in entry.tables.values().filter(|table| table.kind == TableKind::Base) {
            found.push((entry.info.name.clone(), Arc::clone(table), ctx.statistics.of(table)));
        }
    }
    found
}

/// When a table was analyzed.
fn analyzed(stats: &TableStats, ctx: &StatementContext) -> Datum {
    match stats.is_guess() {
        true => Datum::Null,
        false => time_of(rutile_client::Timestamp(stats.version).physical_ms() as i64, ctx),
    }
}

pub fn meta(ctx: &StatementContext) -> ResultSet {
    let mut rows = Vec::new();
    for (db, table, stats) in tables(ctx) {
        let Some(counts) = ctx.statistics.counts(table.id) else { continue };
        let time = analyzed(&stats, ctx);
        let counted = [u(counts.modified), u(counts.rows.max(0) as u64)];
        let mut row = vec![s(db), s(&table.name), s(""), time.clone()];
        row.extend(counted);
        row.push(time);
        rows.push(row);
    }
    let titles = "Db_name Table_name Partition_name Update_time Modify_count:n Row_count:n Last_analyze_time";
    let mut result = ResultSet::empty(titles).with_rows(rows);
    result.columns[3].1 = FieldType::datetime(0);
    result.columns[6].1 = FieldType::datetime(0);
    result
}

pub fn histograms(ctx: &StatementContext) -> ResultSet {
    let mut rows = Vec::new();
    for (db, table, stats) in tables(ctx).into_iter().filter(|(_, _, stats)| !stats.is_guess()) {
        let start = |name: &str, is_index: bool| {
            let time = analyzed(&stats, ctx);
            vec![s(&db), s(&table.name), s(""), s(name), u(u64::from(is_index)), time]
        };
        for (_, column) in table.public_columns() {
            let Some(known) = stats.columns.get(&column.id) else { continue };
            let mut row = start(&column.name, false);
            row.push(u(known.ndv.round() as u64));
            row.push(u((known.null_fraction * stats.analyzed_rows).round() as u64));
            row.extend([Datum::Double(known.average_bytes), Datum::Double(known.correlation)]);
            row.extend([u(known.histogram.buckets.len() as u64), u(known.top_n.len() as u64)]);
            rows.push(row);
        }
        for index in table.indexes.iter().filter(|index| index.state.is_public()) {
            let Some(ndv) = stats.indexes.get(&index.id).and_then(|ndvs| ndvs.last()) else { continue };
            let mut row = start(&index.name, true);
            row.extend([u(ndv.round() as u64), u(0), Datum::Double(0.0), Datum::Double(0.0), u(0), u(0)]);
            rows.push(row);
        }
    }
    let titles = "Db_name Table_name Partition_name Column_name Is_index:n Update_time Distinct_count:n Null_count:n \
                  Avg_col_size Correlation Buckets:n Top_values:n";
    let mut result = ResultSet::empty(titles).with_rows(rows);
    result.columns[5].1 = FieldType::datetime(0);
    result.columns[8].1 = FieldType::double();
    result.columns[9].1 = FieldType::double();
    result
}

pub fn healthy(ctx: &StatementContext) -> ResultSet {
    let known = tables(ctx).into_iter().filter(|(_, _, stats)| !stats.is_guess());
    let rows = known
        .map(|(db, table, stats)| vec![s(db), s(&table.name), s(""), u(stats.healthy_percent() as u64)])
        .collect();
    ResultSet::empty("Db_name Table_name Partition_name Healthy:n").with_rows(rows)
}
