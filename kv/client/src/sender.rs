//! Sends requests to the leaders of regions, and reacts to region errors: learn, pause, try again.

use std::sync::Arc;

use rutile_proto::ids::{ClusterId, RegionId, StoreId, Timestamp};
use rutile_proto::kvrpcpb::Context;
use rutile_proto::{errorpb, metapb};

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{Error, Result, TransportError};
use crate::pd_client::PdClient;
use crate::read_from::{Avoided, ReadFrom};
use crate::region_cache::{Region, RegionCache};
use crate::transport::{StoreResponse, StoreRpc, Transport};
use crate::tso::TsoBatcher;

/// The cluster as the upper floors see it: timestamps, regions, requests to them.
pub struct Cluster {
    transport: Arc<dyn Transport>,
    pd: PdClient,
    tso: TsoBatcher,
    regions: RegionCache,
    avoided: Avoided,
}

/// What became of a request to a region.
pub enum Sent<T> {
    /// The region answered.
    Answer(T),
    /// The region moved or has another leader; the pause is over: look the keys up again and repeat.
    Relocate,
}

/// What a region error asks for.
#[derive(Debug, PartialEq)]
enum Reaction {
    /// Another peer leads.
    SwitchLeader(metapb::Peer),
    /// These regions are current.
    Learn(Vec<metapb::Region>),
    /// The metadata are wrong.
    Invalidate,
    /// The leader is unknown: another peer may know.
    NextPeer,
    /// The region is right, the time is not.
    Pause { kind: BackoffKind, hint_ms: u64 },
    /// The store does not know whether it executed the request.
    Undetermined,
    /// No repetition would help.
    Fail,
}

/// A store's answer to an RPC, and what it says against the region.
fn opened<R: StoreRpc>(
    store: StoreId,
    response: StoreResponse,
) -> Result<(R::Response, Option<errorpb::Error>)> {
    let mut response = R::from_response(response)
        .ok_or_else(|| Error::Protocol(format!("store {store} answered another request")))?;
    let error = R::take_region_error(&mut response);
    Ok((response, error))
}

/// Decides purely.
fn react(error: &mut errorpb::Error) -> Reaction {
    if let Some(not_leader) = error.not_leader.as_mut() {
        return match not_leader.leader.take().filter(|p| p.id != 0) {
            Some(peer) => Reaction::SwitchLeader(peer),
            None => Reaction::NextPeer,
        };
    }
    if let Some(e) = error.epoch_not_match.as_mut() {
        return if e.current_regions.is_empty() {
            Reaction::Invalidate
        } else {
            Reaction::Learn(std::mem::take(&mut e.current_regions))
        };
    }
    if let Some(busy) = error.server_is_busy.as_ref() {
        return Reaction::Pause { kind: BackoffKind::ServerBusy, hint_ms: busy.backoff_ms };
    }
    if error.undetermined_result.is_some() {
        return Reaction::Undetermined;
    }
    if error.raft_entry_too_large.is_some()
        || error.disk_full.is_some()
        || error.flashback_in_progress.is_some()
        || error.flashback_not_prepared.is_some()
    {
        return Reaction::Fail;
    }
    if error.max_timestamp_not_synced.is_some()
        || error.read_index_not_ready.is_some()
        || error.proposal_in_merging_mode.is_some()
        || error.data_is_not_ready.is_some()
        || error.recovery_in_progress.is_some()
    {
        return Reaction::Pause { kind: BackoffKind::RegionMiss, hint_ms: 0 };
    }
    Reaction::Invalidate
}

impl Cluster {
    /// A cluster behind a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        let pd = PdClient::new(transport.clone());
        Cluster {
            tso: TsoBatcher::new(transport.clone()),
            regions: RegionCache::new(pd.clone()),
            avoided: Avoided::default(),
            pd,
            transport,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ClusterId {
        self.transport.cluster_id()
    }

    /// The transport.
    #[must_use]
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The placement driver.
    #[must_use]
    pub fn pd(&self) -> &PdClient {
        &self.pd
    }

    /// Known regions.
    #[must_use]
    pub fn regions(&self) -> &RegionCache {
        &self.regions
    }

    /// A fresh timestamp.
    pub async fn timestamp(&self) -> Result<Timestamp> {
        self.tso.get().await
    }

    /// The region that holds `pd_key`, waiting for one within the budget.
    pub async fn locate(&self, pd_key: &[u8], backoff: &mut Backoff) -> Result<Arc<Region>> {
        loop {
            match self.regions.locate(pd_key).await {
                Err(error @ Error::RegionUnavailable { .. }) => {
                    backoff.wait(BackoffKind::RegionMiss, error).await?;
                }
                result => return result,
            }
        }
    }

    /// The region that holds the keys just below `pd_end`, waiting for one within the budget.
    pub async fn locate_before(&self, pd_end: &[u8], backoff: &mut Backoff) -> Result<Arc<Region>> {
        loop {
            match self.regions.locate_before(pd_end).await {
                Err(error @ Error::RegionUnavailable { .. }) => {
                    backoff.wait(BackoffKind::RegionMiss, error).await?;
                }
                result => return result,
            }
        }
    }

    /// Sorts items to the regions of their keys, keeping their order within a region.
    pub async fn group_by_region<T>(
        &self,
        items: Vec<T>,
        pd_key: impl Fn(&T, &mut Vec<u8>),
        backoff: &mut Backoff,
    ) -> Result<Vec<(Arc<Region>, Vec<T>)>> {
        let mut groups: Vec<(Arc<Region>, Vec<T>)> = Vec::new();
        let mut key = Vec::new();
        let mut items_left = items.len();
        for item in items {
            key.clear();
            pd_key(&item, &mut key);
            let at = match groups.iter().rposition(|(region, _)| region.contains(&key)) {
                Some(at) => at,
                None => {
                    groups.push((self.locate(&key, backoff).await?, Vec::with_capacity(items_left)));
                    groups.len() - 1
                }
            };
            groups[at].1.push(item);
            items_left -= 1;
        }
        Ok(groups)
    }

    /// One request to the region's leader. On a region error learns, pauses, and asks to look the keys up again.
    pub async fn send<R: StoreRpc>(
        &self,
        region: &Arc<Region>,
        mut request: R,
        adjust: impl FnOnce(&mut Context),
        backoff: &mut Backoff,
    ) -> Result<Sent<R::Response>> {
        let Some(store) = region.leader_store() else {
            self.regions.invalidate(region);
            return Err(Error::Protocol(format!("region {} has a peer without a store", region.id())));
        };
        let mut context = region.context();
        adjust(&mut context);
        request.set_context(context);
        match self.transport.store(store, request.into_request()).await {
            Ok(response) => match opened::<R>(store, response)? {
                (response, None) => Ok(Sent::Answer(response)),
                (_, Some(error)) => {
                    self.on_region_error(region, error, backoff).await?;
                    Ok(Sent::Relocate)
                }
            },
            Err(error) => {
                self.on_transport_error(region, store, error, backoff).await?;
                Ok(Sent::Relocate)
            }
        }
    }

    /// One read of a region: from another peer than the leader if that is wished and the peer can serve it, else as [`Cluster::send`].
    pub async fn read<R: StoreRpc>(
        &self,
        region: &Arc<Region>,
        request: R,
        from: ReadFrom,
        adjust: impl Fn(&mut Context),
        backoff: &mut Backoff,
    ) -> Result<Sent<R::Response>> {
        let chosen = from.choose(region, &self.avoided);
        if let Some(peer) = chosen
            && let Some(store) = StoreId::new(peer.store_id)
        {
            let mut context = Context { peer: Some(*peer), ..region.context() };
            adjust(&mut context);
            from.mark(&mut context);
            let mut request = request.clone();
            request.set_context(context);
            match self.transport.store(store, request.into_request()).await {
                Ok(response) => match opened::<R>(store, response)? {
                    (response, None) => return Ok(Sent::Answer(response)),
                    (_, Some(error)) if error.epoch_not_match.is_some() => {
                        self.on_region_error(region, error, backoff).await?;
                        return Ok(Sent::Relocate);
                    }
                    // Not there, or not yet.
                    (_, Some(_)) => {}
                },
                Err(_) => {
                    self.transport.forget_store(store);
                    self.avoided.add(store);
                }
            }
        }
        self.send(region, request, adjust, backoff).await
    }

    /// A read of one key, repeated until its region answers or the budget is used up.
    pub async fn read_key<R: StoreRpc>(
        &self,
        pd_key: &[u8],
        request: &R,
        from: ReadFrom,
        adjust: impl Fn(&mut Context),
        backoff: &mut Backoff,
    ) -> Result<R::Response> {
        loop {
            let region = self.locate(pd_key, backoff).await?;
            let sent = self.read(&region, request.clone(), from, &adjust, backoff).await?;
            if let Sent::Answer(answer) = sent {
                return Ok(answer);
            }
        }
    }

    /// A request about one key, repeated until its region answers or the budget is used up.
    pub async fn call<R: StoreRpc>(
        &self,
        pd_key: &[u8],
        request: &R,
        adjust: impl Fn(&mut Context),
        backoff: &mut Backoff,
    ) -> Result<R::Response> {
        loop {
            let region = self.locate(pd_key, backoff).await?;
            if let Sent::Answer(answer) = self.send(&region, request.clone(), &adjust, backoff).await? {
                return Ok(answer);
            }
        }
    }

    /// Learns from a region error and pauses as it asks for.
    pub async fn on_region_error(
        &self,
        region: &Arc<Region>,
        mut error: errorpb::Error,
        backoff: &mut Backoff,
    ) -> Result<()> {
        let failure = failure(region.id(), &error);
        match react(&mut error) {
            Reaction::SwitchLeader(peer) => {
                if !region.set_leader(&peer) {
                    self.regions.invalidate(region);
                }
                backoff.wait(BackoffKind::UpdateLeader, failure).await
            }
            Reaction::NextPeer => {
                backoff.wait(BackoffKind::RegionMiss, failure).await?;
                if !region.try_next_peer() {
                    self.regions.invalidate(region);
                }
                Ok(())
            }
            Reaction::Learn(current) => {
                if self.regions.on_epoch_not_match(region, current) {
                    return backoff.wait(BackoffKind::UpdateLeader, failure).await;
                }
                backoff.wait(BackoffKind::RegionMiss, failure).await?;
                self.regions.invalidate(region);
                Ok(())
            }
            Reaction::Invalidate => {
                self.regions.invalidate(region);
                backoff.wait(BackoffKind::RegionMiss, failure).await
            }
            Reaction::Pause { kind, hint_ms } => backoff.wait_at_least(kind, hint_ms, failure).await,
            Reaction::Undetermined => {
                backoff.set_maybe_executed();
                backoff.wait(BackoffKind::RegionMiss, failure).await
            }
            Reaction::Fail => Err(failure),
        }
    }

    async fn on_transport_error(
        &self,
        region: &Arc<Region>,
        store: StoreId,
        error: TransportError,
        backoff: &mut Backoff,
    ) -> Result<()> {
        if error.maybe_executed {
            backoff.set_maybe_executed();
        }
        self.transport.forget_store(store);
        backoff.wait(BackoffKind::Rpc, Error::Store { store, message: error.message }).await?;
        // Another peer may lead by now; the placement driver may know as well.
        if !region.leave_store(store) || rand::random::<u8>() < 64 {
            self.regions.invalidate(region);
        }
        Ok(())
    }
}

fn failure(region: RegionId, error: &errorpb::Error) -> Error {
    if let Some(e) = error.raft_entry_too_large.as_ref() {
        return Error::EntryTooLarge { region: Some(region), size_bytes: e.entry_size };
    }
    let message = match error {
        e if !e.message.is_empty() => e.message.clone(),
        e if e.not_leader.is_some() => "not leader".to_owned(),
        e if e.epoch_not_match.is_some() => "epoch does not match".to_owned(),
        e if e.disk_full.is_some() => "disk full".to_owned(),
        _ => format!("{error:?}"),
    };
    Error::RegionUnavailable { region: Some(region), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reactions() {
        let peer = metapb::Peer { id: 7, store_id: 3, ..Default::default() };
        let not_leader = |leader| errorpb::Error {
            not_leader: Some(errorpb::NotLeader { region_id: 1, leader }),
            ..Default::default()
        };
        assert_eq!(react(&mut not_leader(Some(peer))), Reaction::SwitchLeader(peer));
        assert_eq!(react(&mut not_leader(None)), Reaction::NextPeer);
        assert_eq!(react(&mut errorpb::Error::default()), Reaction::Invalidate);
        let stale = errorpb::Error { epoch_not_match: Some(Default::default()), ..Default::default() };
        assert_eq!(react(&mut stale.clone()), Reaction::Invalidate);
        let busy = errorpb::ServerIsBusy { backoff_ms: 5, ..Default::default() };
        let mut busy = errorpb::Error { server_is_busy: Some(busy), ..Default::default() };
        assert_eq!(react(&mut busy), Reaction::Pause { kind: BackoffKind::ServerBusy, hint_ms: 5 });
        let mut unknown =
            errorpb::Error { undetermined_result: Some(Default::default()), ..Default::default() };
        assert_eq!(react(&mut unknown), Reaction::Undetermined);
        let mut large =
            errorpb::Error { raft_entry_too_large: Some(Default::default()), ..Default::default() };
        assert_eq!(react(&mut large), Reaction::Fail);
    }
}
