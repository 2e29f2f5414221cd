//! Which peers of a region a read is sent to.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rutile_proto::ids::StoreId;
use rutile_proto::kvrpcpb::Context;
use rutile_proto::metapb;

use crate::region_cache::Region;

/// A store that did not answer is left alone for so long.
const AVOID: Duration = Duration::from_secs(5);

/// Who serves reads. All but stale reads see every commit that was acknowledged before; whoever cannot serve one, the leader does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// The leader.
    #[default]
    Leader,
    /// A peer that does not lead: it asks the leader up to where it must have applied.
    Follower,
    /// Any peer.
    Any,
    /// Any peer, without asking the leader: for timestamps of some seconds ago, up to which nothing changes any more.
    Stale,
}

impl ReadFrom {
    /// The peer to try before the leader.
    pub(crate) fn choose<'a>(self, region: &'a Region, avoided: &Avoided) -> Option<&'a metapb::Peer> {
        if self == ReadFrom::Leader {
            return None;
        }
        let leader = region.leader().id;
        let may = |peer: &&metapb::Peer| {
            let serves = !peer.is_witness && peer.role() != metapb::PeerRole::IncomingVoter;
            serves && (self != ReadFrom::Follower || peer.id != leader) && !avoided.contains(peer.store_id)
        };
        let count = region.peers().iter().filter(may).count();
        let chosen = region.peers().iter().filter(may).nth(rand::random_range(0..count.max(1)))?;
        (chosen.id != leader || self == ReadFrom::Stale).then_some(chosen)
    }

    /// What a request to such a peer says.
    pub(crate) fn mark(self, context: &mut Context) {
        match self {
            ReadFrom::Leader => {}
            ReadFrom::Follower | ReadFrom::Any => context.replica_read = true,
            ReadFrom::Stale => context.stale_read = true,
        }
    }
}

/// Stores that did not answer lately.
#[derive(Default)]
pub(crate) struct Avoided(Mutex<HashMap<u64, Instant>>);

impl Avoided {
    fn contains(&self, store_id: u64) -> bool {
        let mut stores = self.0.lock();
        match stores.get(&store_id) {
            Some(since) if since.elapsed() < AVOID => true,
            Some(_) => {
                stores.remove(&store_id);
                false
            }
            None => false,
        }
    }

    pub(crate) fn add(&self, store: StoreId) {
        self.0.lock().insert(store.get(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        let peers =
            (1..=3).map(|store_id| metapb::Peer { id: 10 + store_id, store_id, ..Default::default() });
        let meta = metapb::Region {
            id: 1,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: peers.collect(),
            ..Default::default()
        };
        Region::new(meta, Some(&metapb::Peer { id: 12, ..Default::default() })).unwrap()
    }

    #[test]
    fn who_is_chosen() {
        let (region, avoided) = (region(), Avoided::default());
        let chosen = |from: ReadFrom| -> std::collections::BTreeSet<Option<u64>> {
            (0..200).map(|_| from.choose(&region, &avoided).map(|peer| peer.store_id)).collect()
        };
        assert_eq!(chosen(ReadFrom::Leader), [None].into());
        assert_eq!(chosen(ReadFrom::Follower), [Some(1), Some(3)].into());
        assert_eq!(chosen(ReadFrom::Any), [None, Some(1), Some(3)].into());
        assert_eq!(chosen(ReadFrom::Stale), [Some(1), Some(2), Some(3)].into());
        avoided.add(StoreId::new(1).unwrap());
        assert_eq!(chosen(ReadFrom::Follower), [Some(3)].into());
        avoided.add(StoreId::new(3).unwrap());
        assert_eq!(chosen(ReadFrom::Follower), [None].into());
    }
}
