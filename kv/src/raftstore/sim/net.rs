//! The network of a simulation: what is sent is kept here until it arrives, or not.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use rutile_proto::raft_serverpb::RaftMessage;

use crate::raftstore::{SnapshotSource, Transport};

/// Something on its way.
pub(super) struct Parcel {
    pub(super) due: u64,
    /// Of messages that are due at the same time the first one sent arrives first.
    pub(super) number: u64,
    pub(super) message: RaftMessage,
    pub(super) snapshot: Option<SnapshotSource>,
}

/// What the stores have sent since the network looked last.
pub(super) type Outbox = Arc<Mutex<Vec<(RaftMessage, Option<SnapshotSource>)>>>;

/// A store's end of the network.
pub(super) struct Sender(pub(super) Outbox);

impl Transport for Sender {
    fn send(&self, message: RaftMessage) {
        self.0.lock().push((message, None));
    }

    fn send_snapshot(&self, message: RaftMessage, source: SnapshotSource) {
        self.0.lock().push((message, Some(source)));
    }
}

/// The stores between which a message travels.
pub(super) fn ends(message: &RaftMessage) -> (u64, u64) {
    (message.from_peer.map_or(0, |p| p.store_id), message.to_peer.map_or(0, |p| p.store_id))
}

/// What happens to messages, in per mille.
#[derive(Clone, Copy, Default)]
pub(super) struct Noise {
    pub(super) drop: u32,
    pub(super) twice: u32,
    pub(super) late: u32,
}

/// The network.
#[derive(Default)]
pub(super) struct Net {
    pub(super) parcels: Vec<Parcel>,
    /// From store to store nothing arrives.
    pub(super) cut: Vec<(u64, u64)>,
    pub(super) noise: Noise,
    sent: u64,
}

impl Net {
    pub(super) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Takes a message over. Returns it when it is lost at once.
    pub(super) fn take(
        &mut self,
        rng: &mut StdRng,
        now: u64,
        message: RaftMessage,
        snapshot: Option<SnapshotSource>,
    ) -> Option<RaftMessage> {
        let (from, to) = ends(&message);
        if self.is_cut(from, to) || rng.random_ratio(self.noise.drop, 1000) {
            return Some(message);
        }
        if snapshot.is_none() && rng.random_ratio(self.noise.twice, 1000) {
            let delay = self.delay(rng);
            self.put(now + delay, message.clone(), None);
        }
        let delay = self.delay(rng);
        self.put(now + delay, message, snapshot);
        None
    }

    fn delay(&self, rng: &mut StdRng) -> u64 {
        if rng.random_ratio(self.noise.late, 1000) {
            return rng.random_range(1_000_000..300_000_000);
        }
        rng.random_range(50_000..1_500_000)
    }

    fn put(&mut self, due: u64, message: RaftMessage, snapshot: Option<SnapshotSource>) {
        self.sent += 1;
        self.parcels.push(Parcel { due, number: self.sent, message, snapshot });
    }

    /// What arrives now, in order.
    pub(super) fn due(&mut self, now: u64) -> Vec<Parcel> {
        let (mut due, kept): (Vec<_>, Vec<_>) = self.parcels.drain(..).partition(|p| p.due <= now);
        self.parcels = kept;
        due.sort_by_key(|p| (p.due, p.number));
        due
    }

    /// A store has crashed: the snapshots that it was sending are gone.
    pub(super) fn forget_snapshots_of(&mut self, store_id: u64) {
        self.parcels.retain(|p| p.snapshot.is_none() || ends(&p.message).0 != store_id);
    }
}
