//! The raw commands over replication.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rutile_proto::kvrpcpb::{self, Context, KvPair};
use rutile_proto::{errorpb, metapb};

use super::encoding::{RawApi, RawValue};
use super::{Error, Result};
use crate::engine::{Cf, IterOptions};
use crate::raftstore::{Modify, RaftKv, RegionSnapshot, WriteData};
use crate::txn::detached::Detached;
use crate::txn::latch::{LatchGuard, Latches};

/// Scans of more pairs than this leave the async threads.
const INLINE_SCAN_LIMIT: usize = 512;

/// Unix seconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Raw access to a store. Cheap to clone.
#[derive(Clone)]
pub struct RawStore {
    raft: Arc<dyn RaftKv>,
    latches: Latches,
    clock: Clock,
}

/// A range in storage and how to walk it.
#[derive(Clone)]
struct RangeScan {
    api: RawApi,
    cf: Cf,
    lower: Bytes,
    upper: Bytes,
    reverse: bool,
    key_only: bool,
    limit: usize,
    now_secs: u64,
    skip_cache: bool,
}

fn system_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn key_not_in_region(key: &Bytes, region: &metapb::Region) -> Error {
    errorpb::Error {
        message: format!("key not in region {}", region.id),
        key_not_in_region: Some(errorpb::KeyNotInRegion {
            key: key.clone(),
            region_id: region.id,
            start_key: region.start_key.clone(),
            end_key: region.end_key.clone(),
        }),
        ..errorpb::Error::default()
    }
    .into()
}

impl RawStore {
    /// Raw access over replication.
    #[must_use]
    pub fn new(raft: Arc<dyn RaftKv>) -> Self {
        RawStore { raft, latches: Latches::default(), clock: Arc::new(system_clock) }
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        RawStore { clock, ..self }
    }

    async fn snapshot(&self, ctx: &Context) -> Result<RegionSnapshot> {
        match self.raft.try_snapshot(ctx) {
            Some(result) => Ok(result?),
            None => Ok(self.raft.snapshot(ctx).await?),
        }
    }

    fn read(&self, snapshot: &RegionSnapshot, api: RawApi, cf: Cf, key: &Bytes) -> Result<Option<RawValue>> {
        let stored_key = api.key(key)?;
        if !snapshot.contains(&stored_key) {
            return Err(key_not_in_region(key, snapshot.region()));
        }
        let Some(stored) = snapshot.get(cf, &stored_key)? else { return Ok(None) };
        let value = api.decode(stored)?;
        Ok(Some(value).filter(|v| !v.is_expired((self.clock)())))
    }

    /// The value of a key.
    pub async fn get(&self, ctx: &Context, cf: &str, key: &Bytes) -> Result<Option<RawValue>> {
        let api = RawApi::of(ctx);
        let cf = api.cf(cf)?;
        let snapshot = self.snapshot(ctx).await?;
        let found = self.read(&snapshot, api, cf, key)?;
        snapshot.count_read(1, key.len() + found.as_ref().map_or(0, |found| found.value.len()));
        Ok(found)
    }

    /// The keys found, in request order.
    pub async fn batch_get(&self, ctx: &Context, cf: &str, keys: &[Bytes]) -> Result<Vec<KvPair>> {
        let api = RawApi::of(ctx);
        let cf = api.cf(cf)?;
        let snapshot = self.snapshot(ctx).await?;
        let mut pairs = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(found) = self.read(&snapshot, api, cf, key)? {
                pairs.push(KvPair { key: key.clone(), value: found.value, ..KvPair::default() });
            }
        }
        snapshot.count_read(keys.len(), pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum());
        Ok(pairs)
    }

    /// Sets keys with their TTLs in seconds (0 = none); `atomic` orders it with compare-and-swaps.
    pub async fn put(
        &self,
        ctx: &Context,
        cf: &str,
        pairs: impl IntoIterator<Item = (Bytes, Bytes, u64)>,
        atomic: bool,
    ) -> Result<()> {
        let api = RawApi::of(ctx);
        let cf = api.cf(cf)?;
        let now = (self.clock)();
        let mut modifies = Vec::new();
        for (key, value, ttl) in pairs {
            modifies.push(Modify::Put(cf, api.key(&key)?, api.encode(&value, ttl, now)?));
        }
        self.write(ctx, modifies, atomic).await
    }

    /// Removes keys; `atomic` orders it with compare-and-swaps.
    pub async fn delete(&self, ctx: &Context, cf: &str, keys: &[Bytes], atomic: bool) -> Result<()> {
        let api = RawApi::of(ctx);
        let cf = api.cf(cf)?;
        let mut modifies = Vec::with_capacity(keys.len());
        for key in keys {
            modifies.push(Modify::Delete(cf, api.key(key)?));
        }
        self.write(ctx, modifies, atomic).await
    }

    async fn write(&self, ctx: &Context, modifies: Vec<Modify>, atomic: bool) -> Result<()> {
        let (region, _) = self.raft.check(ctx)?;
        for modify in &modifies {
            let (Modify::Put(_, key, _) | Modify::Delete(_, key)) = modify else { continue };
            if !rutile_proto::key::in_range(key, &region.start_key, &region.end_key) {
                let user_key = RawApi::of(ctx).user_key(key)?;
                return Err(key_not_in_region(&user_key, &region));
            }
        }
        if !atomic {
            return Ok(self.raft.write(ctx, WriteData::new(modifies)).await?);
        }
        let keys = modifies.iter().filter_map(|m| match m {
            Modify::Put(_, key, _) | Modify::Delete(_, key) => Some(&key[..]),
            Modify::DeleteRange(..) => None,
        });
        let latches = self.latches.acquire(keys).await;
        self.write_latched(ctx.clone(), modifies, latches).await
    }

    /// Keeps the latches until the write is applied, even when the caller goes away.
    async fn write_latched(&self, ctx: Context, modifies: Vec<Modify>, latches: LatchGuard) -> Result<()> {
        let raft = self.raft.clone();
        let write = Detached::new(async move {
            let result = raft.write(&ctx, WriteData::new(modifies)).await;
            drop(latches);
            result
        });
        Ok(write.await?)
    }

    /// Removes the keys of `[start, end)` that lie in the region.
    pub async fn delete_range(&self, ctx: &Context, cf: &str, start: &[u8], end: &[u8]) -> Result<()> {
        let api = RawApi::of(ctx);
        let cf = api.cf(cf)?;
        let (region, _) = self.raft.check(ctx)?;
        let (lower, upper) = api.range(start, end)?;
        let lower = lower.max(region.start_key.clone());
        let upper = match (upper.is_empty(), region.end_key.is_empty()) {
            (true, _) => region.end_key.clone(),
            (false, true) => upper,
            (false, false) => upper.min(region.end_key.clone()),
        };
        if !upper.is_empty() && lower >= upper {
            return Ok(());
        }
        Ok(self.raft.write(ctx, WriteData::new(vec![Modify::DeleteRange(cf, lower, upper)])).await?)
    }

    /// Pairs of `[start, end)`, forward; or, in reverse, of `[end, start)` from the largest key on.
    pub async fn scan(&self, req: &kvrpcpb::RawScanRequest) -> Result<Vec<KvPair>> {
        let ctx = req.context.clone().unwrap_or_default();
        let ranges = [(req.start_key.clone(), req.end_key.clone())];
        let flags = (req.reverse, req.key_only);
        self.scan_ranges(&ctx, &req.cf, &ranges, flags, req.limit as usize).await
    }

    /// Up to `each_limit` pairs of every range, one range after the other. A range without end ends where the next begins.
    pub async fn batch_scan(&self, req: &kvrpcpb::RawBatchScanRequest) -> Result<Vec<KvPair>> {
        let ctx = req.context.clone().unwrap_or_default();
        let next_starts = req.ranges.iter().skip(1).map(|r| r.start_key.clone()).chain([Bytes::new()]);
        let ranges: Vec<_> = req
            .ranges
            .iter()
            .zip(next_starts)
            .map(|(r, next)| {
                (r.start_key.clone(), if r.end_key.is_empty() { next } else { r.end_key.clone() })
            })
            .collect();
        let flags = (req.reverse, req.key_only);
        self.scan_ranges(&ctx, &req.cf, &ranges, flags, req.each_limit as usize).await
    }

    async fn scan_ranges(
        &self,
        ctx: &Context,
        cf: &str,
        ranges: &[(Bytes, Bytes)],
        (reverse, key_only): (bool, bool),
        limit: usize,
    ) -> Result<Vec<KvPair>> {
        let api = RawApi::of(ctx);
        let cf = api.cf(cf)?;
        let snapshot = self.snapshot(ctx).await?;
        let mut scans = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            let (lower, upper) = if reverse { api.range(end, start)? } else { api.range(start, end)? };
            scans.push(RangeScan {
                api,
                cf,
                lower,
                upper,
                reverse,
                key_only,
                limit,
                now_secs: (self.clock)(),
                skip_cache: ctx.not_fill_cache,
            });
        }
        let work = move || {
            let (mut pairs, mut bytes) = (Vec::new(), 0);
            for scan in &scans {
                scan.run(&snapshot, |key, value| {
                    bytes += key.len() + value.len();
                    pairs.push(KvPair { key, value, ..KvPair::default() });
                })?;
            }
            snapshot.count_read(pairs.len(), bytes);
            Ok(pairs)
        };
        if limit.saturating_mul(ranges.len()) <= INLINE_SCAN_LIMIT { work() } else { off_thread(work).await }
    }

    /// XOR of the CRC64 of every pair of the ranges, their number and their bytes.
    pub async fn checksum(&self, req: &kvrpcpb::RawChecksumRequest) -> Result<(u64, u64, u64)> {
        let ctx = req.context.clone().unwrap_or_default();
        let api = RawApi::of(&ctx);
        let snapshot = self.snapshot(&ctx).await?;
        let mut scans = Vec::with_capacity(req.ranges.len());
        for range in &req.ranges {
            let (lower, upper) = api.range(&range.start_key, &range.end_key)?;
            scans.push(RangeScan {
                api,
                cf: Cf::Default,
                lower,
                upper,
                reverse: false,
                key_only: false,
                limit: usize::MAX,
                now_secs: (self.clock)(),
                skip_cache: true,
            });
        }
        off_thread(move || {
            let (mut checksum, mut kvs, mut bytes) = (0, 0, 0);
            for scan in &scans {
                scan.run(&snapshot, |key, value| {
                    let mut digest = crc64fast::Digest::new();
                    digest.write(&key);
                    digest.write(&value);
                    checksum ^= digest.sum64();
                    kvs += 1;
                    bytes += (key.len() + value.len()) as u64;
                })?;
            }
            Ok((checksum, kvs, bytes))
        })
        .await
    }

    /// Swaps the value if it is the expected one. Returns whether it did, and the value before.
    pub async fn compare_and_swap(&self, req: &kvrpcpb::RawCasRequest) -> Result<(bool, Option<Bytes>)> {
        let ctx = req.context.clone().unwrap_or_default();
        let api = RawApi::of(&ctx);
        let cf = api.cf(&req.cf)?;
        let stored_key = api.key(&req.key)?;
        let now = (self.clock)();
        let modify = if req.delete {
            Modify::Delete(cf, stored_key.clone())
        } else {
            Modify::Put(cf, stored_key.clone(), api.encode(&req.value, req.ttl, now)?)
        };
        let latches = self.latches.acquire([&stored_key[..]].into_iter()).await;
        let snapshot = self.snapshot(&ctx).await?;
        let before = self.read(&snapshot, api, cf, &req.key)?.map(|v| v.value);
        let expected = if req.previous_not_exist { None } else { Some(&req.previous_value) };
        if before.as_ref() != expected {
            return Ok((false, before));
        }
        let term = snapshot.term();
        drop(snapshot);
        self.write_latched(Context { term, ..ctx }, vec![modify], latches).await?;
        Ok((true, before))
    }

    /// Unix seconds now.
    #[must_use]
    pub fn now_secs(&self) -> u64 {
        (self.clock)()
    }
}

impl RangeScan {
    fn run(&self, snapshot: &RegionSnapshot, mut found: impl FnMut(Bytes, Bytes)) -> Result<()> {
        let options = IterOptions {
            lower: self.lower.to_vec(),
            upper: self.upper.to_vec(),
            prefix_seek: false,
            skip_cache: self.skip_cache,
        };
        if self.limit == 0 {
            return Ok(());
        }
        let mut cursor = snapshot.iter(self.cf, options);
        let mut valid = if self.reverse { cursor.seek_to_last()? } else { cursor.seek_to_first()? };
        let mut count = 0;
        while valid && count < self.limit {
            let stored = Bytes::copy_from_slice(cursor.value());
            let value = self.api.decode(stored)?;
            if !value.is_expired(self.now_secs) {
                let key = self.api.user_key(cursor.key())?;
                found(key, if self.key_only { Bytes::new() } else { value.value });
                count += 1;
            }
            valid = if self.reverse { cursor.prev()? } else { cursor.next()? };
        }
        Ok(())
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::InvalidRequest(format!("scan stopped: {e}")))?
}
