//! The effect of one entry.

use std::sync::Arc;

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use rutile_proto::raft_serverpb::{PeerState, RaftApplyState, RegionLocalState};
use rutile_proto::{key, metapb};

use super::{Applier, Callback, Delegate};
use crate::engine::{Cf, Error};
use crate::raftstore::command::{self, Change, Changes, Command, Malformed, SplitCommand};
use crate::raftstore::messages::ExecResult;
use crate::raftstore::peer_storage::{INIT_LOG_INDEX, INIT_LOG_TERM};
use crate::raftstore::{keys, region_error};

impl Applier {
    /// Puts the entry's effect into the batch, and the callback where it is called once that is written.
    pub(super) fn exec(&mut self, delegate: &mut Delegate, entry: &Entry, callback: Option<Callback>) {
        match entry.get_entry_type() {
            EntryType::EntryNormal => {}
            EntryType::EntryConfChangeV2 => {
                if self.exec_members(delegate, entry, callback).is_err() {
                    self.malformed(delegate, entry);
                }
                return;
            }
            EntryType::EntryConfChange => return self.malformed(delegate, entry),
        }
        match command::decode(&entry.data) {
            // Raft leaves an empty entry where it does not accept a change of members.
            Ok(Command::Noop) => callback.into_iter().for_each(|c| c.fail(region_error::stale_command())),
            Ok(Command::Write { version, changes }) => {
                if let Some(callback) = self.pass_epoch(delegate, version, callback) {
                    match self.exec_write(delegate, changes) {
                        Ok(()) => self.done.extend(callback.and_then(into_write)),
                        Err(Malformed) => self.malformed(delegate, entry),
                    }
                }
            }
            Ok(Command::Split { version, split }) => match self.pass_epoch(delegate, version, callback) {
                Some(callback) => self.exec_split(delegate, &split, callback),
                None => delegate.results.push(ExecResult::SplitRefused),
            },
            Ok(Command::PrepareMerge { version, prepare }) => {
                match self.pass_epoch(delegate, version, callback) {
                    Some(callback) => self.exec_prepare_merge(delegate, entry.index, prepare, callback),
                    None => delegate.results.push(ExecResult::MergeEnded { region: None }),
                }
            }
            Ok(Command::CommitMerge { commit, .. }) => self.exec_commit_merge(delegate, &commit, callback),
            Ok(Command::RollbackMerge { version }) => {
                if self.pass_epoch(delegate, version, callback).is_some() {
                    self.exec_rollback_merge(delegate);
                }
            }
            // The batch is written first: see `Applier::hash`.
            Ok(Command::ComputeHash) => {}
            Ok(Command::VerifyHash { index, hash }) => {
                delegate.results.push(ExecResult::VerifyHash { index, hash });
            }
            Err(Malformed) => self.malformed(delegate, entry),
        }
    }

    /// `None` when the region was split between proposal and now: the entry has no effect, and its proposer is told.
    #[allow(clippy::option_option)]
    fn pass_epoch(
        &self,
        delegate: &Delegate,
        version: u64,
        callback: Option<Callback>,
    ) -> Option<Option<Callback>> {
        let current = delegate.region.region_epoch.unwrap_or_default().version;
        if version == current || planted!(ForgetEpoch) {
            return Some(callback);
        }
        assert!(version < current, "an entry of region {} from a later epoch", delegate.region.id);
        if let Some(callback) = callback {
            callback
                .fail(region_error::epoch_not_match(delegate.region.id, vec![(*delegate.region).clone()]));
        }
        None
    }

    fn exec_write(&mut self, delegate: &mut Delegate, changes: Changes<'_>) -> Result<(), Malformed> {
        for change in changes {
            delegate.keys += 1;
            let change = change?;
            delegate.locks.note(&delegate.handle, &change);
            match change {
                Change::Put(cf, key, value) => {
                    delegate.bytes += (key.len() + value.len()) as u64;
                    self.with_data_key(key);
                    self.batch.put(cf, &self.key_buffer, value);
                }
                Change::Delete(cf, key) => {
                    delegate.bytes += key.len() as u64;
                    self.with_data_key(key);
                    self.batch.delete(cf, &self.key_buffer);
                }
                Change::DeleteRange(cf, start, end) => {
                    let end = if end.is_empty() { &delegate.region.end_key[..] } else { end };
                    self.with_data_key(start);
                    self.batch.delete_range(cf, &self.key_buffer, &key::data_end_key(end));
                }
            }
        }
        Ok(())
    }

    fn with_data_key(&mut self, pd_key: &[u8]) {
        self.key_buffer.clear();
        self.key_buffer.push(key::DATA_PREFIX);
        self.key_buffer.extend_from_slice(pd_key);
    }

    fn exec_split(&mut self, delegate: &mut Delegate, split: &SplitCommand, callback: Option<Callback>) {
        let Some(regions) = split_region(&delegate.region, split) else {
            if let Some(callback) = callback {
                callback.fail(region_error::other("the split keys are no cuts of the region"));
            }
            delegate.results.push(ExecResult::SplitRefused);
            return;
        };
        for region in &regions {
            let state = RegionLocalState {
                state: PeerState::Normal.into(),
                region: Some(region.clone()),
                ..Default::default()
            };
            self.batch.put(Cf::Raft, &keys::region_state(region.id), &state.encode_to_vec());
            if region.id != delegate.region.id {
                let state = RaftApplyState {
                    applied_index: INIT_LOG_INDEX,
                    commit_term: INIT_LOG_TERM,
                    ..Default::default()
                };
                self.batch.put(Cf::Raft, &keys::apply_state(region.id), &state.encode_to_vec());
            }
        }
        let regions: Vec<_> = regions.into_iter().map(Arc::new).collect();
        delegate.region = Arc::clone(regions.last().expect("a split has at least the original region"));
        let callback = match callback {
            Some(Callback::Admin(callback)) => Some(callback),
            _ => None,
        };
        delegate.results.push(ExecResult::Split { regions, callback });
    }

    /// A committed entry that cannot be understood means that this log is not what was written.
    pub(super) fn malformed(&mut self, delegate: &Delegate, entry: &Entry) {
        self.failed = true;
        self.engine.fail(Error::Corruption(format!(
            "raft log entry {} of region {} cannot be decoded",
            entry.index, delegate.region.id
        )));
    }
}

fn into_write(callback: Callback) -> Option<super::WriteCallback> {
    match callback {
        Callback::Write(callback) => Some(callback),
        Callback::Admin(_) => None,
    }
}

/// The regions after a split, in key order; the original is the last. `None` when the keys do not ascend within the region.
fn split_region(region: &metapb::Region, split: &SplitCommand) -> Option<Vec<metapb::Region>> {
    let mut epoch = region.region_epoch.unwrap_or_default();
    epoch.version += split.pieces.len() as u64;
    let mut start = region.start_key.clone();
    let mut regions = Vec::with_capacity(split.pieces.len() + 1);
    for piece in &split.pieces {
        let inside = piece.end_key > start && (region.end_key.is_empty() || piece.end_key < region.end_key);
        if !inside || piece.peer_ids.len() != region.peers.len() {
            return None;
        }
        let with_id = |(peer, id): (&metapb::Peer, &u64)| metapb::Peer { id: *id, ..*peer };
        regions.push(metapb::Region {
            id: piece.region_id,
            start_key: start,
            end_key: piece.end_key.clone(),
            region_epoch: Some(epoch),
            peers: region.peers.iter().zip(&piece.peer_ids).map(with_id).collect(),
            ..Default::default()
        });
        start = piece.end_key.clone();
    }
    regions.push(metapb::Region { start_key: start, region_epoch: Some(epoch), ..region.clone() });
    Some(regions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raftstore::command::SplitPiece;

    #[test]
    fn split_keeps_the_tiling() {
        let region = metapb::Region {
            id: 1,
            start_key: "b".into(),
            end_key: "y".into(),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 3, version: 7 }),
            peers: vec![metapb::Peer { id: 2, store_id: 1, ..Default::default() }],
            ..Default::default()
        };
        let piece =
            |id, end: &'static str| SplitPiece { end_key: end.into(), region_id: id, peer_ids: vec![id + 1] };
        let split = |pieces| split_region(&region, &SplitCommand { pieces });
        let regions = split(vec![piece(10, "d"), piece(20, "m")]).unwrap();
        let ranges: Vec<_> = regions.iter().map(|r| (r.id, &r.start_key[..], &r.end_key[..])).collect();
        assert_eq!(ranges, [(10, &b"b"[..], &b"d"[..]), (20, b"d", b"m"), (1, b"m", b"y")]);
        assert!(regions.iter().all(|r| r.region_epoch.unwrap().version == 9));
        assert_eq!(regions[1].peers[0].id, 21);
        assert!(split(vec![piece(10, "m"), piece(20, "d")]).is_none());
        assert!(split(vec![piece(10, "b")]).is_none());
        assert!(split(vec![piece(10, "y")]).is_none());
    }
}
