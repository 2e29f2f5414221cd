//! Settings of a SQL server, as its TOML file and command line give them.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of a SQL server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where MySQL clients connect.
    pub addr: SocketAddr,
    /// Where `/status` and `/metrics` are served.
    pub status_addr: SocketAddr,
    /// Connections at most; one more is kept for root.
    pub max_connections: u32,
    /// Memory one statement may take.
    pub memory_quota_query_bytes: usize,
    /// Memory all statements together may take.
    pub memory_quota_total_bytes: usize,
    /// Seconds a graceful stop waits for running transactions.
    pub graceful_shutdown_seconds: u64,
    /// Seconds that old versions of rows are kept at least; longer while a transaction reads them.
    pub gc_life_time_seconds: u64,
    /// Directory LOAD DATA INFILE (without LOCAL) may read from; nowhere if absent, anywhere if empty.
    pub secure_file_priv: Option<String>,
    /// Whether to serve no accounts: every user is let in as root. For tests of protocol proxies.
    pub skip_grant_tables: bool,
    /// Encrypted connections.
    pub tls: TlsConfig,
}

/// Encrypted connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Offer none.
    pub off: bool,
    /// Certificate chain in PEM form; without one, a self-signed certificate is made at start.
    pub cert: Option<PathBuf>,
    /// Private key in PEM form.
    pub key: Option<PathBuf>,
    /// Refuse connections that are not encrypted.
    pub require: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            addr: SocketAddr::from(([127, 0, 0, 1], 4000)),
            status_addr: SocketAddr::from(([127, 0, 0, 1], 10080)),
            max_connections: 4096,
            memory_quota_query_bytes: 1 << 30,
            memory_quota_total_bytes: 4 << 30,
            graceful_shutdown_seconds: 10,
            gc_life_time_seconds: 600,
            secure_file_priv: None,
            skip_grant_tables: false,
            tls: TlsConfig::default(),
        }
    }
}

impl Config {
    /// Checks settings against each other; the error names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.max_connections == 0 {
            return Err("max-connections must be at least 1".to_owned());
        }
        if self.memory_quota_query_bytes > self.memory_quota_total_bytes {
            return Err("memory_quota_query_bytes must not exceed memory_quota_total_bytes".to_owned());
        }
        if self.gc_life_time_seconds == 0 {
            return Err("gc_life_time_seconds must be at least 1".to_owned());
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err("tls.cert and tls.key go together: give both or neither".to_owned());
        }
        if self.tls.off && self.tls.require {
            return Err("tls.require contradicts tls.off".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_unknown_keys_are_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let error = toml::from_str::<Config>("adr = '127.0.0.1:1'").unwrap_err().to_string();
        assert!(error.contains("adr"), "{error}");
        let config = toml::from_str::<Config>("[tls]\nrequire = true\noff = true").unwrap();
        assert_eq!(config.validate(), Err("tls.require contradicts tls.off".to_owned()));
    }
}
