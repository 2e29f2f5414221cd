//! Which store a replica should be on: as far from the other replicas as the location labels allow, then where there is
//! the least.

use std::collections::BTreeMap;

use super::view::{ClusterView, StoreView};
use crate::cluster::region_tree::RegionInfo;

/// How far apart two stores are: the widest label that differs counts most. Missing labels are all the same place.
#[must_use]
pub fn distance(labels: &[String], a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> u64 {
    let differs = labels.iter().position(|label| a.get(label) != b.get(label));
    differs.map_or(0, |at| 100u64.pow((labels.len() - at - 1).min(9) as u32))
}

/// How far a store is from the other stores of a region.
#[must_use]
pub fn isolation<'a>(
    labels: &[String],
    store: &StoreView,
    others: impl Iterator<Item = &'a StoreView>,
) -> u64 {
    others
        .filter(|other| other.id != store.id)
        .map(|other| distance(labels, &store.labels, &other.labels))
        .sum()
}

/// The best store for one more replica beside those on `staying`: no peer of the region is there, it may take one, it is
/// the farthest from the others, and has the fewest peers. Second value: how far it is.
#[must_use]
pub fn best_store<'a>(
    view: &'a ClusterView<'_>,
    region: &RegionInfo,
    staying: &[u64],
) -> Option<(&'a StoreView, u64)> {
    let labels = &view.config.location_labels;
    let held = |id: u64| region.meta.peers.iter().any(|peer| peer.store_id == id) || staying.contains(&id);
    view.stores
        .values()
        .filter(|store| store.can_take_peer(view.config) && !held(store.id))
        .map(|store| {
            let others = staying.iter().filter_map(|id| view.stores.get(id));
            (store, isolation(labels, store, others))
        })
        .max_by(|(a, far_a), (b, far_b)| far_a.cmp(far_b).then(b.peers.cmp(&a.peers)).then(b.id.cmp(&a.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_difference_counts() {
        let labels = ["zone".to_owned(), "host".to_owned()];
        let at = |zone: &str, host: &str| {
            BTreeMap::from([("zone".to_owned(), zone.to_owned()), ("host".to_owned(), host.to_owned())])
        };
        assert_eq!(distance(&labels, &at("a", "1"), &at("b", "1")), 100);
        assert_eq!(distance(&labels, &at("a", "1"), &at("a", "2")), 1);
        assert_eq!(distance(&labels, &at("a", "1"), &at("a", "1")), 0);
        assert_eq!(distance(&labels, &BTreeMap::new(), &BTreeMap::new()), 0);
        assert_eq!(distance(&[], &at("a", "1"), &at("b", "2")), 0);
    }
}
