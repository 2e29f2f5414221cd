//! The peers that a store finds on its disk when it starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{MergeState, PeerState, RaftApplyState, RegionLocalState};

use super::context::StoreContext;
use super::keys;
use super::messages::{ClearTask, SnapshotTask};
use super::peer::Peer;
use super::region_worker::{apply_snapshot, clear};
use super::snapshot::SnapshotFiles;
use crate::engine::{Cf, Error, IterOptions, Result};

/// All peers. Snapshots that were being applied are applied now; logs that removed peers left are removed.
pub(super) fn load_peers(ctx: &StoreContext) -> Result<Vec<Peer>> {
    let interrupted = interrupted_snapshots(ctx)?;
    let kept: Vec<SnapshotFiles> = interrupted.iter().map(|(files, _)| files.clone()).collect();
    SnapshotFiles::remove_others(&ctx.engine, &kept);
    for (files, task) in interrupted {
        finish_snapshot(ctx, task)?;
        files.remove();
    }
    let mut peers = Vec::new();
    for State { region, kind, applied, merge } in states(ctx)?.into_values() {
        match applied {
            _ if kind == PeerState::Tombstone => remove_log(ctx, region.id)?,
            _ if ctx.own_peer(&region).is_none() => finish_removal(ctx, region)?,
            Some(applied) => {
                let mut peer = Peer::load(ctx, Arc::new(region), applied)?;
                merge.filter(|_| kind == PeerState::Merging).into_iter().for_each(|m| peer.set_merging(m));
                peers.push(peer);
            }
            None => return Err(corrupt(ctx, region.id, "the (missing) apply state")),
        }
    }
    Ok(peers)
}

fn corrupt(ctx: &StoreContext, region_id: u64, what: &str) -> Error {
    let dir = ctx.engine.dir().display();
    Error::Corruption(format!("{dir}: {what} of region {region_id} cannot be decoded"))
}

struct State {
    region: metapb::Region,
    kind: PeerState,
    applied: Option<u64>,
    merge: Option<MergeState>,
}

/// The regions in the engine, with the index up to which they are applied.
fn states(ctx: &StoreContext) -> Result<BTreeMap<u64, State>> {
    let snapshot = Arc::new(ctx.engine.snapshot());
    let options = IterOptions {
        lower: keys::REGIONS_MIN.to_vec(),
        upper: keys::REGIONS_MAX.to_vec(),
        ..Default::default()
    };
    let mut iter = snapshot.iter(Cf::Raft, options);
    let mut states = BTreeMap::new();
    let mut valid = iter.seek_to_first()?;
    while valid {
        if let Some(id) = keys::region_of_state(iter.key()) {
            let state = RegionLocalState::decode(iter.value()).map_err(|_| corrupt(ctx, id, "the state"))?;
            let kind = state.state();
            let region = state.region.ok_or_else(|| corrupt(ctx, id, "the (empty) state"))?;
            let applied = match snapshot.get(Cf::Raft, &keys::apply_state(id))? {
                Some(applied) => {
                    let applied = RaftApplyState::decode(applied);
                    Some(applied.map_err(|_| corrupt(ctx, id, "the apply state"))?.applied_index)
                }
                None => None,
            };
            let region = metapb::Region { id, ..region };
            states.insert(id, State { region, kind, applied, merge: state.merge_state });
        }
        valid = iter.next()?;
    }
    Ok(states)
}

fn interrupted_snapshots(ctx: &StoreContext) -> Result<Vec<(SnapshotFiles, SnapshotTask)>> {
    let mut found = Vec::new();
    for region_id in ctx.raft_log.regions()? {
        let Some(data) = ctx.raft_log.applying(region_id)? else { continue };
        let truncated = ctx.raft_log.truncated(region_id)?;
        let truncated = truncated.ok_or_else(|| corrupt(ctx, region_id, "the (missing) truncated state"))?;
        let (index, term) = (truncated.index, truncated.term);
        let files = SnapshotFiles::new(&ctx.engine, region_id, index, term);
        found.push((files, SnapshotTask { region_id, data, index, term, old: None }));
    }
    Ok(found)
}

/// Repeats what a crash interrupted, unless it was complete.
fn finish_snapshot(ctx: &StoreContext, mut task: SnapshotTask) -> Result<()> {
    let region_id = task.region_id;
    let mut states = states(ctx)?;
    let old = states.remove(&region_id);
    let complete = old.as_ref().is_some_and(|old| {
        old.kind == PeerState::Normal && old.applied.is_some_and(|applied| applied >= task.index)
    });
    if !complete {
        tracing::info!(region_id, store_id = ctx.store_id, "goes on applying a snapshot");
        task.old = old.filter(|old| old.kind != PeerState::Tombstone).map(|old| old.region);
        apply_snapshot(&ctx.engine, &task)?;
    }
    let mut batch = ctx.raft_log.batch();
    batch.delete_applying(region_id);
    ctx.raft_log.write(&mut batch, true)
}

/// A crash came between the entry that removed this store's peer and its tombstone.
fn finish_removal(ctx: &StoreContext, region: metapb::Region) -> Result<()> {
    let region_id = region.id;
    tracing::info!(region_id, store_id = ctx.store_id, "goes on removing a peer");
    let old = Some(region.clone());
    clear(&ctx.engine, &ClearTask { region_id, tombstone: region, target: None, keep_data: false, old })?;
    remove_log(ctx, region_id)
}

/// A crash came between the tombstone of a removed peer and the end of its log.
fn remove_log(ctx: &StoreContext, region_id: u64) -> Result<()> {
    if ctx.raft_log.hard_state(region_id)?.is_none() {
        return Ok(());
    }
    let mut batch = ctx.raft_log.batch();
    batch.clean(region_id);
    ctx.raft_log.write(&mut batch, true)
}
