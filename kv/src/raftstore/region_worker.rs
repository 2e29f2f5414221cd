//! Work on a region's data as a whole: a snapshot taken in, or everything removed. In a thread of its own, so that
//! other regions go on.
//!
//! Each task can be repeated after a crash at any point: a snapshot is noted in the raft log (synced) until its effect is
//! flushed, and a removed peer's raft log stays until its tombstone is flushed.

use crossbeam_channel::{Receiver, Sender};
use prost::Message as _;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{MergeState, PeerState, RaftApplyState, RegionLocalState};

use super::keys;
use super::messages::{ClearTask, HashTask, RegionTask, SnapshotTask, StoreMsg};
use super::registry::data_range;
use super::snapshot::SnapshotFiles;
use crate::engine::{Cf, Engine, Error, IterOptions, Result};

/// The thread.
pub(crate) struct RegionWorker {
    pub(crate) engine: Engine,
    pub(crate) rx: Receiver<RegionTask>,
    pub(crate) stores: Vec<Sender<StoreMsg>>,
}

impl RegionWorker {
    /// Runs until told to stop or until the engine fails.
    pub(crate) fn run(self) {
        while let Ok(task) = self.rx.recv() {
            if !self.handle(task) {
                return;
            }
        }
    }

    /// Does one task that has come. `false` when told to stop or when the engine fails.
    #[cfg(test)]
    pub(crate) fn pump(&self) -> bool {
        self.rx.try_recv().map_or(true, |task| self.handle(task))
    }

    /// Whether tasks have come.
    #[cfg(test)]
    pub(crate) fn has_work(&self) -> bool {
        !self.rx.is_empty()
    }

    fn handle(&self, task: RegionTask) -> bool {
        let (region_id, result, done) = match task {
            RegionTask::Settle { region_id, from, message } => {
                (region_id, self.engine.flush(), StoreMsg::Settled { region_id, from, message })
            }
            RegionTask::ApplySnapshot(task) => {
                let region_id = task.region_id;
                (region_id, apply_snapshot(&self.engine, &task), StoreMsg::SnapshotApplied { region_id })
            }
            RegionTask::Clear(task) => {
                let region_id = task.region_id;
                (region_id, clear(&self.engine, &task), StoreMsg::Cleared { region_id })
            }
            RegionTask::Hash(task) => {
                let (region_id, index) = (task.region.id, task.index);
                let (hash, result) = match hash(&task) {
                    Ok(hash) => (hash, Ok(())),
                    Err(error) => (0, Err(error)),
                };
                (region_id, result, StoreMsg::Hashed { region_id, index, hash })
            }
            RegionTask::Stop => return false,
        };
        if let Err(error) = result {
            self.engine.fail(error);
            return false;
        }
        let _ = self.stores[(region_id % self.stores.len() as u64) as usize].send(done);
        true
    }
}

/// Puts a received snapshot in the place of what the region had; flushed when this returns. Can be repeated.
pub(crate) fn apply_snapshot(engine: &Engine, task: &SnapshotTask) -> Result<()> {
    edge!("raftstore::snapshot::before_apply");
    let region = task.data.region.as_ref();
    let region = region.ok_or_else(|| Error::Corruption("a snapshot without its region".to_owned()))?;
    for region in task.old.iter().chain([region]) {
        clear_data(engine, region)?;
    }
    let files = SnapshotFiles::new(engine, task.region_id, task.index, task.term);
    engine.ingest(&files.of(&task.data)?)?;
    edge!("raftstore::snapshot::after_ingest");
    let mut batch = engine.batch();
    let state = RegionLocalState {
        state: PeerState::Normal.into(),
        region: Some(region.clone()),
        ..Default::default()
    };
    batch.put(Cf::Raft, &keys::region_state(task.region_id), &state.encode_to_vec());
    let applied = RaftApplyState { applied_index: task.index, commit_term: task.term, ..Default::default() };
    batch.put(Cf::Raft, &keys::apply_state(task.region_id), &applied.encode_to_vec());
    engine.write(batch)?;
    engine.flush()?;
    edge!("raftstore::snapshot::after_flush");
    crate::metrics::SNAPSHOTS_APPLIED.inc();
    Ok(())
}

/// A checksum of all a region holds, and of its bounds and members.
pub(super) fn hash(task: &HashTask) -> Result<u64> {
    let (start, end) = data_range(&task.region);
    let mut digest = crc64fast::Digest::new();
    digest.write(&task.region.encode_to_vec());
    for cf in Cf::DATA {
        let options = IterOptions {
            lower: start.to_vec(),
            upper: end.to_vec(),
            skip_cache: true,
            ..Default::default()
        };
        let mut iter = task.snapshot.iter(cf, options);
        let mut valid = iter.seek_to_first()?;
        while valid {
            for bytes in [iter.key(), iter.value()] {
                digest.write(&(bytes.len() as u64).to_le_bytes());
                digest.write(bytes);
            }
            valid = iter.next()?;
        }
    }
    Ok(digest.sum64())
}

/// Removes a peer's data and leaves a tombstone; flushed when this returns. Can be repeated.
pub(super) fn clear(engine: &Engine, task: &ClearTask) -> Result<()> {
    if task.keep_data {
        // The tombstone was written together with the other region's new range.
        return engine.flush();
    }
    if let Some(state) = engine.get(Cf::Raft, &keys::region_state(task.region_id))?
        && RegionLocalState::decode(state)
            .is_ok_and(|s| s.state() == PeerState::Tombstone && s.merge_state.is_some_and(|m| m.commit > 0))
    {
        // Its target has taken it over meanwhile.
        return engine.flush();
    }
    if let Some(old) = &task.old {
        clear_data(engine, old)?;
    }
    let mut batch = engine.batch();
    let state = RegionLocalState {
        state: PeerState::Tombstone.into(),
        region: Some(task.tombstone.clone()),
        merge_state: task
            .target
            .clone()
            .map(|target| MergeState { target: Some(target), ..Default::default() }),
    };
    batch.put(Cf::Raft, &keys::region_state(task.region_id), &state.encode_to_vec());
    batch.delete(Cf::Raft, &keys::apply_state(task.region_id));
    engine.write(batch)?;
    engine.flush()
}

fn clear_data(engine: &Engine, region: &metapb::Region) -> Result<()> {
    let (start, end) = data_range(region);
    engine.clear_range(&start, &end)
}
