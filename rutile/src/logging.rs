//! Logs go to stderr, structured; how much is said is a setting.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::error::{Error, Result};

/// Installs the log. `level` is a level or a filter such as `info,rutile_kv=debug`; `RUTILE_LOG` overrides it.
pub fn init(level: &str) -> Result<()> {
    let text = std::env::var("RUTILE_LOG").unwrap_or_else(|_| level.to_string());
    // A plain level: what a library repairs or retries by itself is no news.
    let text = if text.contains([',', '=']) { text } else { format!("{text},raft_engine=error") };
    let filter = EnvFilter::try_new(&text)
        .map_err(|e| Error::Config(format!("log level \"{text}\" is not valid: {e}")))?;
    let result = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_span_events(FmtSpan::NONE)
        .try_init();
    // A log that is there already belongs to a test: leave it.
    drop(result);
    Ok(())
}
