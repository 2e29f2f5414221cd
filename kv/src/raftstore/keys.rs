//! Local records in the raft column family.
//!
//! Shape: `0x01 ‖ region_id (8 B, big endian) ‖ kind (1 B)` = 10 B; all records of a region are neighbours.

/// First byte of local records.
const LOCAL_PREFIX: u8 = 0x01;
const APPLY_STATE: u8 = 0x01;
const REGION_STATE: u8 = 0x02;
/// Bounds of all local records of regions.
pub(crate) const REGIONS_MIN: &[u8] = &[LOCAL_PREFIX];
/// See [`REGIONS_MIN`].
pub(crate) const REGIONS_MAX: &[u8] = &[LOCAL_PREFIX + 1];

/// There since the store's identity was given; says that the table files belong to some raft logs.
pub(crate) const STORE_MARK: &[u8] = &[LOCAL_PREFIX - 1, 0x01];
/// The id of the first region of a cluster, on the store that made it.
pub(crate) const FIRST_REGION: &[u8] = &[LOCAL_PREFIX - 1, 0x02];

fn local_key(region_id: u64, kind: u8) -> [u8; 10] {
    let mut key = [LOCAL_PREFIX; 10];
    key[1..9].copy_from_slice(&region_id.to_be_bytes());
    key[9] = kind;
    key
}

/// Where a region's `RaftApplyState` is.
pub(crate) fn apply_state(region_id: u64) -> [u8; 10] {
    local_key(region_id, APPLY_STATE)
}

/// Where a region's `RegionLocalState` is.
pub(crate) fn region_state(region_id: u64) -> [u8; 10] {
    local_key(region_id, REGION_STATE)
}

/// The region whose `RegionLocalState` is at `key`, if one is.
pub(crate) fn region_of_state(key: &[u8]) -> Option<u64> {
    match key {
        [LOCAL_PREFIX, id @ .., REGION_STATE] => Some(u64::from_be_bytes(id.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        assert_eq!(region_of_state(&region_state(7)), Some(7));
        assert_eq!(region_of_state(&apply_state(7)), None);
        assert!(region_state(u64::MAX)[..] < *REGIONS_MAX && region_state(0)[..] > *REGIONS_MIN);
    }
}
