//! Why a process does not start: one line that says what is wrong and what to do.

/// The result of starting something.
pub type Result<T> = std::result::Result<T, Error>;

/// What the user is told; exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody listens there already.
    #[error(
        "port {address} ({what}) is already in use; stop what listens there or choose another with {flag}"
    )]
    PortTaken {
        /// `host:port`.
        address: String,
        /// Which of our ports.
        what: &'static str,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address} ({what}): {reason}; choose another with {flag}")]
    Address {
        /// `host:port`.
        address: String,
        /// Which of our ports.
        what: &'static str,
        /// What the system said.
        reason: String,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// The data directory cannot be used.
    #[error("data directory {path} cannot be used: {reason}; choose another with --data-dir")]
    DataDir {
        /// The directory.
        path: String,
        /// Why.
        reason: String,
    },
    /// A configuration file or flag is wrong.
    #[error("{0}")]
    Config(String),
    /// No placement driver answers.
    #[error(
        "no placement driver answers at {endpoints}: {reason}; start one with `rutile pd`, or correct --pd"
    )]
    PdMissing {
        /// What was tried.
        endpoints: String,
        /// The last failure.
        reason: String,
    },
    /// The placement driver does not start.
    #[error("placement driver: {0}")]
    Pd(#[from] rutile_pd::Error),
    /// The store does not start.
    #[error("store: {0}")]
    Kv(String),
    /// The SQL server does not start.
    #[error("SQL server: {0}")]
    Sql(String),
    /// A command of `rutile ctl` failed.
    #[error("{0}")]
    Ctl(String),
    /// The system refused something basic.
    #[error("{0}")]
    System(String),
}

/// One line: whatever a cause said over several is joined.
#[must_use]
pub fn one_line(error: &Error) -> String {
    error.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
