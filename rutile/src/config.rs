//! Configuration of every process: TOML files, flags over them, strict about unknown keys.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::{CommonArgs, KvArgs, PdArgs, PlaygroundArgs, SqlArgs};
use crate::error::{Error, Result};
use crate::ports;

/// Stores in one playground.
const STORES_MAX: usize = 64;

/// The playground's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PlaygroundConfig {
    /// Where the data is kept.
    pub data_dir: PathBuf,
    /// How many stores.
    pub stores: usize,
    /// Address to listen on.
    pub host: String,
    /// MySQL protocol.
    pub sql_port: u16,
    /// HTTP status.
    pub status_port: u16,
    /// Placement driver.
    pub pd_port: u16,
    /// First store.
    pub kv_port: u16,
    /// Keep the data in a temporary directory.
    pub ephemeral: bool,
    /// How much is logged.
    pub log_level: String,
    /// Of the placement driver; addresses and directory are set by the playground.
    pub pd: rutile_pd::Config,
    /// Of every store; addresses and directory are set by the playground.
    pub kv: rutile_kv::Config,
    /// Of the SQL server; addresses are set by the playground.
    pub sql: rutile_sql::config::Config,
}

impl Default for PlaygroundConfig {
    fn default() -> Self {
        PlaygroundConfig {
            data_dir: PathBuf::from("./rutile-data"),
            stores: 1,
            host: "127.0.0.1".into(),
            sql_port: 4000,
            status_port: 10080,
            pd_port: 2379,
            kv_port: 20160,
            ephemeral: false,
            log_level: "warn".into(),
            pd: rutile_pd::Config::default(),
            kv: rutile_kv::Config::default(),
            sql: rutile_sql::config::Config::default(),
        }
    }
}

impl PlaygroundConfig {
    /// From a file and flags.
    pub fn load(args: &PlaygroundArgs) -> Result<Self> {
        let mut config: PlaygroundConfig = read(args.common.config.as_deref())?;
        set(&mut config.data_dir, &args.data_dir);
        set(&mut config.stores, &args.kv);
        set(&mut config.host, &args.host);
        set(&mut config.sql_port, &args.sql_port);
        set(&mut config.status_port, &args.status_port);
        set(&mut config.pd_port, &args.pd_port);
        set(&mut config.kv_port, &args.kv_port);
        set(&mut config.log_level, &args.common.log_level);
        config.ephemeral |= args.ephemeral;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        if self.stores == 0 || self.stores > STORES_MAX {
            return Err(Error::Config(format!(
                "--kv must be between 1 and {STORES_MAX}, not {}",
                self.stores
            )));
        }
        let last = u32::from(self.kv_port) + self.stores as u32 - 1;
        if self.kv_port != 0 && last > u32::from(u16::MAX) {
            return Err(Error::Config(format!(
                "--kv-port {} leaves no room for {} stores",
                self.kv_port, self.stores
            )));
        }
        let fixed = [self.sql_port, self.status_port, self.pd_port];
        let stores = u32::from(self.kv_port)..=last;
        for (at, port) in fixed.iter().enumerate() {
            let twice =
                fixed[..at].contains(port) || (self.kv_port != 0 && stores.contains(&u32::from(*port)));
            if *port != 0 && twice {
                return Err(Error::Config(format!(
                    "port {port} is given to two services; choose another for one"
                )));
            }
        }
        Ok(())
    }
}

/// The placement driver's configuration from a file and flags.
pub fn load_pd(args: &PdArgs) -> Result<rutile_pd::Config> {
    let mut config: rutile_pd::Config = read(args.common.config.as_deref())?;
    set(&mut config.name, &args.name);
    set(&mut config.data_dir, &args.data_dir);
    set(&mut config.client_addr, &args.client_addr);
    set(&mut config.advertise_client_addr, &args.advertise_client_addr);
    set(&mut config.peer_addr, &args.peer_addr);
    set(&mut config.initial_cluster, &args.initial_cluster);
    config.validate()?;
    Ok(config)
}

/// A store's configuration from a file and flags.
pub fn load_kv(args: &KvArgs) -> Result<rutile_kv::Config> {
    let mut config: rutile_kv::Config = read(args.common.config.as_deref())?;
    set(&mut config.data_dir, &args.data_dir);
    set(&mut config.addr, &args.addr);
    set(&mut config.advertise_addr, &args.advertise_addr);
    set(&mut config.status_addr, &args.status_addr);
    for label in &args.labels {
        let Some((key, value)) = label.split_once('=') else {
            return Err(Error::Config(format!("--labels must read key=value, not \"{label}\"")));
        };
        config.labels.insert(key.trim().into(), value.trim().into());
    }
    config.validate().map_err(|e| Error::Config(e.to_string()))?;
    Ok(config)
}

/// A SQL server's configuration from a file and flags.
pub fn load_sql(args: &SqlArgs) -> Result<rutile_sql::config::Config> {
    let mut config: rutile_sql::config::Config = read(args.common.config.as_deref())?;
    for (field, flag, name) in [
        (&mut config.addr, &args.addr, "--addr"),
        (&mut config.status_addr, &args.status_addr, "--status-addr"),
    ] {
        if let Some(text) = flag {
            *field = ports::resolve(text).map_err(|e| Error::Config(format!("{name} {text}: {e}")))?;
        }
    }
    config.validate().map_err(Error::Config)?;
    Ok(config)
}

/// Reads a TOML file; no file gives the defaults.
pub fn read<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T> {
    let Some(path) = path else { return Ok(T::default()) };
    let fail = |reason: String| Error::Config(format!("configuration file {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    toml::from_str(&text).map_err(|e| {
        let line =
            e.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
        fail(line.map_or_else(|| e.message().to_string(), |line| format!("line {line}: {}", e.message())))
    })
}

/// Prints a configuration with all its defaults, as a file that can be read back.
pub fn print<T: Serialize>(config: &T) -> Result<()> {
    let text = toml::to_string(config).map_err(|e| Error::Config(e.to_string()))?;
    print!("{text}");
    Ok(())
}

/// The log level of a process that is not the playground.
#[must_use]
pub fn log_level(common: &CommonArgs) -> &str {
    common.log_level.as_deref().unwrap_or("info")
}

fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        *field = value.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rutile.toml");
        std::fs::write(&path, "stores = 3\nsql-port = 4001\n[pd]\nname = 'p'\n").unwrap();
        let common = CommonArgs { config: Some(path.clone()), ..CommonArgs::default() };
        let args = PlaygroundArgs { common, sql_port: Some(4002), ..PlaygroundArgs::default() };
        let config = PlaygroundConfig::load(&args).unwrap();
        assert_eq!((config.stores, config.sql_port, config.pd.name.as_str()), (3, 4002, "p"));

        std::fs::write(&path, "stores = 1\n\n[kv.raft]\nteck = 1\n").unwrap();
        let error = PlaygroundConfig::load(&args).unwrap_err().to_string();
        assert!(error.contains("teck") && error.contains("line 4"), "{error}");
    }

    #[test]
    fn every_default_is_printed_and_read_back() {
        let text = toml::to_string(&PlaygroundConfig::default()).unwrap();
        assert_eq!(toml::from_str::<PlaygroundConfig>(&text).unwrap(), PlaygroundConfig::default());
    }

    #[test]
    fn one_port_for_two_services_is_refused() {
        let args = PlaygroundArgs { sql_port: Some(20161), kv: Some(3), ..PlaygroundArgs::default() };
        assert!(PlaygroundConfig::load(&args).unwrap_err().to_string().contains("20161"));
        let args = PlaygroundArgs { kv: Some(0), ..PlaygroundArgs::default() };
        assert!(PlaygroundConfig::load(&args).is_err());
    }
}
