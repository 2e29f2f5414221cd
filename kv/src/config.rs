//! Configuration of a store. Strict: unknown keys are errors.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written like `64MiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time, written like `10s` or `500ms`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// What a configuration file or flag said wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPAN_UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

impl ByteSize {
    /// So many mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        ByteSize(n << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Span {
    /// So many milliseconds.
    #[must_use]
    pub const fn ms(n: u64) -> Self {
        Span(Duration::from_millis(n))
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    number.trim().parse::<u64>().ok()?.checked_mul(*factor)
}

impl FromStr for ByteSize {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let bytes = text.trim().parse().ok().or_else(|| with_unit(text, &SIZE_UNITS));
        bytes.map(ByteSize).ok_or_else(|| ConfigError(format!("`{text}` is not a size such as 64MiB")))
    }
}

impl FromStr for Span {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let ms = with_unit(text, &SPAN_UNITS);
        ms.map(Span::ms).ok_or_else(|| ConfigError(format!("`{text}` is not a span such as 500ms or 10s")))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        let (unit, factor) = exact.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms.is_multiple_of(1000) { write!(f, "{}s", ms / 1000) } else { write!(f, "{ms}ms") }
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(ByteSize);
as_text!(Span);

/// A store's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Listening address of the service.
    pub addr: String,
    /// What others are told to connect to; `addr` when empty.
    pub advertise_addr: String,
    /// Listening address of the HTTP status port; none when empty.
    pub status_addr: String,
    /// Where the store is (zone, rack, host).
    pub labels: std::collections::BTreeMap<String, String>,
    /// RocksDB.
    pub engine: EngineConfig,
    /// Raft logs.
    pub raft_log: RaftLogConfig,
    /// Regions and their replication.
    pub raft: RaftConfig,
    /// Removal of old versions.
    pub gc: GcConfig,
    /// Stale reads.
    pub resolved_ts: ResolvedTsConfig,
    /// Plans that run here.
    pub copr: CoprConfig,
}

/// Of the coprocessor.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CoprConfig {
    /// Plans that run at once; 0 stands for the number of processors.
    pub threads: usize,
}

impl CoprConfig {
    /// Threads to start.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// Of what stale reads rest on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ResolvedTsConfig {
    /// Between two rounds that find out up to where stale reads can be served; 0s: never.
    pub advance_interval: Span,
}

/// Of garbage collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GcConfig {
    /// Between two looks at the safe point.
    pub poll_interval: Span,
}

/// Of RocksDB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EngineConfig {
    /// Uncompressed blocks kept in memory, at most.
    pub block_cache_size: ByteSize,
    /// One memtable, at most.
    pub write_buffer_size: ByteSize,
    /// All memtables together, at most.
    pub write_buffer_total: ByteSize,
    /// Flush and compaction threads.
    pub background_jobs: u32,
    /// Table files held open.
    pub open_files_max: u32,
    /// Table files are verified completely at start when they are smaller than this together; all others are verified
    /// block by block when they are read.
    pub verify_at_start_max: ByteSize,
}

/// Of raft-engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RaftLogConfig {
    /// A log file is full at this size.
    pub file_size: ByteSize,
    /// Old logs are removed, after a flush if need be, when all files exceed this size.
    pub purge_threshold: ByteSize,
}

/// Of raft and regions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RaftConfig {
    /// Threads that drive raft groups.
    pub store_threads: usize,
    /// Threads that apply committed entries.
    pub apply_threads: usize,
    /// Raft's clock.
    pub tick: Span,
    /// Ticks between heartbeats of a leader.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Idle ticks after which a region's peers stop their clocks; 0: never.
    pub hibernate_ticks: usize,
    /// One log entry, at most.
    pub entry_size_max: ByteSize,
    /// Proposals waiting for one store thread, at most.
    pub proposals_max: usize,
    /// A region larger than this is split.
    pub region_size_max: ByteSize,
    /// Into pieces of this size.
    pub region_split_size: ByteSize,
    /// Written bytes after which a region's size is looked at again.
    pub split_check_diff: ByteSize,
    /// Between two looks at what can be cut off the logs.
    pub log_gc_interval: Span,
    /// Applied entries kept in a log for followers that lag.
    pub log_gc_keep: u64,
    /// Entries kept for a follower that is even further behind; it needs a snapshot then.
    pub log_gc_lag_max: u64,
    /// Without a leader for so long, a peer asks the placement driver whether it is still a member.
    pub leaderless_max: Span,
    /// Between two comparisons of the replicas of the regions led here; 0s: never.
    pub consistency_check_interval: Span,
    /// Between two store heartbeats.
    pub store_heartbeat_interval: Span,
    /// Between two heartbeats of an unchanged region.
    pub region_heartbeat_interval: Span,
    /// Writes are refused when less than this is free on the disk.
    pub disk_reserve: ByteSize,
    /// Split a fresh cluster at the bounds of the keyspace DEFAULT.
    pub split_at_bootstrap: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("rutile-data/kv"),
            addr: "127.0.0.1:20160".into(),
            advertise_addr: String::new(),
            status_addr: String::new(),
            labels: std::collections::BTreeMap::new(),
            engine: EngineConfig::default(),
            raft_log: RaftLogConfig::default(),
            raft: RaftConfig::default(),
            gc: GcConfig::default(),
            resolved_ts: ResolvedTsConfig::default(),
            copr: CoprConfig::default(),
        }
    }
}

impl Default for ResolvedTsConfig {
    fn default() -> Self {
        ResolvedTsConfig { advance_interval: Span::ms(1000) }
    }
}

impl Default for GcConfig {
    fn default() -> Self {
        GcConfig { poll_interval: Span::ms(10_000) }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            block_cache_size: ByteSize::mib(256),
            write_buffer_size: ByteSize::mib(32),
            write_buffer_total: ByteSize::mib(128),
            background_jobs: 3,
            open_files_max: 4096,
            verify_at_start_max: ByteSize::mib(64),
        }
    }
}

impl Default for RaftLogConfig {
    fn default() -> Self {
        RaftLogConfig { file_size: ByteSize::mib(32), purge_threshold: ByteSize::mib(256) }
    }
}

impl Default for RaftConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if cores <= 4 { 1 } else { 2 };
        RaftConfig {
            store_threads: threads,
            apply_threads: threads,
            tick: Span::ms(100),
            heartbeat_ticks: 2,
            election_ticks: 10,
            hibernate_ticks: 30,
            entry_size_max: ByteSize::mib(128),
            proposals_max: 8192,
            region_size_max: ByteSize::mib(256),
            region_split_size: ByteSize::mib(128),
            split_check_diff: ByteSize::mib(16),
            log_gc_interval: Span::ms(10_000),
            log_gc_keep: 256,
            log_gc_lag_max: 16_384,
            leaderless_max: Span::ms(60_000),
            consistency_check_interval: Span::ms(6 * 3_600_000),
            store_heartbeat_interval: Span::ms(10_000),
            region_heartbeat_interval: Span::ms(60_000),
            disk_reserve: ByteSize::mib(128),
            split_at_bootstrap: true,
        }
    }
}

impl Config {
    /// From TOML.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|e| ConfigError(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// The address others connect to.
    #[must_use]
    pub fn advertised(&self) -> &str {
        if self.advertise_addr.is_empty() { &self.addr } else { &self.advertise_addr }
    }

    /// Checks that hold between fields.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let raft = &self.raft;
        let must = |ok: bool, what: &str| if ok { Ok(()) } else { Err(ConfigError(what.to_owned())) };
        must(raft.store_threads > 0, "raft.store-threads must be at least 1")?;
        must(raft.apply_threads > 0, "raft.apply-threads must be at least 1")?;
        must(!raft.tick.0.is_zero(), "raft.tick must be longer than 0")?;
        must(raft.heartbeat_ticks > 0, "raft.heartbeat-ticks must be at least 1")?;
        must(
            raft.election_ticks > 2 * raft.heartbeat_ticks,
            "raft.election-ticks must exceed 2 × raft.heartbeat-ticks",
        )?;
        must(!self.gc.poll_interval.0.is_zero(), "gc.poll-interval must be longer than 0")?;
        must(raft.proposals_max > 0, "raft.proposals-max must be at least 1")?;
        must(
            raft.region_split_size <= raft.region_size_max && raft.region_split_size.0 > 0,
            "raft.region-split-size must be between 1B and raft.region-size-max",
        )?;
        must(
            self.raft_log.purge_threshold >= self.raft_log.file_size,
            "raft-log.purge-threshold must be at least raft-log.file-size",
        )?;
        must(
            self.engine.write_buffer_size <= self.engine.write_buffer_total,
            "engine.write-buffer-size must not exceed engine.write-buffer-total",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_round_trips_through_toml() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(Config::from_toml(&text).unwrap(), Config::default());
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        assert!(Config::from_toml("[raft]\nteck = '1s'").unwrap_err().0.contains("teck"));
        assert!(Config::from_toml("[raft]\ntick = '1 fortnight'").unwrap_err().0.contains("fortnight"));
        assert!(Config::from_toml("[raft]\nelection-ticks = 3").unwrap_err().0.contains("election-ticks"));
    }

    #[test]
    fn sizes_and_spans() {
        assert_eq!("64MiB".parse::<ByteSize>().unwrap(), ByteSize::mib(64));
        assert_eq!(ByteSize::mib(1536).to_string(), "1536MiB");
        assert_eq!("1500ms".parse::<Span>().unwrap().to_string(), "1500ms");
        assert!("x".parse::<ByteSize>().is_err());
    }
}
