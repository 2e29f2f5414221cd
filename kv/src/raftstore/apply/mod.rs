//! Applies committed entries, in threads of its own.
//!
//! Each region belongs to one apply thread. A thread takes what has queued up, puts the effects and the regions' apply states into
//! one RocksDB batch, writes it, and only then tells readers and proposers. Invariant: a region's apply state in RocksDB
//! counts exactly the entries whose effects are there.

mod exec;
mod locks;
pub(super) mod members;
pub(super) mod merge;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ahash::AHashMap;
use crossbeam_channel::{Receiver, Sender};
use prost::Message as _;
use raft::eraftpb::Entry;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::RaftApplyState;

use self::locks::LockChanges;
use super::api::WriteCallback;
use super::messages::{AdminCallback, ClearTask, ExecResult, HashTask, RegionTask, SnapshotTask, StoreMsg};
use super::registry::RegionHandle;
use super::{command, keys, region_error};
use crate::engine::{Cf, Engine, WriteBatch};
use crate::metrics;

/// A batch is written when it is this large, even if more is waiting.
const BATCH_SIZE_BYTES_MAX: usize = 4 << 20;

/// Who waits for a proposal.
pub(crate) enum Callback {
    Write(WriteCallback),
    Admin(AdminCallback),
}

impl Callback {
    pub(crate) fn fail(self, error: rutile_proto::errorpb::Error) {
        match self {
            Callback::Write(callback) => callback(Err(error)),
            Callback::Admin(callback) => callback(Err(error)),
        }
    }
}

/// Committed entries of one region, with who waits for which of them (in index order).
pub(crate) struct ApplyTask {
    pub(crate) region_id: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) callbacks: Vec<(u64, Callback)>,
    /// When they were handed over, to be measured.
    pub(crate) at: Instant,
}

/// To an apply thread.
pub(crate) enum ApplyMsg {
    /// A peer begins, at what it has applied.
    Register {
        region: Arc<metapb::Region>,
        handle: Arc<RegionHandle>,
        /// It is about to be merged into another.
        merging: bool,
    },
    Apply(ApplyTask),
    /// The peer ends here; what it had is replaced by a snapshot.
    Snapshot(SnapshotTask),
    /// The peer ends here; what it had is removed.
    Clear(ClearTask),
    /// What the region waited for has happened.
    Resume {
        region_id: u64,
    },
    Stop,
}

/// One region's state machine.
struct Delegate {
    region: Arc<metapb::Region>,
    handle: Arc<RegionHandle>,
    applied_index: u64,
    applied_term: u64,
    bytes: u64,
    keys: u64,
    results: Vec<ExecResult>,
    /// Has effects in the current batch.
    dirty: bool,
    /// Is about to be merged into another region.
    merging: bool,
    /// Changes of locks in the current batch, for who watches them.
    locks: LockChanges,
    /// What waits until another region is ready to be merged into this one.
    waiting: Option<VecDeque<ApplyTask>>,
}

/// Ends a state machine; who waits for entries that it has not applied hears that their outcome is not known.
fn end_delegate(delegate: Delegate) -> metapb::Region {
    for task in delegate.waiting.into_iter().flatten() {
        for (_, callback) in task.callbacks {
            callback.fail(region_error::undetermined("the peer ended, or was replaced by a snapshot"));
        }
    }
    (*delegate.region).clone()
}

/// One apply thread.
pub(crate) struct Applier {
    engine: Engine,
    rx: Receiver<ApplyMsg>,
    /// To the store thread that owns a region, by region id.
    stores: Vec<Sender<StoreMsg>>,
    /// Told when a region was written to so much that its size should be looked at.
    size_checks: tokio::sync::mpsc::UnboundedSender<u64>,
    split_check_diff: u64,
    region_tasks: Sender<RegionTask>,
    delegates: AHashMap<u64, Box<Delegate>>,
    batch: WriteBatch,
    dirty: Vec<u64>,
    /// Since when the batch's oldest entry is committed.
    oldest: Option<Instant>,
    done: Vec<WriteCallback>,
    key_buffer: Vec<u8>,
    /// An entry could not be understood; nothing more is written.
    failed: bool,
}

impl Applier {
    pub(crate) fn new(
        engine: Engine,
        rx: Receiver<ApplyMsg>,
        stores: Vec<Sender<StoreMsg>>,
        size_checks: tokio::sync::mpsc::UnboundedSender<u64>,
        split_check_diff: u64,
        region_tasks: Sender<RegionTask>,
    ) -> Self {
        let batch = engine.batch();
        Self {
            engine,
            rx,
            stores,
            size_checks,
            split_check_diff,
            region_tasks,
            delegates: AHashMap::new(),
            batch,
            dirty: Vec::new(),
            oldest: None,
            done: Vec::new(),
            key_buffer: Vec::with_capacity(256),
            failed: false,
        }
    }

    /// Runs until told to stop or until the engine fails.
    pub(crate) fn run(mut self) {
        while let Ok(first) = self.rx.recv() {
            if !self.pump(Some(first), usize::MAX) {
                return;
            }
        }
    }

    /// Applies a message and those that have come behind it, `messages_max` in all, until the batch is large; then writes it.
    /// `false` when told to stop or when the engine fails.
    pub(crate) fn pump(&mut self, first: Option<ApplyMsg>, messages_max: usize) -> bool {
        let mut next = first.or_else(|| self.rx.try_recv().ok());
        let mut taken = 0;
        while let Some(msg) = next {
            if !self.handle(msg) {
                return false;
            }
            taken += 1;
            let more = taken < messages_max && self.batch.size_bytes() < BATCH_SIZE_BYTES_MAX;
            next = if more { self.rx.try_recv().ok() } else { None };
        }
        self.flush()
    }

    /// Whether messages have come.
    #[cfg(test)]
    pub(crate) fn has_work(&self) -> bool {
        !self.rx.is_empty()
    }

    /// `false` when told to stop or when the engine fails.
    fn handle(&mut self, msg: ApplyMsg) -> bool {
        let ended = |this: &mut Self, region_id: u64| {
            let written = this.flush();
            written.then(|| this.delegates.remove(&region_id).map(|delegate| end_delegate(*delegate)))
        };
        match msg {
            ApplyMsg::Register { region, handle, merging } => self.register(region, handle, merging),
            ApplyMsg::Resume { region_id } => self.resume(region_id),
            ApplyMsg::Apply(task) => self.apply(task),
            ApplyMsg::Snapshot(mut task) => {
                let Some(old) = ended(self, task.region_id) else { return false };
                task.old = old;
                let _ = self.region_tasks.send(RegionTask::ApplySnapshot(task));
            }
            ApplyMsg::Clear(mut task) => {
                let Some(old) = ended(self, task.region_id) else { return false };
                task.old = old;
                let _ = self.region_tasks.send(RegionTask::Clear(task));
            }
            ApplyMsg::Stop => {
                self.flush();
                return false;
            }
        }
        true
    }

    fn register(&mut self, region: Arc<metapb::Region>, handle: Arc<RegionHandle>, merging: bool) {
        let delegate = Box::new(Delegate {
            region,
            applied_index: handle.applied_index(),
            applied_term: handle.applied_term(),
            handle,
            bytes: 0,
            keys: 0,
            results: Vec::new(),
            dirty: false,
            merging,
            locks: LockChanges::default(),
            waiting: None,
        });
        self.delegates.insert(delegate.handle.region_id, delegate);
    }

    fn apply(&mut self, task: ApplyTask) {
        let Some(mut delegate) = self.delegates.remove(&task.region_id) else {
            for (_, callback) in task.callbacks {
                callback.fail(region_error::region_not_found(task.region_id));
            }
            return;
        };
        if let Some(waiting) = &mut delegate.waiting {
            waiting.push_back(task);
            self.delegates.insert(delegate.region.id, delegate);
            return;
        }
        let ApplyTask { region_id, entries, callbacks, at } = task;
        self.oldest.get_or_insert(at);
        let mut callbacks = callbacks.into_iter().peekable();
        let mut entries = entries.into_iter();
        while let Some(entry) = entries.next() {
            assert!(
                entry.index == delegate.applied_index + 1,
                "region {region_id} applies entry {} after {}",
                entry.index,
                delegate.applied_index
            );
            let Some((mut ready, is_ready)) = self.is_ready(delegate, &entry) else { return };
            if !is_ready {
                let entries = std::iter::once(entry).chain(entries).collect();
                self.pause(ready, ApplyTask { region_id, entries, callbacks: callbacks.collect(), at });
                return;
            }
            let callback =
                callbacks.next_if(|(index, _)| *index == entry.index).map(|(_, callback)| callback);
            #[cfg(test)]
            super::sim::on_apply(region_id, &entry);
            self.exec(&mut ready, &entry, callback);
            (ready.applied_index, ready.applied_term) = (entry.index, entry.term);
            if !ready.dirty {
                ready.dirty = true;
                self.dirty.push(region_id);
            }
            delegate = ready;
            if entry.data.first() == Some(&command::KIND_COMPUTE_HASH) {
                let Some(written) = self.write_effects(delegate) else { return };
                delegate = written;
                self.hash(&delegate);
            }
        }
        assert!(callbacks.next().is_none(), "a callback without its entry in region {region_id}");
        self.delegates.insert(region_id, delegate);
    }

    /// Writes what is in the batch, with a delegate that is being worked on. `None` when the engine failed.
    fn write_effects(&mut self, mut delegate: Box<Delegate>) -> Option<Box<Delegate>> {
        let region_id = delegate.region.id;
        if !delegate.dirty {
            delegate.dirty = true;
            self.dirty.push(region_id);
        }
        self.delegates.insert(region_id, delegate);
        if self.flush() { self.delegates.remove(&region_id) } else { None }
    }

    /// Has a checksum computed of what a region holds now.
    fn hash(&self, delegate: &Delegate) {
        let snapshot = Arc::new(self.engine.snapshot());
        let task = HashTask { region: Arc::clone(&delegate.region), index: delegate.applied_index, snapshot };
        let _ = self.region_tasks.send(RegionTask::Hash(task));
    }

    /// Writes the batch and tells everybody. `false` when the engine failed.
    fn flush(&mut self) -> bool {
        if self.failed {
            return false;
        }
        if self.dirty.is_empty() {
            return true;
        }
        for region_id in &self.dirty {
            let delegate = &self.delegates[region_id];
            let state = RaftApplyState {
                applied_index: delegate.applied_index,
                commit_term: delegate.applied_term,
                ..Default::default()
            };
            self.batch.put(Cf::Raft, &keys::apply_state(*region_id), &state.encode_to_vec());
        }
        edge!("raftstore::apply::before_write");
        let batch = std::mem::replace(&mut self.batch, self.engine.batch());
        metrics::APPLY_BATCH_BYTES.observe(batch.size_bytes() as f64);
        let start = Instant::now();
        let written = self.engine.write(batch);
        metrics::APPLY_WRITE_SECONDS.observe(start.elapsed().as_secs_f64());
        if written.is_err() {
            // The engine told the node; whoever waits learns that the outcome is unknown.
            self.done.drain(..).for_each(|done| done(Err(region_error::undetermined("the store stops"))));
            return false;
        }
        edge!("raftstore::apply::before_acknowledge");
        let mut dirty = std::mem::take(&mut self.dirty);
        for region_id in &dirty {
            if let Some(delegate) = self.delegates.get_mut(region_id) {
                delegate.locks.deliver(&delegate.handle);
            }
            self.publish(*region_id);
        }
        if let Some(at) = self.oldest.take() {
            metrics::APPLY_SECONDS.observe(at.elapsed().as_secs_f64());
        }
        self.done.drain(..).for_each(|done| done(Ok(())));
        for region_id in dirty.drain(..) {
            self.tell_store(region_id);
        }
        self.dirty = dirty;
        true
    }

    fn publish(&mut self, region_id: u64) {
        let Some(delegate) = self.delegates.get_mut(&region_id) else { return };
        delegate.dirty = false;
        let handle = &delegate.handle;
        handle.set_applied(delegate.applied_index, delegate.applied_term);
        let (bytes, keys) = (std::mem::take(&mut delegate.bytes), std::mem::take(&mut delegate.keys));
        handle.flow.written.add(keys, bytes);
        let unchecked = handle.unchecked_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unchecked >= self.split_check_diff && !handle.checking.swap(true, Ordering::AcqRel) {
            let _ = self.size_checks.send(region_id);
        }
    }

    /// The store thread is only woken when there is something for it to do.
    fn tell_store(&mut self, region_id: u64) {
        let Some(delegate) = self.delegates.get_mut(&region_id) else { return };
        let results = std::mem::take(&mut delegate.results);
        if results.is_empty() && !delegate.handle.take_notice(delegate.applied_index) {
            return;
        }
        let store = &self.stores[(region_id % self.stores.len() as u64) as usize];
        let _ = store.send(StoreMsg::Applied { region_id, results });
    }
}
