//! The shortest path of a prepared point read through the session: what a statement's beginning and end leave behind,
//! without anything in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rutile_client::{ReadFrom, ReadView, Timestamp};
use rutile_expr::types::Datum;

use super::instance::Counters;
use super::prepared::CachedPlan;
use super::text_plan::TextHit;
use super::{OkInfo, Session};
use crate::context::Isolation;
use crate::executor::point_read::{PointRead, PointRow};

/// A point read's answer.
pub struct PointAnswer {
    /// How its cells are read.
    pub read: Arc<PointRead>,
    /// The row, if there is one.
    pub row: Option<PointRow>,
    /// What ends the result set.
    pub ok: OkInfo,
}

impl Session {
    /// The short path of a prepared statement, if its last plan has one.
    pub fn point_read(&self, id: u32) -> Option<Arc<PointRead>> {
        self.prepared.peek(id)?.plan.as_ref()?.point.clone()
    }

    /// Answers a prepared point read at once. `None`, with nothing done yet, when the statement has to go the usual way.
    pub fn try_point_read(&mut self, id: u32, params: &[Datum]) -> Option<PointAnswer> {
        let cached = self.prepared.peek(id)?.plan.as_ref()?;
        let (read, row) = self.read_point(cached, params)?;
        Some(self.point_answer(read, row))
    }

    /// The same of a text that need not be parsed.
    pub fn try_text_point_read(&mut self, hit: &TextHit) -> Option<PointAnswer> {
        let (read, row) = self.read_point(hit.cached()?, &hit.params)?;
        Some(self.point_answer(read, row))
    }

    fn read_point(
        &self,
        cached: &CachedPlan,
        params: &[Datum],
    ) -> Option<(Arc<PointRead>, Option<PointRow>)> {
        let read = Arc::clone(cached.point.as_ref()?);
        let settings = self.settings();
        if settings.read_from != ReadFrom::Leader
            || settings.read_staleness_s != 0
            || settings.max_execution_ms != 0
            || self.next_transaction != (None, None)
            || self.limit.is_some()
        {
            return None;
        }
        let view = match &self.open {
            None if settings.autocommit => ReadView::from(self.instance.client.snapshot(Timestamp::MAX)),
            None => return None,
            Some(open) if open.isolation() == Isolation::RepeatableRead => {
                let txn = open.begun_transaction()?;
                txn.view(txn.start_ts_now()?)
            }
            Some(_) => return None,
        };
        // Whoever changes the schema sees, while this is held, that it is in use.
        let schema = self.instance.catalog.snapshot();
        if !Arc::ptr_eq(&schema, &self.schema()) {
            return None;
        }
        let database = self.database.as_deref();
        let versions = (schema.version(), self.instance.statistics.generation());
        if !cached.key.holds_under(versions, database, &settings, self.open.is_some())
            || !cached.plan.accepts(params)
            || self.check_plan(&cached.plan).is_err()
        {
            return None;
        }
        if let Some(open) = &self.open {
            open.touch(&cached.plan.tables);
        }
        let row = read.read(params, &view)?;
        Some((read, row))
    }

    /// What a statement leaves behind.
    fn point_answer(&mut self, read: Arc<PointRead>, row: Option<PointRow>) -> PointAnswer {
        self.clear_warnings();
        self.state.begin_statement();
        self.note_cached_plan();
        let rows = u64::from(row.is_some());
        let counters = &self.instance.counters;
        Counters::count(&counters.questions);
        Counters::count(&counters.com_select);
        counters.rows_sent.fetch_add(rows, Ordering::Relaxed);
        self.found_rows = rows;
        self.row_count = -1;
        self.connection.end();
        PointAnswer { read, row, ok: self.ok() }
    }
}
