//! One look at the cluster by all checkers and schedulers.

use std::collections::BTreeSet;

use super::config::{self, ScheduleConfig};
use super::controller::Controller;
use super::hot_region::{self, Flow};
use super::proposal::{Kind, Proposal};
use super::view::ClusterView;
use super::{balance_leader, balance_region, merge_checker, replica_checker};

/// Regions that the checkers look at in one go.
pub const REGIONS_MAX: usize = 4096;
/// Proposals of one balance scheduler in one go.
const BALANCE_MAX: usize = 32;

/// What all of them propose, at most one for a region. `seed` chooses where they look first.
#[must_use]
pub fn propose(
    cluster: &mut ClusterView<'_>,
    controller: &Controller,
    keyspace_ids: &[u32],
    seed: u64,
) -> Vec<Proposal> {
    let config = cluster.config;
    let is_open = |kind: Kind, name: &str| config.is_on(name) && controller.has_room(kind, config);
    let mut found = check_regions(cluster, config, &is_open, keyspace_ids, seed);
    if is_open(Kind::Region, config::BALANCE_REGION) {
        found.extend(balance_region::schedule(cluster, seed, BALANCE_MAX));
    }
    if is_open(Kind::Leader, config::BALANCE_LEADER) {
        found.extend(balance_leader::schedule(cluster, seed, config.leader_schedule_limit));
    }
    if is_open(Kind::Hot, config::HOT_REGION) {
        found.extend(hot_region::schedule(cluster, Flow::Write));
        found.extend(hot_region::schedule(cluster, Flow::Read));
    }
    let mut regions = BTreeSet::new();
    found.retain(|proposal| regions.insert(proposal.region_id));
    found
}

fn check_regions(
    cluster: &mut ClusterView<'_>,
    config: &ScheduleConfig,
    is_open: &impl Fn(Kind, &str) -> bool,
    keyspace_ids: &[u32],
    seed: u64,
) -> Vec<Proposal> {
    let mut found: Vec<Proposal> = Vec::new();
    let (replicas, merges) = (is_open(Kind::Replica, config::REPLICA), is_open(Kind::Merge, config::MERGE));
    let (mut replicas_left, mut merges_left) = (config.replica_schedule_limit, config.merge_schedule_limit);
    let regions: Vec<_> = cluster.regions_from(seed).take(REGIONS_MAX).cloned().collect();
    for region in regions {
        let mut proposal = None;
        if replicas && replicas_left > 0 {
            proposal = replica_checker::check(cluster, &region);
            replicas_left -= usize::from(proposal.is_some());
        }
        if proposal.is_none() && merges && merges_left > 0 {
            proposal = merge_checker::check(cluster, &region, keyspace_ids);
            merges_left -= usize::from(proposal.is_some());
        }
        if let Some(proposal) = proposal {
            cluster.take(&region, &proposal);
            found.push(proposal);
        }
    }
    found
}
