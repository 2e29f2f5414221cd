//! What a commit costs: run with `cargo test --release --test group_commit -- --ignored --nocapture`.

mod support;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rutile_kv::engine::Cf;
use rutile_kv::raftstore::{Modify, RaftKv, WriteData};
use support::{MemoryPd, TestStore, config};

const SPAN: Duration = Duration::from_secs(3);

async fn writes_per_second(store: &Arc<TestStore>, writers: u64) -> f64 {
    let (count, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let tasks: Vec<_> = (0..writers)
        .map(|w| {
            let (store, count) = (Arc::clone(store), Arc::clone(&count));
            tokio::spawn(async move {
                let ctx = store.ctx(b"k");
                let value = Bytes::from(vec![b'v'; 100]);
                let mut i = 0u64;
                while start.elapsed() < SPAN {
                    let key = format!("k{w:03}{i:08}").into_bytes();
                    let put = Modify::Put(Cf::Default, key.into(), value.clone());
                    store.store.write(&ctx, WriteData::new(vec![put])).await.unwrap();
                    i += 1;
                }
                count.fetch_add(i, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn syncs_per_second(dir: &std::path::Path) -> f64 {
    let mut file = File::create(dir.join("raw")).unwrap();
    file.write_all(&vec![0; 4 << 20]).unwrap();
    file.sync_all().unwrap();
    let mut file = File::options().write(true).open(dir.join("raw")).unwrap();
    let (mut count, start) = (0u64, Instant::now());
    while start.elapsed() < SPAN {
        file.write_all(&[1; 250]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn many_writers_share_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let raw = syncs_per_second(dir.path());
    let store = Arc::new(TestStore::start(&config(&dir.path().join("kv")), &MemoryPd::new(7)).await);
    let one = writes_per_second(&store, 1).await;
    let sixteen = writes_per_second(&store, 16).await;
    let many = writes_per_second(&store, 64).await;
    println!("raw sync {raw:.0}/s; 1 writer {one:.0}/s; 16 writers {sixteen:.0}/s; 64 writers {many:.0}/s");
    let (start, ctx) = (Instant::now(), store.ctx(b"k"));
    for _ in 0..100_000 {
        let snapshot = store.store.try_snapshot(&ctx).unwrap().unwrap();
        std::hint::black_box(snapshot.get(Cf::Default, b"k00000000001").unwrap());
    }
    println!("lease read {:.2} µs", start.elapsed().as_secs_f64() * 10.0);
    assert!(many > 8.0 * one, "64 writers should share syncs");
    Arc::into_inner(store).unwrap().close().await;
}
