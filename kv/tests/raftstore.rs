//! A store's replication with single-voter regions: reads, writes, splits, restarts, crashes.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rutile_kv::config::ByteSize;
use rutile_kv::engine::{Cf, IterOptions};
use rutile_kv::raftstore::{Modify, RaftKv, RegionEvent, RegionObserver, WriteData};
use rutile_proto::metapb;
use support::{MemoryPd, TestStore, config};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let store = TestStore::start(&config(dir.path()), &pd).await;
    store.put(b"k", b"v1").await;
    store.put(b"k", b"v2").await;
    assert_eq!(store.get(b"k").await.unwrap(), "v2");
    assert_eq!(store.get(b"nothing").await, None);
    let lease = store.store.try_snapshot(&store.ctx(b"k"));
    assert!(lease.is_some(), "a sole voter's lease holds once it has applied an entry of its term");

    let modifies = vec![
        Modify::Put(Cf::Write, "a".into(), "1".into()),
        Modify::Put(Cf::Write, "b".into(), "2".into()),
        Modify::Put(Cf::Write, "c".into(), "3".into()),
        Modify::Delete(Cf::Write, "a".into()),
        Modify::DeleteRange(Cf::Write, "c".into(), Bytes::new()),
    ];
    store.store.write(&store.ctx(b"a"), WriteData::new(modifies)).await.unwrap();
    let snapshot = store.store.snapshot(&store.ctx(b"a")).await.unwrap();
    let mut iter = snapshot.iter(Cf::Write, IterOptions::default());
    assert!(iter.seek(b"").unwrap());
    assert_eq!((iter.key(), iter.value()), (&b"b"[..], &b"2"[..]));
    assert!(!iter.next().unwrap());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_crashes_keep_acknowledged_writes() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let config = config(dir.path());
    let mut rng = StdRng::seed_from_u64(42);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for life in 0..12 {
        let store = TestStore::start(&config, &pd).await;
        for (key, value) in &model {
            assert_eq!(store.get(key).await.as_deref(), Some(&value[..]), "life {life}, key {key:?}");
        }
        for i in 0..rng.random_range(1..200) {
            let key = format!("key{:04}", rng.random_range(0..500)).into_bytes();
            let value = format!("{life}-{i}").into_bytes();
            store.put(&key, &value).await;
            model.insert(key, value);
        }
        if rng.random_bool(0.4) {
            let at = format!("key{:04}", rng.random_range(0..500));
            store.split(&[at.as_bytes()]).await;
            store.put(at.as_bytes(), b"after the split").await;
            model.insert(at.into_bytes(), b"after the split".to_vec());
        }
        match rng.random_range(0..4) {
            0 => store.close().await,
            1 => {
                store.engine.flush().unwrap();
                store.store.truncate_logs();
                store.put(b"key0000", b"after the cut").await;
                model.insert(b"key0000".to_vec(), b"after the cut".to_vec());
                store.crash().await;
            }
            _ => store.crash().await,
        }
    }
}

/// Waits until there are so many regions, and all have their leaders.
async fn all_lead(store: &TestStore, count: usize) {
    let done = || {
        let regions = store.store.regions();
        regions.len() == count && regions.iter().all(|(_, leads)| *leads)
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{} regions", store.store.regions().len());
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_under_concurrent_writes_lose_nothing() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let config = config(dir.path());
    let store = Arc::new(TestStore::start(&config, &pd).await);
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for i in 0..200 {
                    store
                        .put(format!("{:03}-{w}", i * 5 % 200).as_bytes(), format!("{w}{i}").as_bytes())
                        .await;
                }
            })
        })
        .collect();
    for at in (10..200).step_by(10) {
        store.split(&[format!("{at:03}").as_bytes()]).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    all_lead(&store, 20).await;
    let regions: Vec<_> = store.store.regions().into_iter().collect();
    assert!(regions.windows(2).all(|w| w[0].0.end_key == w[1].0.start_key), "the regions tile the key space");
    let read_all = async |store: &TestStore| {
        for w in 0..8 {
            for i in 160..200 {
                let key = format!("{:03}-{w}", i * 5 % 200);
                assert_eq!(store.get(key.as_bytes()).await.unwrap(), format!("{w}{i}"), "{key}");
            }
        }
    };
    read_all(&store).await;
    Arc::into_inner(store).unwrap().crash().await;
    let store = TestStore::start(&config, &pd).await;
    // What only memory held is applied again, splits among it.
    all_lead(&store, 20).await;
    read_all(&store).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_epochs_and_foreign_keys_are_refused() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let store = TestStore::start(&config(dir.path()), &pd).await;
    let old = store.ctx(b"x");
    let regions = store.split(&[b"m"]).await;
    assert_eq!(regions.len(), 2);
    let error = store.store.try_snapshot(&old).unwrap().unwrap_err().epoch_not_match.unwrap();
    let mut bounds: Vec<_> = error.current_regions.iter().map(|r| r.start_key.clone()).collect();
    bounds.sort();
    assert_eq!(bounds, ["", "m"], "the error tells of both pieces");
    let put = |key: &'static str| WriteData::new(vec![Modify::Put(Cf::Default, key.into(), "v".into())]);
    assert!(store.store.write(&old, put("x")).await.unwrap_err().epoch_not_match.is_some());
    assert!(store.store.write(&store.ctx(b"a"), put("x")).await.unwrap_err().key_not_in_region.is_some());
    assert_eq!(store.split(&[b"m"]).await.len(), 1, "a bound that is there already is no cut");
    store.close().await;
}

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl RegionObserver for Recorder {
    fn on_region_event(&self, event: &RegionEvent) {
        let text = match event {
            RegionEvent::BecameLeader { region, .. } => format!("leads {:?}", region.start_key),
            RegionEvent::Split { regions, .. } => format!("split into {}", regions.len()),
            other => format!("{other:?}"),
        };
        self.0.lock().push(text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_and_the_placement_driver_hear_of_events() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let store = TestStore::start(&config(dir.path()), &pd).await;
    let recorder = Arc::new(Recorder::default());
    store.store.observe(recorder.clone());
    assert_eq!(*recorder.0.lock(), ["leads b\"\""]);
    store.split(&[b"m"]).await;
    store.put(b"a", b"v").await;
    assert_eq!(recorder.0.lock()[1..], ["split into 2", "leads b\"\""]);
    for _ in 0..1000 {
        let told = pd.heartbeats.lock().iter().any(|h| h.region.as_ref().is_some_and(|r| r.end_key == "m"));
        if told && !pd.reported.lock().is_empty() {
            store.close().await;
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the placement driver heard nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_regions_split_by_themselves() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let mut config = config(dir.path());
    config.raft.region_size_max = ByteSize(256 << 10);
    config.raft.region_split_size = ByteSize(128 << 10);
    config.raft.split_check_diff = ByteSize(32 << 10);
    let store = TestStore::start(&config, &pd).await;
    for i in 0u32..1000 {
        let key = rutile_proto::codec::encoded_bytes(format!("key{i:05}").as_bytes());
        store.put(&key, &[b'v'; 1000]).await;
    }
    for _ in 0..1000 {
        if store.store.regions().len() >= 4 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let regions: Vec<Arc<metapb::Region>> = store.store.regions().into_iter().map(|(r, _)| r).collect();
    assert!(regions.len() >= 4, "{} regions", regions.len());
    for region in &regions[1..] {
        assert!(rutile_proto::codec::decode_bytes_exact(&region.start_key).is_ok());
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destroyed_ranges_stay_gone_after_a_crash() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let config = config(dir.path());
    let store = TestStore::start(&config, &pd).await;
    for key in [b"a", b"b", b"c"] {
        store.put(key, b"v").await;
    }
    store.store.unsafe_destroy_range(b"b", b"c").unwrap();
    store.crash().await;
    let store = TestStore::start(&config, &pd).await;
    assert!(store.get(b"a").await.is_some() && store.get(b"c").await.is_some());
    assert_eq!(store.get(b"b").await, None);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    TestStore::start(&config, &MemoryPd::new(7)).await.close().await;
    let error = TestStore::try_start(&config, &MemoryPd::new(8)).await.err().unwrap();
    assert!(error.contains("belongs to cluster 7, not to cluster 8"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_shrink_and_stay_usable() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let config = config(dir.path());
    let store = TestStore::start(&config, &pd).await;
    for i in 0..300 {
        store.put(format!("k{i}").as_bytes(), b"v").await;
    }
    store.store.truncate_logs();
    store.put(b"not flushed yet", b"v").await;
    store.engine.flush().unwrap();
    store.store.truncate_logs();
    store.put(b"last", b"v").await;
    store.crash().await;
    let store = TestStore::start(&config, &pd).await;
    for i in 0..300 {
        assert!(store.get(format!("k{i}").as_bytes()).await.is_some());
    }
    assert!(store.get(b"not flushed yet").await.is_some() && store.get(b"last").await.is_some());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_serves_reads() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    let mut config = config(dir.path());
    let store = TestStore::start(&config, &pd).await;
    store.put(b"k", b"v").await;
    store.close().await;
    config.raft.disk_reserve = ByteSize(u64::MAX);
    let store = TestStore::start(&config, &pd).await;
    let put = WriteData::new(vec![Modify::Put(Cf::Default, "k".into(), "w".into())]);
    let error = store.store.write(&store.ctx(b"k"), put).await.unwrap_err();
    assert!(error.disk_full.is_some() && error.message.contains("full"), "{error:?}");
    assert_eq!(store.get(b"k").await.unwrap(), "v");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_data_of_different_stores_are_refused() {
    let pd = MemoryPd::new(7);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        TestStore::start(&config(dir.path()), &pd).await.close().await;
    }
    std::fs::rename(one.path().join("db"), one.path().join("old")).unwrap();
    std::fs::rename(two.path().join("db"), one.path().join("db")).unwrap();
    let error = TestStore::try_start(&config(one.path()), &pd).await.err().unwrap();
    assert!(error.contains("does not belong together"), "{error}");
}
