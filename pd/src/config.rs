//! Configuration of a placement driver.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Everything that can be set; unknown names are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// Where the log and the snapshots live.
    pub data_dir: PathBuf,
    /// `host:port` to listen on for gRPC and HTTP.
    pub client_addr: String,
    /// `host:port` that clients are told; empty = `client-addr`.
    pub advertise_client_addr: String,
    /// `host:port` for the other members.
    pub peer_addr: String,
    /// `name=http://host:port,…` of all members; empty = this one alone.
    pub initial_cluster: String,
    /// Without news of a leader for this to twice this time, another member stands for election.
    pub election_timeout_ms: u64,
    /// How far ahead of the clock the timestamp window is persisted.
    pub tso_window_ms: u64,
    /// Replicas per region.
    pub replicas_max: u32,
    /// The log is replaced by a snapshot when it is longer than this.
    pub log_size_bytes_max: u64,
    /// How often watches that ask for it are told how far they are.
    pub watch_progress_interval_ms: u64,
    /// A store that was silent for so long counts as disconnected.
    pub store_disconnected_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: "pd-1".into(),
            data_dir: PathBuf::from("./rutile-pd-data"),
            client_addr: "127.0.0.1:2379".into(),
            advertise_client_addr: String::new(),
            peer_addr: "127.0.0.1:2380".into(),
            initial_cluster: String::new(),
            election_timeout_ms: 600,
            tso_window_ms: 3_000,
            replicas_max: 3,
            log_size_bytes_max: 8 << 20,
            watch_progress_interval_ms: 600_000,
            store_disconnected_ms: 20_000,
        }
    }
}

impl Config {
    /// What clients dial, with its scheme.
    #[must_use]
    pub fn client_url(&self) -> String {
        let addr = if self.advertise_client_addr.is_empty() {
            &self.client_addr
        } else {
            &self.advertise_client_addr
        };
        format!("http://{addr}")
    }

    /// Whether there are other members.
    #[must_use]
    pub fn is_group(&self) -> bool {
        self.initial_cluster.split(',').filter(|member| !member.trim().is_empty()).count() > 1
    }

    /// What other members dial, with its scheme.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://{}", self.peer_addr)
    }

    /// Refuses settings that cannot work together.
    pub fn validate(&self) -> Result<()> {
        let fail = |what: &str| Err(Error::Config(what.into()));
        if self.name.is_empty() {
            return fail("name must not be empty: clients skip members without a name");
        }
        if !(100..=60_000).contains(&self.tso_window_ms) {
            return fail("tso-window-ms must be between 100 and 60000");
        }
        if self.replicas_max == 0 {
            return fail("replicas-max must be at least 1");
        }
        if self.watch_progress_interval_ms == 0 {
            return fail("watch-progress-interval-ms must be at least 1");
        }
        if self.log_size_bytes_max < 4096 {
            return fail("log-size-bytes-max must be at least 4096");
        }
        if !(100..=60_000).contains(&self.election_timeout_ms) {
            return fail("election-timeout-ms must be between 100 and 60000");
        }
        crate::members::Members::parse(self)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_named() {
        let error = toml::from_str::<Config>("nam = 'x'").unwrap_err().to_string();
        assert!(error.contains("nam"), "{error}");
        let config: Config = toml::from_str("name = 'x'\ntso-window-ms = 500").unwrap();
        assert_eq!((config.name.as_str(), config.tso_window_ms), ("x", 500));
        let printed = toml::to_string(&Config::default()).unwrap();
        assert_eq!(toml::from_str::<Config>(&printed).unwrap(), Config::default());
    }

    #[test]
    fn validation() {
        assert!(Config::default().validate().is_ok());
        let two = Config { initial_cluster: "pd-1=http://a:1,pd-2=http://b:1".into(), ..Config::default() };
        assert!(two.validate().unwrap_err().to_string().contains("2 members"));
        assert!(Config { tso_window_ms: 0, ..Config::default() }.validate().is_err());
    }
}
