//! Region errors, as clients get them. Who answers what: kvproto-facts §3.3.

use rutile_proto::errorpb::{self, Error};
use rutile_proto::metapb;

/// This store has no such region.
pub fn region_not_found(region_id: u64) -> Error {
    Error {
        message: format!("region {region_id} not found"),
        region_not_found: Some(errorpb::RegionNotFound { region_id }),
        ..Default::default()
    }
}

/// Another peer leads, or none.
pub fn not_leader(region_id: u64, leader: Option<metapb::Peer>) -> Error {
    Error {
        message: format!("peer is not leader of region {region_id}"),
        not_leader: Some(errorpb::NotLeader { region_id, leader }),
        ..Default::default()
    }
}

/// The request was for another store.
pub fn store_not_match(request_store_id: u64, actual_store_id: u64) -> Error {
    Error {
        message: format!("request for store {request_store_id} at store {actual_store_id}"),
        store_not_match: Some(errorpb::StoreNotMatch { request_store_id, actual_store_id }),
        ..Default::default()
    }
}

/// The request was for another peer of the region.
pub fn mismatch_peer_id(request_peer_id: u64, store_peer_id: u64) -> Error {
    Error {
        message: format!("request for peer {request_peer_id} at peer {store_peer_id}"),
        mismatch_peer_id: Some(errorpb::MismatchPeerId { request_peer_id, store_peer_id }),
        ..Default::default()
    }
}

/// The request is of an earlier leadership, or its proposal was overwritten by another leader.
pub fn stale_command() -> Error {
    Error {
        message: "stale command".to_owned(),
        stale_command: Some(errorpb::StaleCommand {}),
        ..Default::default()
    }
}

/// The region was split or merged since; it and those that were split off it follow.
pub fn epoch_not_match(region_id: u64, current_regions: Vec<metapb::Region>) -> Error {
    Error {
        message: format!("epoch of region {region_id} does not match"),
        epoch_not_match: Some(errorpb::EpochNotMatch { current_regions }),
        ..Default::default()
    }
}

/// The key lies outside the region.
pub fn key_not_in_region(key: bytes::Bytes, region: &metapb::Region) -> Error {
    Error {
        message: format!("key is not in region {}", region.id),
        key_not_in_region: Some(errorpb::KeyNotInRegion {
            key,
            region_id: region.id,
            start_key: region.start_key.clone(),
            end_key: region.end_key.clone(),
        }),
        ..Default::default()
    }
}

/// Too much is waiting already.
pub fn server_is_busy(reason: &str) -> Error {
    Error {
        message: format!("server is busy: {reason}"),
        server_is_busy: Some(errorpb::ServerIsBusy {
            reason: reason.to_owned(),
            backoff_ms: 10,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The region waits to be merged into another.
pub fn merging(region_id: u64) -> Error {
    Error {
        message: format!("region {region_id} is being merged"),
        proposal_in_merging_mode: Some(errorpb::ProposalInMergingMode { region_id }),
        ..Default::default()
    }
}

/// There is too little room on the disk for writes; reads go on.
pub fn disk_full(store_id: u64) -> Error {
    Error {
        message: format!("the disk of store {store_id} is full: no writes until there is room"),
        disk_full: Some(errorpb::DiskFull {
            store_id: vec![store_id],
            reason: "too little room on the disk".to_owned(),
        }),
        ..Default::default()
    }
}

/// The write does not fit into one raft log entry.
pub fn raft_entry_too_large(region_id: u64, entry_size: u64) -> Error {
    Error {
        message: format!("raft entry of {entry_size} bytes is too large"),
        raft_entry_too_large: Some(errorpb::RaftEntryTooLarge { region_id, entry_size }),
        ..Default::default()
    }
}

/// The write may or may not take effect.
pub fn undetermined(why: &str) -> Error {
    Error {
        message: why.to_owned(),
        undetermined_result: Some(errorpb::UndeterminedResult { message: why.to_owned() }),
        ..Default::default()
    }
}

/// Anything that no field tells; clients reload the region and try again.
pub fn other(message: impl Into<String>) -> Error {
    Error { message: message.into(), ..Default::default() }
}
