//! Stores as nodes with ports, and short ways to ask them for something.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::eraftpb::ConfChangeType;
use rutile_kv::config::{Config, Span};
use rutile_kv::pd_client::PdClient;
use rutile_kv::raftstore::RaftKv;
use rutile_kv::server::node::Node;
use rutile_proto::ids::Timestamp;
use rutile_proto::key::txn_pd_key;
use rutile_proto::kvrpcpb::{self, *};
use rutile_proto::metapb;

use super::MemoryPd;
use super::cluster::wait_until;

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// Nodes 0, 1, 2, … and their placement driver.
pub struct Nodes {
    pub pd: MemoryPd,
    pub nodes: Vec<Node>,
    _dirs: Vec<tempfile::TempDir>,
}

/// A store that serves gRPC on a free port.
pub async fn start_node(dir: &Path, pd: &MemoryPd, configure: impl Fn(&mut Config)) -> Node {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = super::config(dir);
    config.addr = listener.local_addr().unwrap().to_string();
    config.raft.tick = Span::ms(30);
    configure(&mut config);
    let node = Node::start(config, Arc::new(pd.clone())).await.unwrap();
    node.serve_grpc(listener).unwrap();
    node
}

pub fn put(key: &str, value: &str) -> Mutation {
    Mutation {
        op: Op::Put as i32,
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

impl Nodes {
    /// Starts `n` nodes with peers of the first region on all of them.
    pub async fn start(n: usize, configure: impl Fn(&mut Config)) -> Self {
        let pd = MemoryPd::new(7);
        let dirs: Vec<_> = (0..n).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut nodes = Vec::new();
        for dir in &dirs {
            nodes.push(start_node(dir.path(), &pd, &configure).await);
        }
        let all = Nodes { pd, nodes, _dirs: dirs };
        let region = all.nodes[0].raft().region_of_key(b"").unwrap();
        for node in &all.nodes[1..] {
            let id = all.pd.alloc_ids(1).await.unwrap();
            let peer = metapb::Peer { id, store_id: node.store_id(), ..Default::default() };
            for kind in [ConfChangeType::AddLearnerNode, ConfChangeType::AddNode] {
                let change =
                    async || all.nodes[0].raft().change_peers(region.id, None, vec![(kind, peer)]).await;
                while change().await.is_err() {
                    tokio::time::sleep(POLL).await;
                }
            }
            wait_until("the new peer knows its region", || node.raft().region_of_key(b"").is_some()).await;
        }
        all
    }

    /// The node that leads the region of a key, with what a request to it carries.
    pub fn leader(&self, key: &str) -> Option<(usize, Context)> {
        let pd_key = txn_pd_key(key.as_bytes());
        (0..self.nodes.len()).find_map(|i| {
            let raft = self.nodes[i].raft();
            let region = raft.region_of_key(&pd_key)?;
            let ctx = raft.context_of(&region);
            raft.check(&ctx).ok().map(|_| (i, ctx))
        })
    }

    pub async fn wait_leader(&self, key: &str) -> (usize, Context) {
        wait_until(&format!("a node leads the region of {key}"), || self.leader(key).is_some()).await;
        self.leader(key).unwrap()
    }

    /// What a request to this node's peer carries.
    pub fn context(&self, i: usize, key: &str) -> Context {
        let raft = self.nodes[i].raft();
        raft.context_of(&raft.region_of_key(&txn_pd_key(key.as_bytes())).unwrap())
    }

    /// Cuts a region, and waits until all nodes have the piece that begins there.
    pub async fn split(&self, key: &str) {
        let cut = txn_pd_key(key.as_bytes());
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (leader, ctx) = self.wait_leader(key).await;
            if self.nodes[leader].raft().split(&ctx, vec![cut.clone().into()]).await.is_ok() {
                break;
            }
            assert!(Instant::now() < deadline, "the region of {key} is not split");
            tokio::time::sleep(POLL).await;
        }
        for node in &self.nodes {
            let begins = || node.raft().region_of_key(&cut).is_some_and(|r| r.start_key == cut);
            wait_until("all nodes have the split", begins).await;
        }
    }

    /// Hands the leadership of a key's region to a node.
    pub async fn lead(&self, key: &str, to: usize) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (leader, ctx) = self.wait_leader(key).await;
            if leader == to {
                return;
            }
            assert!(Instant::now() < deadline, "the leadership of {key} does not move");
            let raft = self.nodes[leader].raft();
            let region = raft.region_of_key(&txn_pd_key(key.as_bytes())).unwrap();
            let peer = region.peers.iter().find(|p| p.store_id == self.nodes[to].store_id()).unwrap();
            raft.transfer_leader(ctx.region_id, *peer);
            tokio::time::sleep(POLL * 10).await;
        }
    }

    pub async fn timestamp(&self) -> Timestamp {
        self.pd.timestamp().await.unwrap()
    }

    /// Prewrites at the leader, as often as it takes until a region answers.
    pub async fn prewrite(&self, key: &str, adjust: impl Fn(&mut PrewriteRequest)) -> PrewriteResponse {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (leader, ctx) = self.wait_leader(key).await;
            let mut request = PrewriteRequest {
                context: Some(ctx),
                mutations: vec![put(key, "value")],
                primary_lock: key.to_owned().into(),
                lock_ttl: 60_000,
                txn_size: 1,
                ..Default::default()
            };
            adjust(&mut request);
            let answer = self.nodes[leader].service().kv_prewrite(request).await;
            if answer.region_error.is_none() {
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// A transaction of one key in one phase. Returns its commit timestamp.
    pub async fn write(&self, key: &str, value: &str, start_ts: Timestamp) -> Timestamp {
        let one_phase = |request: &mut PrewriteRequest| {
            (request.start_version, request.try_one_pc) = (start_ts.0, true);
            request.mutations = vec![put(key, value)];
        };
        let answer = self.prewrite(key, one_phase).await;
        assert!(answer.errors.is_empty() && answer.one_pc_commit_ts > 0, "{answer:?}");
        Timestamp(answer.one_pc_commit_ts)
    }

    /// One read at a node; `adjust` says what kind of.
    pub async fn get(
        &self,
        i: usize,
        key: &str,
        ts: Timestamp,
        adjust: impl Fn(&mut Context),
    ) -> GetResponse {
        let mut context = self.context(i, key);
        adjust(&mut context);
        let request = GetRequest {
            context: Some(context),
            key: key.to_owned().into(),
            version: ts.0,
            ..Default::default()
        };
        self.nodes[i].service().kv_get(request).await
    }

    pub async fn shutdown(self) {
        for node in &self.nodes {
            node.shutdown().await;
        }
    }
}

/// The value of an answer without errors.
pub fn value(answer: &GetResponse) -> Option<Bytes> {
    assert!(answer.region_error.is_none() && answer.error.is_none(), "{answer:?}");
    (!answer.not_found).then(|| answer.value.clone())
}

/// What a pessimistic lock request carries.
pub fn lock_request(ctx: &Context, key: &str, start_ts: Timestamp) -> kvrpcpb::PessimisticLockRequest {
    PessimisticLockRequest {
        context: Some(ctx.clone()),
        mutations: vec![Mutation {
            op: Op::PessimisticLock as i32,
            key: key.to_owned().into(),
            ..Default::default()
        }],
        primary_lock: key.to_owned().into(),
        start_version: start_ts.0,
        for_update_ts: start_ts.0,
        lock_ttl: 60_000,
        wait_timeout: 0,
        ..Default::default()
    }
}
