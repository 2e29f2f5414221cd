//! A merge: the source gives up (prepare), the target takes over its range (commit), or the source goes on (rollback).
//!
//! The commit takes effect on each store when the source there has applied everything up to the prepare; until then the target's
//! entries wait. Source and target change in one batch.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message as _;
use raft::eraftpb::Entry;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{MergeState, PeerState, RaftApplyState, RegionLocalState};

use super::{Applier, ApplyTask, Callback, Delegate};
use crate::engine::{Cf, Error};
use crate::metrics;
use crate::raftstore::command::{self, Command, CommitMergeCommand, PrepareMergeCommand};
use crate::raftstore::messages::{AdminCallback, ExecResult, StoreMsg};
use crate::raftstore::{keys, region_error};

fn admin(callback: Option<Callback>) -> Option<AdminCallback> {
    match callback {
        Some(Callback::Admin(callback)) => Some(callback),
        _ => None,
    }
}

impl Applier {
    fn put_state(&mut self, kind: PeerState, region: &metapb::Region, merge_state: Option<MergeState>) {
        let state = RegionLocalState { state: kind.into(), region: Some(region.clone()), merge_state };
        self.batch.put(Cf::Raft, &keys::region_state(region.id), &state.encode_to_vec());
    }

    /// The source takes no more writes, and its members do not change any more.
    pub(super) fn exec_prepare_merge(
        &mut self,
        delegate: &mut Delegate,
        index: u64,
        prepare: PrepareMergeCommand,
        callback: Option<Callback>,
    ) {
        let callback = admin(callback);
        let mut region = (*delegate.region).clone();
        let epoch = region.region_epoch.get_or_insert_default();
        if epoch.conf_ver != prepare.conf_ver {
            let error = region_error::epoch_not_match(region.id, vec![(*delegate.region).clone()]);
            callback.into_iter().for_each(|callback| callback(Err(error.clone())));
            delegate.results.push(ExecResult::MergeEnded { region: None });
            return;
        }
        epoch.conf_ver += 1;
        epoch.version += 1;
        let state = MergeState { min_index: prepare.min_index, target: prepare.target, commit: index };
        self.put_state(PeerState::Merging, &region, Some(state.clone()));
        let region = Arc::new(region);
        delegate.region = Arc::clone(&region);
        delegate.merging = true;
        delegate.results.push(ExecResult::MergePrepared { region, state, callback });
    }

    /// The target changed: the source goes on.
    pub(super) fn exec_rollback_merge(&mut self, delegate: &mut Delegate) {
        if !delegate.merging {
            return;
        }
        let mut region = (*delegate.region).clone();
        region.region_epoch.get_or_insert_default().version += 1;
        self.put_state(PeerState::Normal, &region, None);
        let region = Arc::new(region);
        delegate.region = Arc::clone(&region);
        delegate.merging = false;
        metrics::MERGE_ROLLBACKS.inc();
        delegate.results.push(ExecResult::MergeEnded { region: Some(region) });
    }

    /// The target takes over the source's range.
    pub(super) fn exec_commit_merge(
        &mut self,
        delegate: &mut Delegate,
        commit: &CommitMergeCommand,
        callback: Option<Callback>,
    ) {
        let callback = admin(callback);
        let source = commit.source.clone().unwrap_or_default();
        let merged = if expects(delegate, commit) { merge_regions(&delegate.region, &source) } else { None };
        let Some(region) = merged else {
            let error = region_error::epoch_not_match(delegate.region.id, vec![(*delegate.region).clone()]);
            callback.into_iter().for_each(|callback| callback(Err(error.clone())));
            return;
        };
        self.put_state(PeerState::Normal, &region, None);
        let tombstone = merged_tombstone(&source);
        // With the index of the prepare: its log was taken over here to its end.
        let state = MergeState { target: Some(region.clone()), commit: commit.commit, ..Default::default() };
        self.put_state(PeerState::Tombstone, &tombstone, Some(state));
        self.batch.delete(Cf::Raft, &keys::apply_state(source.id));
        let (region, source) = (Arc::new(region), Arc::new(source));
        delegate.region = Arc::clone(&region);
        delegate.results.push(ExecResult::MergeCommitted { region, source, callback });
    }

    /// Whether an entry can be applied now: a commit of a merge waits until the source on this store is ready. `None` when the engine
    /// failed. The delegate's effects so far are written when this looks at the source.
    pub(super) fn is_ready(
        &mut self,
        delegate: Box<Delegate>,
        entry: &Entry,
    ) -> Option<(Box<Delegate>, bool)> {
        if entry.data.first() != Some(&command::KIND_COMMIT_MERGE) {
            return Some((delegate, true));
        }
        let Ok(Command::CommitMerge { commit, .. }) = command::decode(&entry.data) else {
            return Some((delegate, true));
        };
        if !expects(&delegate, &commit) {
            // Has no effect.
            return Some((delegate, true));
        }
        let target_id = delegate.region.id;
        let delegate = self.write_effects(delegate)?;
        let source_id = commit.source.as_ref().map_or(0, |s| s.id);
        match self.source(source_id) {
            Ok(Source::Prepared(index)) if index == commit.commit => Some((delegate, true)),
            Ok(Source::Gone) => {
                let store = &self.stores[(target_id % self.stores.len() as u64) as usize];
                let _ = store.send(StoreMsg::SourceGone { region_id: target_id });
                Some((delegate, false))
            }
            Ok(_) => {
                let store = &self.stores[(source_id % self.stores.len() as u64) as usize];
                let _ = store.send(StoreMsg::CatchUp { region_id: source_id, target_id, commit });
                Some((delegate, false))
            }
            Err(error) => {
                self.failed = true;
                self.engine.fail(error);
                None
            }
        }
    }

    fn source(&self, source_id: u64) -> Result<Source, Error> {
        let Some(state) = self.engine.get(Cf::Raft, &keys::region_state(source_id))? else {
            return Ok(Source::Behind);
        };
        let corrupt = || Error::Corruption(format!("the state of region {source_id} cannot be decoded"));
        let state = RegionLocalState::decode(state).map_err(|_| corrupt())?;
        match (state.state(), state.merge_state) {
            (PeerState::Merging, Some(merge)) => {
                let applied =
                    self.engine.get(Cf::Raft, &keys::apply_state(source_id))?.ok_or_else(corrupt)?;
                let applied = RaftApplyState::decode(applied).map_err(|_| corrupt())?;
                assert!(applied.applied_index >= merge.commit, "region {source_id} merges too early");
                Ok(Source::Prepared(merge.commit))
            }
            (PeerState::Tombstone, _) => Ok(Source::Gone),
            _ => Ok(Source::Behind),
        }
    }

    /// The target waits with an entry and all that follow.
    pub(super) fn pause(&mut self, mut delegate: Box<Delegate>, rest: ApplyTask) {
        tracing::info!(region_id = delegate.region.id, "waits for the region that is merged into it");
        delegate.waiting = Some(VecDeque::from([rest]));
        self.delegates.insert(delegate.region.id, delegate);
    }

    /// The source is ready: the target goes on.
    pub(super) fn resume(&mut self, region_id: u64) {
        let Some(delegate) = self.delegates.get_mut(&region_id) else { return };
        for task in delegate.waiting.take().into_iter().flatten() {
            self.apply(task);
        }
    }
}

/// How far the source of a merge is here.
enum Source {
    /// It has not applied its prepare.
    Behind,
    /// Its prepare has this index in its log.
    Prepared(u64),
    /// This store has heard that others have merged it.
    Gone,
}

/// Whether the target is still what the source wanted to be merged into.
fn expects(delegate: &Delegate, commit: &CommitMergeCommand) -> bool {
    let epoch = delegate.region.region_epoch.unwrap_or_default();
    (epoch.conf_ver, epoch.version) == (commit.conf_ver, commit.version) && !delegate.merging
}

/// The source as it is remembered: nobody is its member any more.
pub(crate) fn merged_tombstone(source: &metapb::Region) -> metapb::Region {
    let mut tombstone = metapb::Region { peers: Vec::new(), ..source.clone() };
    tombstone.region_epoch.get_or_insert_default().conf_ver += 1;
    tombstone
}

/// The target with the source's range; `None` when they are no neighbours.
pub(crate) fn merge_regions(target: &metapb::Region, source: &metapb::Region) -> Option<metapb::Region> {
    let mut region = target.clone();
    if !source.end_key.is_empty() && source.end_key == target.start_key {
        region.start_key = source.start_key.clone();
    } else if !target.end_key.is_empty() && target.end_key == source.start_key {
        region.end_key = source.end_key.clone();
    } else {
        return None;
    }
    let version = |r: &metapb::Region| r.region_epoch.unwrap_or_default().version;
    let larger = version(target).max(version(source));
    region.region_epoch.get_or_insert_default().version = larger + 1;
    Some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> metapb::Region {
        metapb::Region {
            id,
            start_key: start.into(),
            end_key: end.into(),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
            ..Default::default()
        }
    }

    #[test]
    fn neighbours_merge_on_both_sides() {
        let target = region(1, "d", "m", 3);
        let left = merge_regions(&target, &region(2, "a", "d", 7)).unwrap();
        assert_eq!((&left.start_key[..], &left.end_key[..]), (&b"a"[..], &b"m"[..]));
        assert_eq!((left.id, left.region_epoch.unwrap().version), (1, 8));
        let right = merge_regions(&target, &region(2, "m", "", 1)).unwrap();
        assert_eq!((&right.start_key[..], &right.end_key[..]), (&b"d"[..], &b""[..]));
        assert_eq!(right.region_epoch.unwrap().version, 4);
        assert!(merge_regions(&target, &region(2, "n", "", 1)).is_none());
        assert!(merge_regions(&region(1, "", "", 1), &region(2, "", "", 1)).is_none());
    }
}
