//! What schedulers may do; kept in the replicated state, changed while the cluster runs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The schedulers that can be switched off, by name.
pub const SCHEDULERS: [&str; 5] = [BALANCE_LEADER, BALANCE_REGION, HOT_REGION, MERGE, REPLICA];
/// Evens out leaders.
pub const BALANCE_LEADER: &str = "balance-leader";
/// Evens out peers.
pub const BALANCE_REGION: &str = "balance-region";
/// Spreads regions that are read or written much.
pub const HOT_REGION: &str = "balance-hot-region";
/// Joins small neighbours.
pub const MERGE: &str = "merge-checker";
/// Keeps the number and the places of replicas.
pub const REPLICA: &str = "replica-checker";

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScheduleConfig {
    /// Replicas per region; never more than there are stores to hold them.
    pub max_replicas: u32,
    /// Store labels that tell places apart, from the widest (zone) to the narrowest (host).
    pub location_labels: Vec<String>,
    /// Operators under way that only move leaders.
    pub leader_schedule_limit: usize,
    /// Operators under way that move peers to even them out.
    pub region_schedule_limit: usize,
    /// Operators under way that repair replicas.
    pub replica_schedule_limit: usize,
    /// Operators under way for hot regions.
    pub hot_region_schedule_limit: usize,
    /// Merges under way.
    pub merge_schedule_limit: usize,
    /// Peers being added to one store, or removed from it.
    pub store_limit: usize,
    /// Snapshots that a store may be sending or receiving when it gets another peer.
    pub max_snapshot_count: u32,
    /// Larger regions are not merged.
    pub max_merge_region_size_bytes: u64,
    /// Regions with more keys are not merged.
    pub max_merge_region_keys: u64,
    /// A region is not merged for so long after it was split.
    pub split_merge_interval_s: u64,
    /// A store that was silent for so long is not given anything.
    pub store_disconnected_s: u64,
    /// The replicas of a store that was silent for so long are replaced.
    pub max_store_down_time_s: u64,
    /// A store with less free space is not given peers, in per cent; 8 GiB free are always enough.
    pub low_space_percent: u32,
    /// Stores count as even when they differ by less, in per cent of the average.
    pub tolerance_percent: u32,
    /// A region is hot from this flow on, in bytes per second.
    pub hot_region_bytes_per_s: u64,
    /// And when it stayed so over this number of heartbeats.
    pub hot_region_heartbeats: u32,
    /// Schedulers that are switched off.
    pub paused_schedulers: BTreeSet<String>,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        ScheduleConfig {
            max_replicas: 3,
            location_labels: Vec::new(),
            leader_schedule_limit: 16,
            region_schedule_limit: 64,
            replica_schedule_limit: 64,
            hot_region_schedule_limit: 4,
            merge_schedule_limit: 8,
            store_limit: 8,
            max_snapshot_count: 64,
            max_merge_region_size_bytes: 20 << 20,
            max_merge_region_keys: 200_000,
            split_merge_interval_s: 3600,
            store_disconnected_s: 20,
            max_store_down_time_s: 1800,
            low_space_percent: 10,
            tolerance_percent: 4,
            hot_region_bytes_per_s: 256 << 10,
            hot_region_heartbeats: 3,
            paused_schedulers: BTreeSet::new(),
        }
    }
}

impl ScheduleConfig {
    /// Refuses what cannot work.
    pub fn validate(&self) -> Result<(), String> {
        if self.max_replicas == 0 || self.max_replicas > 15 {
            return Err("max-replicas must be between 1 and 15".into());
        }
        if self.low_space_percent > 100 || self.tolerance_percent > 100 {
            return Err("a percentage must be between 0 and 100".into());
        }
        if self.store_disconnected_s == 0 || self.max_store_down_time_s < self.store_disconnected_s {
            return Err("max-store-down-time-s must not be less than store-disconnected-s".into());
        }
        if self.location_labels.iter().any(|label| label.is_empty() || label.contains(',')) {
            return Err("location-labels must be names of labels".into());
        }
        match self.paused_schedulers.iter().find(|name| !SCHEDULERS.contains(&name.as_str())) {
            Some(name) => {
                Err(format!("there is no scheduler \"{name}\"; there are {}", SCHEDULERS.join(", ")))
            }
            None => Ok(()),
        }
    }

    /// Whether a scheduler may work.
    #[must_use]
    pub fn is_on(&self, scheduler: &str) -> bool {
        !self.paused_schedulers.contains(scheduler)
    }

    /// Changes one setting, given as text; lists are separated by commas.
    pub fn set(&self, name: &str, text: &str) -> Result<Self, String> {
        let mut fields = serde_json::to_value(self).map_err(|e| e.to_string())?;
        let field = fields.get_mut(name).ok_or_else(|| format!("there is no setting \"{name}\""))?;
        *field = match field {
            serde_json::Value::Array(_) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(serde_json::Value::from).collect()
            }
            _ => {
                serde_json::from_str(text).map_err(|_| format!("{name} must be a number, not \"{text}\""))?
            }
        };
        let changed: Self = serde_json::from_value(fields).map_err(|e| format!("{name}: {e}"))?;
        changed.validate()?;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_by_name_and_type() {
        let config = ScheduleConfig::default();
        assert_eq!(config.set("max-replicas", "5").unwrap().max_replicas, 5);
        assert_eq!(config.set("location-labels", "zone, host").unwrap().location_labels, ["zone", "host"]);
        assert!(!config.set("paused-schedulers", "balance-region").unwrap().is_on(BALANCE_REGION));
        for (name, text, word) in [
            ("max-replicas", "0", "between 1 and 15"),
            ("max-replicas", "many", "must be a number"),
            ("max-replica", "3", "no setting"),
            ("paused-schedulers", "balance", "no scheduler"),
        ] {
            assert!(config.set(name, text).unwrap_err().contains(word), "{name} {text}");
        }
    }
}
