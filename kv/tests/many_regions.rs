//! Many regions on one store are cheap: idle, in memory, and at start. One test alone in its process, because it measures it.
#![allow(unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rutile_kv::raftstore::RaftKv;
use support::{MemoryPd, TestStore, config};

const REGIONS: usize = 10_000;
const PER_SPLIT: usize = 200;
const REGION_SIZE_BYTES_MAX: usize = 4096;
/// Less is called idle.
const IDLE_CPU_PERCENT: f64 = 2.5;

/// Bytes allocated and not freed.
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Time of all threads on a processor.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_regions_are_cheap() {
    let (dir, pd) = (tempfile::tempdir().unwrap(), MemoryPd::new(7));
    pd.forget_heartbeats();
    let config = config(dir.path());
    let store = TestStore::start(&config, &pd).await;
    let keys: Vec<String> = (0..REGIONS).map(|i| format!("k{i:06}")).collect();
    for some in keys.chunks(PER_SPLIT) {
        let some: Vec<&[u8]> = some.iter().map(String::as_bytes).collect();
        store.split(&some).await;
    }
    assert_eq!(store.store.regions().len(), REGIONS + 1);
    store.close().await;

    let before = LIVE.load(Ordering::Relaxed);
    let start = Instant::now();
    let store = TestStore::start(&config, &pd).await;
    let took = start.elapsed();
    assert!(store.store.regions().iter().all(|(_, leads)| *leads));

    // Once the first heartbeats are out and the regions rest, nothing goes on.
    let (mut last, mut idle, mut each) = (cpu(), f64::MAX, usize::MAX);
    for _ in 0..60 {
        let at = Instant::now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        idle = (cpu() - last).as_secs_f64() / at.elapsed().as_secs_f64() * 100.0;
        last = cpu();
        each = LIVE.load(Ordering::Relaxed).saturating_sub(before) / REGIONS;
        if idle < IDLE_CPU_PERCENT && each < REGION_SIZE_BYTES_MAX {
            break;
        }
    }
    println!("{REGIONS} regions: start {took:?}, {each} bytes each, {idle:.1} % of a core when idle");
    assert!(each < REGION_SIZE_BYTES_MAX, "{each} bytes for each region");
    store.put(b"k005000", b"v").await;
    assert_eq!(store.get(b"k005000").await.unwrap(), "v");
    store.close().await;
}
