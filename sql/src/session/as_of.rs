//! Reads of the past: which timestamp a point in time is.

use rutile_client::Timestamp;
use rutile_expr::types::Datum;

use super::Session;
use crate::context::StatementContext;
use crate::parser::ast::{Expr, Function};
use crate::{Error, Result};

/// TiDB's number for what cannot be a time to read at.
fn refused(why: impl std::fmt::Display) -> Error {
    Error::Mysql { code: 8135, state: "HY000", message: format!("invalid as of timestamp: {why}") }
}

impl Session {
    /// What `AS OF TIMESTAMP` names: a date and time in the session's time zone. Refused when it lies in the future, or so far back
    /// that versions of then may be gone.
    pub(super) async fn past_timestamp(&self, expr: &Expr, ctx: &StatementContext) -> Result<Timestamp> {
        // The function knows time zones and what text is a time.
        let seconds = Function::call("UNIX_TIMESTAMP", vec![expr.clone()]);
        let (datum, _) = self.constant(&seconds, ctx)?;
        let millis = match &datum {
            Datum::Int(seconds) => u64::try_from(*seconds).unwrap_or(0) * 1000,
            Datum::UInt(seconds) => seconds * 1000,
            Datum::Decimal(seconds) => (seconds.to_f64() * 1000.0) as u64,
            Datum::Double(seconds) => (seconds * 1000.0) as u64,
            _ => 0,
        };
        if millis == 0 {
            return Err(refused("not a date and time"));
        }
        let ts = Timestamp::compose(millis, 0);
        let client = &self.instance.client;
        if ts > client.timestamp().await? {
            return Err(refused("cannot set read timestamp to a future time"));
        }
        let safe_point = client.pd().gc_safe_point().await?;
        if ts < safe_point {
            return Err(refused("the versions of then have been removed (gc_life_time_seconds)"));
        }
        Ok(ts)
    }
}
