//! Gives every keyspace regions of its own.
//!
//! Why: clients walk region after region until one ends behind their range, so no user range may lie in the last region,
//! and no bound that a transactional client sees may lie inside a keyspace's prefix.

use bytes::Bytes;
use rutile_proto::key::keyspace_bounds;
use rutile_proto::metapb::Region;

/// Keys (PD form) at which a region must be split so that the keyspaces have regions of their own; in order.
#[must_use]
pub fn split_keys(region: &Region, keyspace_ids: &[u32]) -> Vec<Bytes> {
    let inside =
        |key: &Bytes| *key > region.start_key && (region.end_key.is_empty() || *key < region.end_key);
    let mut keys: Vec<Bytes> =
        keyspace_ids.iter().flat_map(|id| keyspace_bounds(*id)).filter(inside).collect();
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_region_is_cut_into_five_and_then_left_alone() {
        let whole = Region::default();
        let keys = split_keys(&whole, &[0]);
        assert_eq!(keys, keyspace_bounds(0));
        let bounds: Vec<Bytes> = [Bytes::new()].into_iter().chain(keys).chain([Bytes::new()]).collect();
        for pair in bounds.windows(2) {
            let part = Region { start_key: pair[0].clone(), end_key: pair[1].clone(), ..Default::default() };
            assert!(split_keys(&part, &[0]).is_empty());
        }
        assert_eq!(split_keys(&whole, &[0, 1]).len(), 6, "neighbours share a bound");
    }
}
