//! Several stores in one process, joined by a network that a test can break.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::eraftpb::ConfChangeType;
use rutile_kv::config::{Config, Span};
use rutile_kv::engine::Cf;
use rutile_kv::raftstore::{Modify, RaftKv, WriteData};
use rutile_proto::metapb::{self, PeerRole};
use rutile_proto::{errorpb, kvrpcpb};

use super::net::Net;
use super::{MemoryPd, TestStore};

const TIMEOUT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(5);

struct Slot {
    config: Config,
    id: u64,
    store: Option<TestStore>,
    _dir: tempfile::TempDir,
}

/// A cluster of stores 0, 1, 2, …
pub struct Cluster {
    pub pd: MemoryPd,
    pub net: Net,
    slots: Vec<Slot>,
}

/// Waits until something holds; panics with its name when it takes too long.
pub async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        tokio::time::sleep(POLL).await;
    }
}

impl Cluster {
    /// Starts `n` stores; the first one has the only region, with one peer.
    pub async fn start(n: usize) -> Self {
        Self::start_with(n, |_| ()).await
    }

    pub async fn start_with(n: usize, configure: impl Fn(&mut Config)) -> Self {
        let mut cluster = Cluster { pd: MemoryPd::new(7), net: Net::new(), slots: Vec::new() };
        for _ in 0..n {
            cluster.add_store(&configure).await;
        }
        cluster
    }

    /// One more store.
    pub async fn add_store(&mut self, configure: impl Fn(&mut Config)) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let mut config = super::config(dir.path());
        config.raft.tick = Span::ms(25);
        config.raft.region_heartbeat_interval = Span::ms(300);
        config.raft.leaderless_max = Span::ms(1500);
        configure(&mut config);
        self.slots.push(Slot { config, id: 0, store: None, _dir: dir });
        let i = self.slots.len() - 1;
        self.restart(i).await;
        i
    }

    /// Starts a store that was stopped.
    pub async fn restart(&mut self, i: usize) {
        let net = self.net.clone();
        let slot = &mut self.slots[i];
        assert!(slot.store.is_none(), "store {i} runs");
        let store = TestStore::try_start_on(&slot.config, &self.pd, |id| net.transport(id)).await.unwrap();
        slot.id = store.store.store_id();
        slot.store = Some(store);
    }

    /// Stops a store in order.
    pub async fn stop(&mut self, i: usize) {
        self.slots[i].store.take().expect("runs").close().await;
    }

    /// Ends a store as if it were killed.
    pub async fn crash(&mut self, i: usize) {
        self.slots[i].store.take().expect("runs").crash().await;
    }

    pub fn store(&self, i: usize) -> &TestStore {
        self.slots[i].store.as_ref().expect("runs")
    }

    pub fn id(&self, i: usize) -> u64 {
        self.slots[i].id
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|i| self.slots[*i].store.is_some()).collect()
    }

    /// The store that leads the region of a key in the newest term, and the region as it knows it.
    pub fn leader(&self, key: &[u8]) -> Option<(usize, metapb::Region)> {
        let leads = |i: usize| {
            let store = &self.store(i).store;
            let region = store.region_of_key(key)?;
            let (region, term) = store.check(&store.context_of(&region)).ok()?;
            Some((term, i, (*region).clone()))
        };
        let newest = self.running().into_iter().filter_map(leads).max_by_key(|(term, ..)| *term);
        newest.map(|(_, i, region)| (i, region))
    }

    pub async fn wait_leader(&self, key: &[u8]) -> (usize, metapb::Region) {
        wait_until("the region has a leader", || self.leader(key).is_some()).await;
        self.leader(key).expect("just seen")
    }

    /// This store's peer of the region of a key, as it knows it.
    pub fn peer(&self, i: usize, key: &[u8]) -> Option<metapb::Peer> {
        let region = self.store(i).store.region_of_key(key)?;
        region.peers.iter().find(|p| p.store_id == self.id(i)).copied()
    }

    /// Proposes a change of members at the leader until it is applied.
    pub async fn change(&self, key: &[u8], changes: &[(ConfChangeType, metapb::Peer)]) -> metapb::Region {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (leader, region) = self.wait_leader(key).await;
            let store = &self.store(leader).store;
            match store.change_peers(region.id, region.region_epoch, changes.to_vec()).await {
                Ok(region) => return region,
                Err(error) => assert!(Instant::now() < deadline, "members do not change: {error:?}"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A new peer on a store: a learner first, then a voter.
    pub async fn add_peer(&self, key: &[u8], i: usize) -> metapb::Peer {
        let peer = self.new_peer(i).await;
        self.change(key, &[(ConfChangeType::AddLearnerNode, peer)]).await;
        self.change(key, &[(ConfChangeType::AddNode, peer)]).await;
        peer
    }

    pub async fn new_peer(&self, i: usize) -> metapb::Peer {
        use rutile_kv::pd_client::PdClient;
        let id = self.pd.alloc_ids(1).await.unwrap();
        metapb::Peer { id, store_id: self.id(i), ..Default::default() }
    }

    /// Peers on all stores for the region of a key, up to date.
    pub async fn replicate(&self, key: &[u8]) {
        for i in 0..self.slots.len() {
            if self.peer(i, key).is_none() {
                self.add_peer(key, i).await;
            }
        }
        self.put(b"replicated", b"yes").await;
        for i in 0..self.slots.len() {
            self.wait_value(i, b"replicated", Some(b"yes")).await;
        }
    }

    pub async fn remove_peer(&self, key: &[u8], i: usize) {
        let (_, region) = self.wait_leader(key).await;
        let peer = region.peers.iter().find(|p| p.store_id == self.id(i)).copied().expect("a member");
        self.change(key, &[(ConfChangeType::RemoveNode, peer)]).await;
    }

    /// Hands the leadership of a key's region to a store.
    pub async fn transfer(&self, key: &[u8], to: usize) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (leader, region) = self.wait_leader(key).await;
            if leader == to {
                return;
            }
            assert!(Instant::now() < deadline, "the leadership does not move");
            let peer = region.peers.iter().find(|p| p.store_id == self.id(to) && p.role() == PeerRole::Voter);
            if let Some(peer) = peer {
                self.store(leader).store.transfer_leader(region.id, *peer);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One attempt to write at a store.
    pub async fn try_put(&self, i: usize, key: &[u8], value: &[u8]) -> Result<(), errorpb::Error> {
        let store = &self.store(i).store;
        let put = Modify::Put(Cf::Default, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let Some(region) = store.region_of_key(key) else { return Err(errorpb::Error::default()) };
        store.write(&store.context_of(&region), WriteData::new(vec![put])).await
    }

    /// One attempt to read at a store; `replica`: also from a follower.
    pub async fn try_get(
        &self,
        i: usize,
        key: &[u8],
        replica: bool,
    ) -> Result<Option<Bytes>, errorpb::Error> {
        let store = &self.store(i).store;
        let Some(region) = store.region_of_key(key) else { return Err(errorpb::Error::default()) };
        let ctx = kvrpcpb::Context { replica_read: replica, ..store.context_of(&region) };
        let snapshot = store.snapshot(&ctx).await?;
        if !snapshot.contains(key) {
            return Err(errorpb::Error::default());
        }
        Ok(snapshot.get(Cf::Default, key).unwrap())
    }

    /// Writes at whoever leads, as often as it takes.
    pub async fn put(&self, key: &[u8], value: &[u8]) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some((leader, _)) = self.leader(key) {
                let put = tokio::time::timeout(Duration::from_secs(3), self.try_put(leader, key, value));
                if let Ok(Ok(())) = put.await {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "no store takes a write of {key:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Reads at whoever leads.
    pub async fn get(&self, key: &[u8]) -> Option<Bytes> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some((leader, _)) = self.leader(key) {
                let get = tokio::time::timeout(Duration::from_secs(3), self.try_get(leader, key, false));
                if let Ok(Ok(value)) = get.await {
                    return value;
                }
            }
            assert!(Instant::now() < deadline, "no store serves a read of {key:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// What a store's engine holds, whatever raft says.
    pub fn local(&self, i: usize, key: &[u8]) -> Option<Bytes> {
        self.store(i).engine.get(Cf::Default, &rutile_proto::key::data_key(key)).unwrap()
    }

    pub async fn wait_value(&self, i: usize, key: &[u8], value: Option<&[u8]>) {
        let what = format!("store {i} has {value:?} at {key:?}");
        wait_until(&what, || self.local(i, key).as_deref() == value).await;
    }

    /// Stops all stores in order.
    pub async fn shutdown(mut self) {
        for i in self.running() {
            self.stop(i).await;
        }
    }
}
