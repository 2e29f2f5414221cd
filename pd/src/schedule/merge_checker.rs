//! Joins a small region with a small neighbour. First its replicas go where the neighbour's are, then it becomes part of it.

use std::collections::BTreeSet;

use rutile_proto::key::keyspace_bounds;

use super::proposal::{Goal, Kind, Proposal};
use super::view::ClusterView;
use crate::cluster::region_tree::RegionInfo;

/// What brings a region closer to being merged.
#[must_use]
pub fn check(view: &ClusterView<'_>, region: &RegionInfo, keyspace_ids: &[u32]) -> Option<Proposal> {
    if !is_small(view, region) {
        return None;
    }
    let after = (!region.meta.end_key.is_empty())
        .then(|| view.regions.by_key(&region.meta.end_key))
        .flatten()
        .filter(|next| next.meta.start_key == region.meta.end_key);
    let before = view.regions.before_key(&region.meta.start_key);
    let allowed =
        |bound: &[u8]| !keyspace_ids.iter().any(|id| keyspace_bounds(*id).iter().any(|b| b == bound));
    let next = after.filter(|next| is_small(view, next) && allowed(&next.meta.start_key));
    let previous = before.filter(|previous| is_small(view, previous) && allowed(&region.meta.start_key));
    let target = match (previous, next) {
        (Some(a), Some(b)) if b.approximate_size_bytes < a.approximate_size_bytes => b,
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => return None,
    };
    let fits = region.approximate_size_bytes + target.approximate_size_bytes
        <= view.config.max_merge_region_size_bytes * 2;
    // Of two neighbours that could merge into each other, the one with the larger id goes.
    let goes = region.meta.id > target.meta.id;
    if !fits || !goes {
        return None;
    }
    let stores =
        |region: &RegionInfo| -> BTreeSet<u64> { region.meta.peers.iter().map(|p| p.store_id).collect() };
    let (own, others) = (stores(region), stores(target));
    let goal = if own == others {
        Goal::MergeInto { target: target.meta.id }
    } else {
        Goal::Place { voters: others, leader: None }
    };
    Some(Proposal { region_id: region.meta.id, reason: "merge-small-region", kind: Kind::Merge, goal })
}

fn is_small(view: &ClusterView<'_>, region: &RegionInfo) -> bool {
    let config = view.config;
    view.is_healthy(region)
        && region.approximate_size_bytes <= config.max_merge_region_size_bytes
        && region.approximate_keys <= config.max_merge_region_keys
        && view.now_ms.saturating_sub(region.split_ms) >= config.split_merge_interval_s * 1000
}
