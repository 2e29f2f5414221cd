//! The identity of a store, and the first region of a cluster.

use prost::Message as _;
use rutile_proto::raft_serverpb::{PeerState, RaftApplyState, RegionLocalState, StoreIdent};
use rutile_proto::{key, metapb};

use super::keys;
use super::peer_storage::{INIT_LOG_INDEX, INIT_LOG_TERM};
use super::store::leader_context;
use super::{RaftKv, RaftStore};
use crate::engine::{self, Cf, Engine, RaftLog};
use crate::pd_client::{self, PdClient};

/// Why a store cannot begin.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The directory is that of a store of another cluster.
    #[error(
        "the data directory {dir} belongs to cluster {actual}, not to cluster {expected}; use another directory"
    )]
    ClusterMismatch {
        /// The store's directory.
        dir: String,
        /// Of the placement driver.
        expected: u64,
        /// Of the directory.
        actual: u64,
    },
    /// Table files without logs or the other way round.
    #[error(
        "the data directory {dir} is incomplete: {what}; put back what is missing, or use an empty directory"
    )]
    Incomplete {
        /// The store's directory.
        dir: String,
        /// What is missing.
        what: &'static str,
    },
    /// Table files of one store and logs of another.
    #[error(
        "the data directory {dir} does not belong together: its raft logs are of store {logs}, its data is of store {data}; \
         put back what belongs together, or use an empty directory"
    )]
    Mixed {
        /// The store's directory.
        dir: String,
        /// The store whose logs they are, and its cluster.
        logs: String,
        /// The store whose data it is, and its cluster.
        data: String,
    },
    /// See the engine's error.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// See the placement driver's error.
    #[error(transparent)]
    Pd(#[from] pd_client::Error),
}

/// The store's identity: from its directory, or a new one.
pub async fn identify(engine: &Engine, log: &RaftLog, pd: &dyn PdClient) -> Result<StoreIdent, Error> {
    let dir = || log.dir().display().to_string();
    let cluster_id = pd.cluster_id().await?.get();
    if let Some(ident) = log.ident()? {
        if ident.cluster_id != cluster_id {
            return Err(Error::ClusterMismatch {
                dir: dir(),
                expected: cluster_id,
                actual: ident.cluster_id,
            });
        }
        let mark = engine.get(Cf::Raft, keys::STORE_MARK)?.and_then(|m| StoreIdent::decode(m).ok());
        // Stores of two clusters may well have the same id.
        if let Some(mark) = mark.filter(|mark| *mark != ident) {
            let name = |store: &StoreIdent| format!("{} of cluster {}", store.store_id, store.cluster_id);
            return Err(Error::Mixed { dir: dir(), logs: name(&ident), data: name(&mark) });
        }
        return Ok(ident);
    }
    if !log.is_empty()? {
        return Err(Error::Incomplete { dir: dir(), what: "the raft logs have no store identity" });
    }
    if engine.get(Cf::Raft, keys::STORE_MARK)?.is_some() {
        return Err(Error::Incomplete { dir: dir(), what: "there is data but there are no raft logs" });
    }
    let ident = StoreIdent { cluster_id, store_id: pd.alloc_ids(1).await? };
    let mut batch = engine.batch();
    batch.put(Cf::Raft, keys::STORE_MARK, &ident.encode_to_vec());
    engine.write(batch)?;
    engine.flush()?;
    let mut batch = log.batch();
    batch.put_ident(&ident)?;
    log.write(&mut batch, true)?;
    Ok(ident)
}

/// Makes the first region if the cluster has none. The region is on disk before the placement driver hears of it, and gone again if
/// another store was faster.
pub async fn bootstrap(engine: &Engine, pd: &dyn PdClient, store: &metapb::Store) -> Result<(), Error> {
    if engine.get(Cf::Raft, keys::STORE_MARK)?.is_none() {
        return Err(Error::Incomplete {
            dir: engine.dir().display().to_string(),
            what: "there are raft logs but no data",
        });
    }
    if pd.is_bootstrapped().await? {
        return Ok(());
    }
    let region = match prepared(engine)? {
        Some(region) => region,
        None => {
            let first = pd.alloc_ids(2).await?;
            let peer = metapb::Peer { id: first + 1, store_id: store.id, ..Default::default() };
            metapb::Region {
                id: first,
                region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
                peers: vec![peer],
                ..Default::default()
            }
        }
    };
    write_first_region(engine, &region)?;
    match pd.bootstrap(store.clone(), region.clone()).await {
        Ok(()) => Ok(()),
        Err(pd_client::Error::AlreadyBootstrapped) => {
            // By another store, or by us just before the answer was lost.
            let ours = pd.get_region_by_id(region.id).await?.is_some_and(|(r, _)| r.peers == region.peers);
            if !ours {
                clear_first_region(engine, region.id)?;
            }
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// A first region that an earlier start wrote before it was interrupted.
fn prepared(engine: &Engine) -> Result<Option<metapb::Region>, Error> {
    let Some(id) = engine.get(Cf::Raft, keys::FIRST_REGION)? else { return Ok(None) };
    let Ok(id) = id[..].try_into().map(u64::from_be_bytes) else { return Ok(None) };
    let state = engine.get(Cf::Raft, &keys::region_state(id))?;
    Ok(state.and_then(|s| RegionLocalState::decode(s).ok()).and_then(|s| s.region))
}

pub(super) fn write_first_region(engine: &Engine, region: &metapb::Region) -> Result<(), Error> {
    let mut batch = engine.batch();
    let state = RegionLocalState {
        state: PeerState::Normal.into(),
        region: Some(region.clone()),
        ..Default::default()
    };
    batch.put(Cf::Raft, &keys::region_state(region.id), &state.encode_to_vec());
    let applied =
        RaftApplyState { applied_index: INIT_LOG_INDEX, commit_term: INIT_LOG_TERM, ..Default::default() };
    batch.put(Cf::Raft, &keys::apply_state(region.id), &applied.encode_to_vec());
    batch.put(Cf::Raft, keys::FIRST_REGION, &region.id.to_be_bytes());
    engine.write(batch)?;
    Ok(engine.flush()?)
}

fn clear_first_region(engine: &Engine, region_id: u64) -> Result<(), Error> {
    let mut batch = engine.batch();
    batch.delete(Cf::Raft, &keys::region_state(region_id));
    batch.delete(Cf::Raft, &keys::apply_state(region_id));
    batch.delete(Cf::Raft, keys::FIRST_REGION);
    engine.write(batch)?;
    Ok(engine.flush()?)
}

/// Splits what this store leads at the bounds of the keyspace DEFAULT, where that has not happened yet: some clients misbehave when
/// a keyspace shares a region with others (kvproto-facts §3.1).
pub async fn split_keyspace(store: &RaftStore) {
    for bound in key::keyspace_bounds(0) {
        let Some(region) = store.region_of_key(&bound) else { continue };
        if region.start_key == bound {
            continue;
        }
        let bounds = key::keyspace_bounds(0);
        let ctx = store.context_of(&region);
        if let Err(error) = store.split(&ctx, bounds).await {
            tracing::warn!(
                region_id = region.id,
                ?error,
                "cannot split at the bounds of the keyspace DEFAULT yet"
            );
            return;
        }
    }
}

impl RaftStore {
    /// The context of a request to this store's own peer.
    #[must_use]
    pub fn context_of(&self, region: &metapb::Region) -> rutile_proto::kvrpcpb::Context {
        leader_context(region, self.store_id())
    }
}
