//! Reads at one timestamp.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rutile_proto::codec;
use rutile_proto::ids::Timestamp;
use rutile_proto::key::txn_pd_key;
use rutile_proto::kvrpcpb::{BatchGetRequest, Context, GetRequest, KeyError, LockInfo};

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{Error, Result};
use crate::read_from::ReadFrom;
use crate::region_cache::Region;
use crate::sender::Sent;
use crate::txn::open::OpenGuard;
use crate::txn::resolver::locked;
use crate::txn::{KeyRange, ScanOptions, Scanner, TxnCore};

/// Most keys of one BatchGet.
const BATCH_GET_KEYS_MAX: usize = 4096;

/// The committed data as of a timestamp. Cheap to clone.
///
/// At `Timestamp::MAX` each single read sees the newest committed version, but several reads need not see the same
/// moment: use it for one point read only.
#[derive(Clone)]
pub struct Snapshot {
    core: Arc<TxnCore>,
    ts: Timestamp,
    from: ReadFrom,
    /// Live locks whose owners will commit later than `ts`.
    ignored: Arc<Mutex<Vec<u64>>>,
    /// Keeps the versions of `ts` as long as any clone lives, where no transaction does.
    _open: Option<Arc<OpenGuard>>,
}

impl Snapshot {
    pub(crate) fn new(core: Arc<TxnCore>, ts: Timestamp) -> Self {
        Snapshot { core, ts, from: ReadFrom::Leader, ignored: Arc::default(), _open: None }
    }

    /// The same, read from these peers.
    #[must_use]
    pub fn read_from(self, from: ReadFrom) -> Self {
        Snapshot { from, ..self }
    }

    /// Which peers are read.
    pub(crate) fn from(&self) -> ReadFrom {
        self.from
    }

    /// A snapshot that stands for itself: garbage collection leaves its versions alone.
    pub(crate) fn open(core: Arc<TxnCore>, ts: Timestamp) -> Self {
        let open = core.open.enter(ts).map(Arc::new);
        Snapshot { _open: open, ..Snapshot::new(core, ts) }
    }

    pub(crate) fn core(&self) -> &Arc<TxnCore> {
        &self.core
    }

    /// The timestamp read at.
    #[must_use]
    pub fn ts(&self) -> Timestamp {
        self.ts
    }

    /// The value of `key`, if it can be had without waiting (the store is in this process and leads the region, no
    /// lock is in the way); `None` tells to call [`Snapshot::get`].
    #[must_use]
    pub fn try_get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        if self.from != ReadFrom::Leader {
            return None;
        }
        let region = self.core.cluster.regions().cached(&txn_pd_key(key))?;
        let request = GetRequest {
            context: Some(region.context()),
            key: Bytes::copy_from_slice(key),
            version: self.ts.0,
            ..Default::default()
        };
        let answer = self.core.cluster.transport().try_get(region.leader_store()?, &request)?;
        let served = answer.region_error.is_none() && answer.error.is_none();
        served.then(|| (!answer.not_found).then_some(answer.value))
    }

    /// The value of `key`. At `Timestamp::MAX` it is the newest committed one, and no timestamp is asked for.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(value) = self.try_get(key) {
            return Ok(value);
        }
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let pd_key = txn_pd_key(key);
        let request =
            GetRequest { key: Bytes::copy_from_slice(key), version: self.ts.0, ..Default::default() };
        loop {
            let cluster = &self.core.cluster;
            let answer =
                cluster.read_key(&pd_key, &request, self.from, |c| self.adjust(c), &mut backoff).await?;
            match answer.error {
                None => return Ok((!answer.not_found).then_some(answer.value)),
                Some(error) => self.on_locks(vec![lock_of(*error, self.ts)?], &mut backoff).await?,
            }
        }
    }

    /// The values of those `keys` that exist.
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<HashMap<Bytes, Bytes>> {
        let mut found = HashMap::with_capacity(keys.len());
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let mut pending = keys;
        while !pending.is_empty() {
            let encode = |key: &Bytes, out: &mut Vec<u8>| codec::encode_bytes(out, key);
            let taken = std::mem::take(&mut pending);
            let groups = self.core.cluster.group_by_region(taken, encode, &mut backoff).await?;
            let mut batches = Vec::with_capacity(groups.len());
            for (region, keys) in groups {
                for chunk in keys.chunks(BATCH_GET_KEYS_MAX) {
                    batches.push((region.clone(), chunk.to_vec()));
                }
            }
            if let [(region, keys)] = &batches[..] {
                pending = self.batch_get_region(region, keys, &mut found, &mut backoff).await?;
                continue;
            }
            let calls = batches.iter().map(|(region, keys)| {
                let mut backoff = backoff.clone();
                async move {
                    let mut found = HashMap::with_capacity(keys.len());
                    let left = self.batch_get_region(region, keys, &mut found, &mut backoff).await?;
                    Ok::<_, Error>((found, left, backoff))
                }
            });
            for (part, left, spent) in futures::future::try_join_all(calls).await? {
                found.extend(part);
                if !left.is_empty() {
                    pending.extend(left);
                    backoff = spent;
                }
            }
        }
        Ok(found)
    }

    /// Answers the keys that are still to be read.
    async fn batch_get_region(
        &self,
        region: &Arc<Region>,
        keys: &[Bytes],
        found: &mut HashMap<Bytes, Bytes>,
        backoff: &mut Backoff,
    ) -> Result<Vec<Bytes>> {
        let request = BatchGetRequest { keys: keys.to_vec(), version: self.ts.0, ..Default::default() };
        let cluster = &self.core.cluster;
        let answer = match cluster.read(region, request, self.from, |c| self.adjust(c), backoff).await? {
            Sent::Answer(answer) => answer,
            Sent::Relocate => return Ok(keys.to_vec()),
        };
        if let Some(error) = answer.error {
            self.on_locks(vec![lock_of(error, self.ts)?], backoff).await?;
            return Ok(keys.to_vec());
        }
        let mut locks = Vec::new();
        let mut left = Vec::new();
        for pair in answer.pairs {
            match pair.error {
                None => drop(found.insert(pair.key, pair.value)),
                Some(error) => {
                    let lock = lock_of(*error, self.ts)?;
                    left.push(lock.key.clone());
                    locks.push(lock);
                }
            }
        }
        if !locks.is_empty() {
            self.on_locks(locks, backoff).await?;
        }
        Ok(left)
    }

    /// The pairs of a range, in pages.
    #[must_use]
    pub fn scan(&self, range: KeyRange, options: ScanOptions) -> Scanner {
        Scanner::new(self.clone(), range, options, Vec::new())
    }

    /// Resolves or waits for locks in the way of this snapshot.
    pub(crate) async fn on_locks(&self, locks: Vec<LockInfo>, backoff: &mut Backoff) -> Result<()> {
        let Some(first) = locks.first() else { return Ok(()) };
        let failure = locked(first);
        let resolution = self.core.resolver.resolve(locks, self.ts, backoff).await?;
        if !resolution.ignore.is_empty() {
            self.ignored.lock().extend(resolution.ignore);
        }
        if resolution.wait {
            backoff.wait(BackoffKind::TxnLock, failure).await?;
        }
        Ok(())
    }

    pub(crate) fn adjust(&self, context: &mut Context) {
        let ignored = self.ignored.lock();
        if !ignored.is_empty() {
            context.resolved_locks.clone_from(&ignored);
        }
    }
}

/// The lock that a read met.
pub(crate) fn lock_of(error: KeyError, ts: Timestamp) -> Result<LockInfo> {
    match error.locked {
        Some(lock) => Ok(lock),
        // Such as a timestamp below the GC safe point.
        None if !error.abort.is_empty() => Err(Error::Aborted { start_ts: ts, message: error.abort }),
        None => Err(Error::Protocol(format!("read: {error:?}"))),
    }
}
