//! Stores as nodes with ports: raft messages and snapshots over gRPC.

mod support;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::ConfChangeType;
use rutile_kv::engine::Cf;
use rutile_kv::pd_client::PdClient;
use rutile_kv::raftstore::{Modify, RaftKv, WriteData};
use rutile_kv::server::node::Node;
use rutile_proto::metapb;
use support::MemoryPd;
use support::cluster::wait_until;

async fn start(dir: &Path, pd: &MemoryPd) -> Node {
    support::nodes::start_node(dir, pd, |_| ()).await
}

async fn put(nodes: &[Option<Node>], key: &str, value: &[u8]) {
    for _ in 0..400 {
        for node in nodes.iter().flatten() {
            let store = node.raft();
            let Some(region) = store.region_of_key(key.as_bytes()) else { continue };
            let put = Modify::Put(Cf::Default, Bytes::from(key.to_owned()), Bytes::copy_from_slice(value));
            let ctx = store.context_of(&region);
            let write = store.write(&ctx, WriteData::new(vec![put]));
            if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(2), write).await {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("no store takes a write");
}

async fn wait_value(node: &Node, key: &str, value: &[u8]) {
    let data_key = rutile_proto::key::data_key(key.as_bytes());
    wait_until(&format!("store {} has {key}", node.store_id()), || {
        node.raft().engine().get(Cf::Default, &data_key).unwrap().as_deref() == Some(value)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_replicate_over_the_network() {
    let pd = MemoryPd::new(7);
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = Vec::new();
    for dir in &dirs {
        nodes.push(Some(start(dir.path(), &pd).await));
    }
    put(&nodes, "first", b"v").await;
    let first = nodes[0].as_ref().unwrap();
    let region = first.raft().region_of_key(b"").unwrap();
    for node in nodes[1..].iter().flatten() {
        let id = pd.alloc_ids(1).await.unwrap();
        let peer = metapb::Peer { id, store_id: node.store_id(), ..Default::default() };
        for kind in [ConfChangeType::AddLearnerNode, ConfChangeType::AddNode] {
            let changed = async || first.raft().change_peers(region.id, None, vec![(kind, peer)]).await;
            while changed().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        wait_value(node, "first", b"v").await;
    }
    put(&nodes, "second", b"v").await;
    for node in nodes.iter().flatten() {
        wait_value(node, "second", b"v").await;
    }

    // Away for longer than the log reaches, and back at another address.
    nodes[2].take().unwrap().shutdown().await;
    for i in 0..100 {
        put(&nodes, &format!("k{i}"), &[b'x'; 20_000]).await;
    }
    for node in nodes.iter().flatten() {
        node.raft().engine().flush().unwrap();
        node.raft().truncate_logs();
    }
    put(&nodes, "cut", b"v").await;
    nodes[2] = Some(start(dirs[2].path(), &pd).await);
    let back = nodes[2].as_ref().unwrap();
    wait_value(back, "k99", &[b'x'; 20_000]).await;
    wait_value(back, "cut", b"v").await;

    // Two of three go on without the first, whoever led.
    nodes[0].take().unwrap().shutdown().await;
    put(&nodes, "after", b"v").await;
    for node in nodes.iter().flatten() {
        wait_value(node, "after", b"v").await;
    }
    for node in nodes.into_iter().flatten() {
        node.shutdown().await;
    }
}
