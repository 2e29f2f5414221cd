//! The shortest path: a prepared SELECT of stored columns by the integer primary key, given as a parameter. One key is made, one
//! value got, its cells are copied to the client; no statement context, no Arrow, no future. Everything it does not know it
//! leaves to [`super::point_get`], which answers the same.

use bytes::Bytes;
use rutile_client::ReadView;
use rutile_expr::Expr;
use rutile_expr::row::{Cell, RowView};
use rutile_expr::types::field_type::Family;
use rutile_expr::types::{Datum, FieldType, MysqlType};

use crate::Result;
use crate::catalog::model::{HandleKind, TableId};
use crate::plan::{PhysicalNode, Plan, PlanBody, SchemaRef};
use crate::table::row::{Handle, row_key};

/// A plan that can be answered this way, reduced to what that takes.
#[derive(Debug)]
pub struct PointRead {
    table: TableId,
    /// The parameter that is the key.
    param: usize,
    /// Of the key's column.
    unsigned: bool,
    /// `None` is the key itself, else the stored column's id.
    sources: Vec<Option<i64>>,
    /// The result set's columns.
    pub schema: SchemaRef,
}

/// A row that was read.
pub struct PointRow {
    handle: Handle,
    value: Bytes,
}

/// One cell of a row, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PointCell<'a> {
    Null,
    Int(i64),
    UInt(u64),
    /// Text in UTF-8, or bytes.
    Bytes(&'a [u8]),
}

impl PointRead {
    /// The short path of a plan, if it has one.
    pub fn of(plan: &Plan) -> Option<PointRead> {
        let PlanBody::Query(query) = &plan.body else { return None };
        let PhysicalNode::PointGet(get) = &query.node else { return None };
        let plain = plan.subqueries.is_empty()
            && get.filter.is_empty()
            && get.lock.is_none()
            && get.key.index.is_none();
        let (true, HandleKind::Int { offset: key }) = (plain, &get.access.table.handle) else { return None };
        let [Expr::Param { index, field_type }] = &get.key.values[..] else { return None };
        let columns = &get.access.table.columns;
        if field_type.family() != Family::Int || plan.params.get(*index)?.family() != Family::Int {
            return None;
        }
        let source = |offset: &usize| {
            let column = columns.get(*offset).filter(|column| is_plain(&column.ty))?;
            Some((offset != key).then_some(column.id.0))
        };
        let read = &get.access.offsets;
        let picked = |expr: &Expr| match expr {
            Expr::Column { index, .. } => read.get(*index).copied(),
            _ => None,
        };
        let offsets = match &get.project {
            None => read.clone(),
            Some(exprs) => exprs.iter().map(picked).collect::<Option<Vec<_>>>()?,
        };
        Some(PointRead {
            table: get.access.table.id,
            param: *index,
            unsigned: columns[*key].ty.unsigned,
            sources: offsets.iter().map(source).collect::<Option<_>>()?,
            schema: query.schema.clone(),
        })
    }

    /// The row, if there is one. `None` when this path does not serve these parameters, or the store would have to wait.
    pub fn read(&self, params: &[Datum], view: &ReadView) -> Option<Option<PointRow>> {
        let handle = match (self.unsigned, params.get(self.param)?) {
            (false, Datum::Int(value)) => Handle::of_i64(*value),
            (true, Datum::UInt(value)) => Handle::Int(*value),
            (true, Datum::Int(value)) => Handle::Int(u64::try_from(*value).ok()?),
            _ => return None,
        };
        let Some(value) = view.try_get(&row_key(self.table, &handle))? else { return Some(None) };
        let row = PointRow { handle, value };
        // A row from before a column was added needs that column's default.
        let stored = RowView::new(&row.value).ok()?;
        let whole = |id: &i64| matches!(stored.cell(*id), Ok(Cell::Null | Cell::Value(_)));
        self.sources.iter().flatten().all(whole).then_some(Some(row))
    }

    /// Calls `put` with each cell of a row and its column's type.
    pub fn cells(&self, row: &PointRow, mut put: impl FnMut(PointCell<'_>, &FieldType)) -> Result<()> {
        let stored = RowView::new(&row.value)?;
        for (source, column) in self.sources.iter().zip(&self.schema.columns) {
            let ty = &column.ty;
            let cell = match source {
                None => match row.handle.to_datum(self.unsigned) {
                    Some(Datum::Int(value)) => PointCell::Int(value),
                    Some(Datum::UInt(value)) => PointCell::UInt(value),
                    _ => PointCell::Null,
                },
                Some(id) => match stored.cell(*id)? {
                    Cell::Missing | Cell::Null => PointCell::Null,
                    Cell::Value(bytes) => match ty.family() {
                        Family::Int if ty.unsigned => PointCell::UInt(rutile_expr::row::uint_of(bytes)?),
                        Family::Int => PointCell::Int(rutile_expr::row::int_of(bytes)?),
                        _ => PointCell::Bytes(bytes),
                    },
                },
            };
            put(cell, ty);
        }
        Ok(())
    }
}

/// Whether a column's stored form is what the client gets, but for the width of integers.
fn is_plain(ty: &FieldType) -> bool {
    match ty.family() {
        Family::Int => !ty.zerofill && !matches!(ty.tp, MysqlType::Year | MysqlType::Bit),
        Family::String => true,
        _ => false,
    }
}
