//! SCHEMATA.

use rutile_expr::types::Datum;

use super::{CATALOG, Row, s};
use crate::context::StatementContext;

pub fn schemata(ctx: &StatementContext) -> Vec<Row> {
    ctx.schema
        .databases()
        .map(|entry| {
            let collation = entry.info.collation;
            vec![
                s(CATALOG),
                s(&entry.info.name),
                s(collation.charset().name()),
                s(collation.name()),
                Datum::Null,
                s("NO"),
            ]
        })
        .collect()
}
