//! What the placement driver hears of this store, and what it asks for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use raft::eraftpb::ConfChangeType;
use rutile_proto::raft_serverpb::RaftMessage;
use rutile_proto::{metapb, pdpb};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::split_check;
use crate::metrics;
use crate::pd_client::PdClient;
use crate::raftstore::api::RegionResult;
use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::{PdEvent, StoreMsg};
use crate::raftstore::registry::RegionHandle;
use crate::raftstore::split;

const RETRY: Duration = Duration::from_secs(1);
/// Heartbeats on their way to the placement driver, at most.
const QUEUE_MAX: usize = 1024;

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Tells how the store is, from time to time.
pub(super) async fn store_heartbeats(ctx: Arc<StoreContext>, pd: Arc<dyn PdClient>, start_time_s: u32) {
    let mut ticks = tokio::time::interval(ctx.config.store_heartbeat_interval.0);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last, mut told) = (now_s(), Totals::default());
    loop {
        ticks.tick().await;
        let (now, totals) = (now_s(), Totals::of(&ctx));
        let mut stats = store_stats(&ctx, start_time_s, last, now);
        // A peer that left took its part along: the sums may be smaller.
        stats.bytes_written = totals.written.0.saturating_sub(told.written.0);
        stats.keys_written = totals.written.1.saturating_sub(told.written.1);
        stats.bytes_read = totals.read.0.saturating_sub(told.read.0);
        stats.keys_read = totals.read.1.saturating_sub(told.read.1);
        (last, told) = (now, totals);
        if let Err(error) = pd.store_heartbeat(stats).await {
            tracing::warn!(%error, "store heartbeat failed");
        }
    }
}

/// Bytes and keys that went through all peers of a store.
#[derive(Default)]
struct Totals {
    written: (u64, u64),
    read: (u64, u64),
}

impl Totals {
    fn of(ctx: &StoreContext) -> Self {
        let sum = |(b, k): (u64, u64), (bytes, keys): (u64, u64)| (b + bytes, k + keys);
        ctx.registry.all().iter().fold(Totals::default(), |totals, handle| Totals {
            written: sum(totals.written, handle.flow.written.total()),
            read: sum(totals.read, handle.flow.read.total()),
        })
    }
}

fn store_stats(ctx: &StoreContext, start_time: u32, from: u64, to: u64) -> pdpb::StoreStats {
    let dir = ctx.engine.dir();
    let all = ctx.registry.all();
    let leaders = all.iter().filter(|h| h.published().is_leader).count();
    let label = [ctx.store_id.to_string()];
    metrics::REGIONS.with_label_values(&label).set(all.len() as i64);
    metrics::LEADERS.with_label_values(&label).set(leaders as i64);
    pdpb::StoreStats {
        store_id: ctx.store_id,
        capacity: fs2::total_space(dir).unwrap_or(0),
        available: fs2::available_space(dir).unwrap_or(0),
        region_count: all.len() as u32,
        start_time,
        used_size: ctx.engine.used_size_bytes() + ctx.raft_log.used_size_bytes(),
        interval: Some(pdpb::TimeInterval { start_timestamp: from, end_timestamp: to }),
        ..Default::default()
    }
}

/// Sends region heartbeats and reports of splits; does what the answers ask for.
pub(super) async fn region_heartbeats(
    ctx: Arc<StoreContext>,
    pd: Arc<dyn PdClient>,
    mut events: UnboundedReceiver<PdEvent>,
) {
    loop {
        let (tx, rx) = mpsc::channel(QUEUE_MAX);
        match pd.region_heartbeats(rx).await {
            Ok(answers) => session(&ctx, &pd, &mut events, tx, answers).await,
            Err(error) => tracing::warn!(%error, "no stream for region heartbeats"),
        }
        if events.is_closed() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

type Answers = futures::stream::BoxStream<'static, crate::pd_client::Result<pdpb::RegionHeartbeatResponse>>;

/// One stream's life. It begins with a heartbeat of every region led here.
async fn session(
    ctx: &Arc<StoreContext>,
    pd: &Arc<dyn PdClient>,
    events: &mut UnboundedReceiver<PdEvent>,
    tx: mpsc::Sender<pdpb::RegionHeartbeatRequest>,
    mut answers: Answers,
) {
    let mut ticks = tokio::time::interval(ctx.config.region_heartbeat_interval.0);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                for handle in ctx.registry.all() {
                    if !send(ctx, &tx, &handle).await {
                        return;
                    }
                }
            }
            event = events.recv() => match event {
                Some(PdEvent::Heartbeat { region_id }) => {
                    let Some(handle) = ctx.registry.get(region_id) else { continue };
                    if !send(ctx, &tx, &handle).await {
                        return;
                    }
                }
                Some(PdEvent::Split { regions }) => {
                    let regions = regions.iter().map(|r| (**r).clone()).collect();
                    if let Err(error) = pd.report_batch_split(regions).await {
                        tracing::info!(%error, "the split was not reported; heartbeats will tell");
                    }
                }
                Some(PdEvent::IsMember { region_id, peer }) => {
                let (ctx, pd) = (Arc::clone(ctx), Arc::clone(pd));
                tokio::spawn(async move { check_member(&ctx, &*pd, region_id, peer).await });
            }
                None => return,
            },
            answer = answers.next() => match answer {
                Some(Ok(answer)) if asks_for_news(&answer) => {
                    let Some(handle) = ctx.registry.get(answer.region_id) else { continue };
                    if !send(ctx, &tx, &handle).await {
                        return;
                    }
                }
                Some(Ok(answer)) => act(ctx, pd, answer),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the stream of region heartbeats broke");
                    return;
                }
                None => return,
            },
        }
    }
}

/// `false` when the stream is closed.
async fn send(
    ctx: &StoreContext,
    tx: &mpsc::Sender<pdpb::RegionHeartbeatRequest>,
    handle: &RegionHandle,
) -> bool {
    let published = handle.published();
    if !published.is_leader {
        return true;
    }
    let followers = handle.followers.lock().clone();
    let (bytes_written, keys_written) = handle.flow.written.take();
    let (bytes_read, keys_read) = handle.flow.read.take();
    let now = ctx.clock.now();
    let down = |(peer, since): (metapb::Peer, Duration)| pdpb::PeerStats {
        peer: Some(peer),
        down_seconds: now.saturating_sub(since).as_secs(),
    };
    let heartbeat = pdpb::RegionHeartbeatRequest {
        region: Some((*published.region).clone()),
        leader: published.region.peers.iter().find(|p| p.store_id == ctx.store_id).copied(),
        bytes_written,
        keys_written,
        bytes_read,
        keys_read,
        approximate_size: handle.approximate_size.load(Ordering::Relaxed)
            + handle.unchecked_bytes.load(Ordering::Relaxed),
        term: published.term,
        pending_peers: followers.pending,
        down_peers: followers.down.into_iter().map(down).collect(),
        ..Default::default()
    };
    tx.send(heartbeat).await.is_ok()
}

/// An answer without a step: the region's heartbeat is wanted at once.
fn asks_for_news(answer: &pdpb::RegionHeartbeatResponse) -> bool {
    answer.region_id != 0
        && answer.header.as_ref().is_none_or(|header| header.error.is_none())
        && answer.change_peer.is_none()
        && answer.change_peer_v2.is_none()
        && answer.transfer_leader.is_none()
        && answer.merge.is_none()
        && answer.split_region.is_none()
}

/// One step of an operator, if it is still meant for the region as it is.
fn act(ctx: &Arc<StoreContext>, pd: &Arc<dyn PdClient>, answer: pdpb::RegionHeartbeatResponse) {
    let Some(handle) = ctx.registry.get(answer.region_id) else { return };
    let published = handle.published();
    if !published.is_leader || answer.region_epoch != published.region.region_epoch {
        return;
    }
    if let Some(peer) = answer.transfer_leader.as_ref().and_then(|t| t.peer) {
        let region_id = answer.region_id;
        let _ = ctx.store_of(region_id).send(StoreMsg::TransferLeader { region_id, peer });
    } else if let Some(step) = answer.split_region.clone() {
        let (ctx, pd) = (Arc::clone(ctx), Arc::clone(pd));
        tokio::spawn(async move {
            let keys = if step.keys.is_empty() { middle(&ctx, &published.region).await } else { step.keys };
            if let Err(error) = split::split(&ctx, &*pd, &published, keys).await {
                tracing::info!(region_id = published.region.id, ?error, "the split asked for did not happen");
            }
        });
    } else if let Some(changes) = changes_of(&answer) {
        let (region_id, epoch) = (answer.region_id, answer.region_epoch);
        let callback = Box::new(move |result: RegionResult<_>| {
            if let Err(error) = result {
                tracing::info!(region_id, ?error, "the change of members asked for did not happen");
            }
        });
        let _ = ctx.store_of(region_id).send(StoreMsg::ChangePeers { region_id, epoch, changes, callback });
    } else if let Some(target) = answer.merge.and_then(|m| m.target) {
        let (region_id, epoch) = (answer.region_id, answer.region_epoch);
        let callback = Box::new(move |result: RegionResult<_>| {
            if let Err(error) = result {
                tracing::info!(region_id, ?error, "the merge asked for did not begin");
            }
        });
        let _ = ctx.store_of(region_id).send(StoreMsg::PrepareMerge { region_id, epoch, target, callback });
    }
}

/// Where to split a region of which nobody says where.
async fn middle(ctx: &Arc<StoreContext>, region: &Arc<metapb::Region>) -> Vec<Bytes> {
    let (ctx, region) = (Arc::clone(ctx), Arc::clone(region));
    let found = tokio::task::spawn_blocking(move || split_check::middle(&ctx, &region)).await;
    found.ok().and_then(Result::ok).flatten().into_iter().collect()
}

/// The change of members that an answer asks for; none that makes no sense.
fn changes_of(answer: &pdpb::RegionHeartbeatResponse) -> Option<Vec<(ConfChangeType, metapb::Peer)>> {
    let changes = match (&answer.change_peer, &answer.change_peer_v2) {
        (Some(change), _) => std::slice::from_ref(change),
        (None, Some(joint)) => &joint.changes[..],
        (None, None) => return None,
    };
    let change = |c: &pdpb::ChangePeer| {
        let kind = match c.change_type {
            0 => ConfChangeType::AddNode,
            1 => ConfChangeType::RemoveNode,
            2 => ConfChangeType::AddLearnerNode,
            _ => return None,
        };
        Some((kind, c.peer?))
    };
    changes.iter().map(change).collect()
}

/// Ends a peer that is no member of its region any more, as the placement driver knows it.
async fn check_member(ctx: &StoreContext, pd: &dyn PdClient, region_id: u64, peer: metapb::Peer) {
    let Ok(Some((region, _))) = pd.get_region_by_id(region_id).await else { return };
    if let Some(gone) = gone(&region, peer) {
        let _ = ctx.store_of(region_id).send(StoreMsg::Raft(Box::new(gone)));
    }
}

/// What a peer is told that is no member of its region.
pub(in crate::raftstore) fn gone(region: &metapb::Region, peer: metapb::Peer) -> Option<RaftMessage> {
    region.peers.iter().all(|p| p.id != peer.id).then(|| RaftMessage {
        region_id: region.id,
        from_peer: Some(peer),
        to_peer: Some(peer),
        region_epoch: region.region_epoch,
        is_tombstone: true,
        ..Default::default()
    })
}
