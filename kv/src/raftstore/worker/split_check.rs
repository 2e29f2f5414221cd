//! Splits regions that grew too large.
//!
//! What was written since the last look is an upper bound of the growth. Only when the bound exceeds the maximum is the region read
//! to measure it and to find the keys that cut it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ahash::AHashMap;
use bytes::Bytes;
use rutile_proto::metapb;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::engine::{Cf, IterOptions, Result};
use crate::metrics;
use crate::pd_client::PdClient;
use crate::raftstore::context::StoreContext;
use crate::raftstore::registry::data_range;
use crate::raftstore::{RegionSnapshot, split};

/// Looks at regions as the apply threads name them.
pub(super) async fn run(ctx: Arc<StoreContext>, pd: Arc<dyn PdClient>, mut checks: UnboundedReceiver<u64>) {
    // Region → its size when it was last read.
    let mut measured = AHashMap::new();
    while let Some(region_id) = checks.recv().await {
        let worker_ctx = Arc::clone(&ctx);
        let last = measured.get(&region_id).copied().unwrap_or(0);
        let check = tokio::task::spawn_blocking(move || check(&worker_ctx, region_id, last));
        let Ok(Ok(Some(found))) = check.await else { continue };
        measured.insert(region_id, found.size_bytes);
        metrics::SPLIT_SCANS.inc();
        let Some(handle) = ctx.registry.get(region_id) else { continue };
        handle.approximate_size.store(found.size_bytes, Ordering::Relaxed);
        if found.keys.is_empty() {
            continue;
        }
        let published = handle.published();
        match split::split(&ctx, &*pd, &published, found.keys).await {
            Ok(_) => {
                measured.remove(&region_id);
            }
            Err(error) => tracing::info!(region_id, ?error, "split by size has to wait"),
        }
    }
}

/// The key that cuts a region into halves of about the same size; `None` if it has too few keys.
pub(super) fn middle(ctx: &StoreContext, region: &Arc<metapb::Region>) -> Result<Option<Bytes>> {
    let snapshot = RegionSnapshot::new(Arc::new(ctx.engine.snapshot()), Arc::clone(region), 0);
    let (size, _) = measure(&snapshot, region, u64::MAX)?;
    let (_, keys) = measure(&snapshot, region, (size / 2).max(1))?;
    Ok(keys.into_iter().next())
}

struct Found {
    size_bytes: u64,
    keys: Vec<Bytes>,
}

/// Reads the region when it may be too large.
fn check(ctx: &StoreContext, region_id: u64, last_measured: u64) -> Result<Option<Found>> {
    let Some(handle) = ctx.registry.get(region_id) else { return Ok(None) };
    let written = handle.unchecked_bytes.swap(0, Ordering::Relaxed);
    handle.checking.store(false, Ordering::Release);
    let published = handle.published();
    let (start, end) = data_range(&published.region);
    let grown = handle.approximate_size.fetch_add(written, Ordering::Relaxed) + written;
    let bound = grown.max(ctx.engine.approximate_size_bytes(&start, &end));
    handle.approximate_size.store(bound, Ordering::Relaxed);
    let max = ctx.config.region_size_max.bytes();
    // A region just below the maximum is not read again before it could have grown by an eighth.
    if !published.is_leader || bound <= max || bound < last_measured + max / 8 {
        return Ok(None);
    }
    let snapshot =
        RegionSnapshot::new(Arc::new(ctx.engine.snapshot()), Arc::clone(&published.region), published.term);
    let (size_bytes, mut keys) = measure(&snapshot, &published.region, ctx.config.region_split_size.bytes())?;
    if size_bytes <= max {
        keys.clear();
    }
    Ok(Some(Found { size_bytes, keys }))
}

/// The size of a region, and the keys that cut it into pieces of `split_size` bytes.
fn measure(snapshot: &RegionSnapshot, region: &metapb::Region, split_size: u64) -> Result<(u64, Vec<Bytes>)> {
    let options = || IterOptions { skip_cache: true, ..Default::default() };
    let mut iters = [snapshot.iter(Cf::Default, options()), snapshot.iter(Cf::Write, options())];
    for iter in &mut iters {
        iter.seek_to_first()?;
    }
    let (mut size, mut piece) = (0, 0);
    let mut keys: Vec<Bytes> = Vec::new();
    loop {
        let next = match (iters[0].valid(), iters[1].valid()) {
            (true, true) => usize::from(iters[1].key() < iters[0].key()),
            (true, false) => 0,
            (false, true) => 1,
            (false, false) => break,
        };
        let iter = &mut iters[next];
        if piece >= split_size {
            let bound = split::split_bound(iter.key());
            let after = keys.last().unwrap_or(&region.start_key);
            if bound > *after && (region.end_key.is_empty() || bound < region.end_key) {
                keys.push(bound);
                piece = 0;
            }
        }
        let bytes = (iter.key().len() + iter.value().len()) as u64;
        size += bytes;
        piece += bytes;
        iter.next()?;
    }
    // No small remainder at the end.
    if piece < split_size / 2 && keys.len() > 1 {
        keys.pop();
    }
    Ok((size, keys))
}
