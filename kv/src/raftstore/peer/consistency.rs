//! Peers compare their data: at one entry all compute a checksum, a later entry brings the leader's. A difference is reported, never
//! repaired: nobody knows which of them is right.

use super::Peer;
use crate::metrics;
use crate::raftstore::command;

/// A checksum computed here, or one that the leader sent, until the other has come.
#[derive(Default)]
pub(super) struct Checksums {
    own: Option<(u64, u64)>,
    leaders: Option<(u64, u64)>,
}

impl Checksums {
    /// Whether nothing waits for its counterpart.
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_none() && self.leaders.is_none()
    }
}

impl Peer {
    /// Lets all peers compute a checksum.
    pub(crate) fn check_consistency(&mut self) {
        if self.is_leader && !self.is_merging() {
            self.wake();
            let _ = self.raft.propose(Vec::new(), command::encode_compute_hash());
        }
    }

    /// This peer's checksum as of an index; a leader tells the others.
    pub(crate) fn on_hashed(&mut self, index: u64, hash: u64) {
        self.checksums.own = Some((index, hash));
        if self.is_leader && !self.is_merging() {
            self.wake();
            let _ = self.raft.propose(Vec::new(), command::encode_verify_hash(index, hash));
        }
        self.compare();
    }

    /// The leader's checksum as of an index.
    pub(crate) fn on_verify_hash(&mut self, index: u64, hash: u64) {
        self.checksums.leaders = Some((index, hash));
        self.compare();
    }

    fn compare(&mut self) {
        let (Some(own), Some(leaders)) = (self.checksums.own, self.checksums.leaders) else { return };
        if own.0 != leaders.0 {
            return;
        }
        self.checksums = Checksums::default();
        metrics::CONSISTENCY_CHECKS.inc();
        if own.1 != leaders.1 {
            metrics::CONSISTENCY_ERRORS.inc();
            tracing::error!(
                region_id = self.region.id,
                peer_id = self.peer.id,
                store_id = self.peer.store_id,
                index = own.0,
                "this replica's data differs from that of its leader"
            );
        }
    }
}
