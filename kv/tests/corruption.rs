//! Broken files: a store refuses to start and names the file, or it tolerates what a crash leaves; it never loses what it acknowledged.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rutile_kv::config::Config;
use support::{MemoryPd, TestStore, config};

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn flip(path: &Path, byte: usize, bit: u8) {
    let mut data = fs::read(path).unwrap();
    data[byte] ^= 1 << bit;
    fs::write(path, data).unwrap();
}

const ENTRIES: usize = 40;

/// A directory as a killed store leaves it: nothing flushed, everything acknowledged in the log.
async fn killed(dir: &Path) -> (Config, MemoryPd) {
    let (config, pd) = (config(dir), MemoryPd::new(7));
    let store = TestStore::start(&config, &pd).await;
    for i in 0..ENTRIES {
        store.put(format!("k{i:02}").as_bytes(), &[b'a' + (i % 26) as u8; 100]).await;
    }
    // As it is on disk while the store runs: preallocated, with zeros behind the last record.
    let copy = dir.with_extension("copy");
    copy_dir(dir, &copy);
    store.crash().await;
    fs::remove_dir_all(dir).unwrap();
    fs::rename(copy, dir).unwrap();
    (config, pd)
}

async fn count(store: &TestStore) -> usize {
    let mut found = 0;
    for i in 0..ENTRIES {
        found += usize::from(store.get(format!("k{i:02}").as_bytes()).await.is_some());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_of_the_raft_log_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let original = base.path().join("original");
    let (config, pd) = killed(&original).await;
    let log = files(&original.join("raft"), "raftlog").pop().unwrap();
    let used = fs::read(&log).unwrap().iter().rposition(|b| *b != 0).unwrap() + 1;
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..30 {
        let dir = base.path().join(format!("flip{round}"));
        copy_dir(&original, &dir);
        let path = dir.join("raft").join(log.file_name().unwrap());
        // Also the very last record, which a careless recovery would take for a torn one.
        let byte = if round < 10 { used - 1 - round * 7 } else { rng.random_range(0..used) };
        flip(&path, byte, rng.random_range(0..8));
        let config = Config { data_dir: dir, ..config.clone() };
        match TestStore::try_start(&config, &pd).await {
            Err(error) => assert!(error.contains(&*path.to_string_lossy()), "{error}"),
            Ok(_) => panic!("a flip of byte {byte} of {used} went unnoticed"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_tolerated_and_a_hole_is_not() {
    let base = tempfile::tempdir().unwrap();
    let original = base.path().join("original");
    let (config, pd) = killed(&original).await;
    let log = files(&original.join("raft"), "raftlog").pop().unwrap();
    let data = fs::read(&log).unwrap();
    let used = data.iter().rposition(|b| *b != 0).unwrap() + 1;
    let start = |name: &str, data: Vec<u8>| {
        let dir = base.path().join(name);
        copy_dir(&original, &dir);
        fs::write(dir.join("raft").join(log.file_name().unwrap()), data).unwrap();
        let (config, pd) = (Config { data_dir: dir, ..config.clone() }, pd.clone());
        async move { TestStore::try_start(&config, &pd).await }
    };
    // Another append was on its way: its first bytes are there, the rest is not.
    let mut torn = data.clone();
    let record: Vec<u8> = data[used - 150..used].iter().map(|b| b ^ 0x5A).collect();
    let header = (1500_u64 << 8).to_be_bytes();
    torn[used..used + 8].copy_from_slice(&header);
    torn[used + 8..used + 16].copy_from_slice(&1400_u64.to_be_bytes());
    torn[used + 16..used + 166].copy_from_slice(&record);
    let store = start("torn", torn).await.unwrap();
    assert_eq!(count(&store).await, ENTRIES);
    store.close().await;
    // The file ends inside the last append.
    let store = start("cut", data[..used - 20].to_vec()).await.unwrap();
    assert!(count(&store).await >= ENTRIES - 1);
    store.close().await;
    // Bytes in the middle are gone.
    let mut hole = data.clone();
    hole[used / 2..used / 2 + 64].fill(0);
    let error = start("hole", hole).await.err().unwrap();
    assert!(error.contains("raftlog"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_stop_every_byte_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let (config, pd) = (config(dir.path()), MemoryPd::new(7));
    let store = TestStore::start(&config, &pd).await;
    store.put(b"k00", b"v").await;
    store.close().await;
    let log = files(&dir.path().join("raft"), "raftlog").pop().unwrap();
    let data = fs::read(&log).unwrap();
    fs::write(&log, &data[..data.len() - 1]).unwrap();
    let error = TestStore::try_start(&config, &pd).await.err().unwrap();
    assert!(error.contains(&*log.to_string_lossy()), "{error}");
    fs::write(&log, &data).unwrap();
    TestStore::start(&config, &pd).await.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_table_file_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let original = base.path().join("original");
    let (config, pd) = (config(&original), MemoryPd::new(7));
    let store = TestStore::start(&config, &pd).await;
    for i in 0..ENTRIES {
        store.put(format!("k{i:02}").as_bytes(), &[b'v'; 200]).await;
    }
    store.close().await;
    let largest = files(&original.join("db"), "sst")
        .into_iter()
        .max_by_key(|p| fs::metadata(p).unwrap().len())
        .unwrap();
    let size = fs::metadata(&largest).unwrap().len() as usize;
    let name = largest.file_name().unwrap();
    for (i, byte) in [10, size / 3, size - 60].into_iter().enumerate() {
        let dir = base.path().join(format!("flip{i}"));
        copy_dir(&original, &dir);
        flip(&dir.join("db").join(name), byte, 3);
        let error =
            TestStore::try_start(&Config { data_dir: dir, ..config.clone() }, &pd).await.err().unwrap();
        assert!(error.contains(&*name.to_string_lossy()), "byte {byte}: {error}");
    }
    let dir = base.path().join("cut");
    copy_dir(&original, &dir);
    let path = dir.join("db").join(name);
    let data = fs::read(&path).unwrap();
    fs::write(&path, &data[..size / 2]).unwrap();
    let error = TestStore::try_start(&Config { data_dir: dir, ..config.clone() }, &pd).await.err().unwrap();
    assert!(error.contains(&*name.to_string_lossy()), "{error}");
    let dir = base.path().join("gone");
    copy_dir(&original, &dir);
    fs::remove_file(dir.join("db").join(name)).unwrap();
    let error = TestStore::try_start(&Config { data_dir: dir, ..config.clone() }, &pd).await.err().unwrap();
    assert!(error.contains(&*name.to_string_lossy()), "{error}");
}
