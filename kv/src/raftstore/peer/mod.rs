//! One replica of a region, on its store thread.

mod consistency;
mod members;
mod merge;
mod message;
mod propose;
mod read;
mod ready;
mod rest;
mod sleep;
mod snapshot;
mod split;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use raft::{RawNode, StateRole};
use rutile_proto::{errorpb, metapb};

use self::read::Reads;
use super::api::RegionEvent;
use super::apply::{ApplyMsg, Callback};
use super::context::StoreContext;
use super::peer_storage::PeerStorage;
use super::region_error;
use super::registry::{Published, RegionHandle};
use crate::config::RaftConfig;
use crate::engine::{Error, Result};
use crate::metrics;

pub(crate) use self::message::is_initial;
pub(crate) use self::ready::PendingReady;
pub(crate) use self::rest::Resting;

/// Entries in one message to a follower; more only if the first one is larger.
const APPEND_SIZE_BYTES_MAX: usize = 1 << 20;

/// A proposed entry, and who waits for it.
struct Proposal {
    index: u64,
    term: u64,
    at: Duration,
    callback: Callback,
}

/// Numbers that are random enough for timeouts (splitmix64).
struct Luck(u64);

impl Luck {
    fn new(seed: u64) -> Self {
        Luck(seed)
    }

    /// At least 0, less than `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// One replica of a region.
pub(crate) struct Peer {
    pub(crate) region: Arc<metapb::Region>,
    pub(crate) handle: Arc<RegionHandle>,
    peer: metapb::Peer,
    raft: RawNode<PeerStorage>,
    proposals: VecDeque<Proposal>,
    reads: Reads,
    is_leader: bool,
    /// Is in the store loop's list of peers to look at.
    pub(crate) is_pending: bool,
    /// Last index handed to the apply thread.
    handed_to_apply: u64,
    /// Changes of members on their way through the apply thread. Raft hears that they are applied together with what they say.
    members_at: VecDeque<u64>,
    /// Where peers are that are not (or not yet) known as members: senders of messages.
    senders: Vec<metapb::Peer>,
    /// Index and term of a snapshot that raft gets when all that was applied is on disk.
    settling: Option<(u64, u64)>,
    /// A snapshot is being put into the engine; raft waits.
    applying: Option<snapshot::Applying>,
    /// No vote for so many ticks: it was found on disk at start, and another's lease may rest on what it promised before.
    voteless_ticks: usize,
    /// When members were heard of last; a leader's.
    heard: Vec<(u64, Duration)>,
    /// No lease before: a member was asked to take over, which may still happen.
    lease_after: Option<Duration>,
    leaderless_since: Option<Duration>,
    /// For election timeouts.
    luck: Luck,
    sleep: sleep::Sleep,
    checksums: consistency::Checksums,
    /// Waits to be merged into another region.
    merge: Option<merge::Merge>,
    /// Committed splits whose outcome has not come back from the apply thread.
    splits: usize,
    /// Committed prepares of a merge whose outcome has not come back from the apply thread.
    prepares: usize,
    /// The region whose merge into this one is proposed, with the index of its prepare, and in which term.
    merging_source: Option<(u64, u64, u64)>,
    /// Its log cannot be applied here.
    needs_snapshot: bool,
}

impl Peer {
    /// A peer that another store sent a message to, and that has nothing yet.
    pub(crate) fn uninitialized(ctx: &StoreContext, region_id: u64, peer: metapb::Peer) -> Result<Self> {
        let region = Arc::new(metapb::Region { id: region_id, ..Default::default() });
        let storage = PeerStorage::uninitialized(ctx.engine.clone(), ctx.raft_log.clone(), region_id)?;
        Self::build(ctx, region, peer, storage, 0, None)
    }

    /// A peer as the disk has it; `applied` is the index and term of the last applied entry.
    pub(crate) fn load(ctx: &StoreContext, region: Arc<metapb::Region>, applied: u64) -> Result<Self> {
        let Some(peer) = ctx.own_peer(&region).copied() else {
            return Err(Error::Corruption(format!(
                "region {} has no peer on store {}",
                region.id, ctx.store_id
            )));
        };
        let storage = PeerStorage::load(ctx.engine.clone(), ctx.raft_log.clone(), &region, applied)?;
        Self::build(ctx, region, peer, storage, applied, None)
    }

    fn build(
        ctx: &StoreContext,
        region: Arc<metapb::Region>,
        peer: metapb::Peer,
        storage: PeerStorage,
        applied: u64,
        handle: Option<Arc<RegionHandle>>,
    ) -> Result<Self> {
        let applied_term = raft::Storage::term(&storage, applied).map_err(|e| {
            Error::Corruption(format!(
                "{}: term of entry {applied} of region {}: {e}",
                ctx.raft_log.dir().display(),
                region.id
            ))
        })?;
        let handle = handle.unwrap_or_else(|| {
            Arc::new(RegionHandle::new(Arc::clone(&region), peer, (applied, applied_term)))
        });
        let config = raft::Config {
            id: peer.id,
            election_tick: ctx.config.election_ticks,
            heartbeat_tick: ctx.config.heartbeat_ticks,
            applied,
            max_size_per_msg: APPEND_SIZE_BYTES_MAX as u64,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            // Raft's own batching appends entries to a message whatever comes before them: see `join_appends`.
            batch_append: false,
            max_committed_size_per_ready: 16 << 20,
            ..Default::default()
        };
        let mut raft =
            RawNode::new(&config, storage, &ctx.raft_logger).map_err(|e| Error::RaftLog(e.to_string()))?;
        raft.mut_store().forget_members();
        let handed_to_apply = applied;
        Ok(Self {
            region,
            handle,
            peer,
            raft,
            proposals: VecDeque::new(),
            reads: Reads::default(),
            is_leader: false,
            is_pending: false,
            handed_to_apply,
            members_at: VecDeque::new(),
            senders: Vec::new(),
            settling: None,
            applying: None,
            voteless_ticks: 0,
            luck: Luck::new(ctx.seed ^ peer.id),
            heard: Vec::new(),
            lease_after: None,
            leaderless_since: None,
            sleep: sleep::Sleep::default(),
            checksums: consistency::Checksums::default(),
            merge: None,
            splits: 0,
            prepares: 0,
            needs_snapshot: false,
            merging_source: None,
        })
    }

    /// Whether it knows its region.
    pub(crate) fn is_initialized(&self) -> bool {
        !self.region.peers.is_empty()
    }

    /// Notes that it was found on disk: it may have made promises that it does not remember.
    pub(crate) fn set_loaded(&mut self, ctx: &StoreContext) {
        // Counted in ticks, of which a clock that jumps makes one only.
        self.voteless_ticks = ctx.config.election_ticks;
    }

    /// Makes the peer known to readers and to its apply thread.
    pub(crate) fn register(&self, ctx: &StoreContext) {
        let register = ApplyMsg::Register {
            region: Arc::clone(&self.region),
            handle: Arc::clone(&self.handle),
            merging: self.is_merging(),
        };
        let _ = ctx.applier_of(self.region.id).send(register);
        ctx.registry.insert(Arc::clone(&self.handle));
    }

    pub(crate) fn id(&self) -> u64 {
        self.peer.id
    }

    /// Whether nobody else votes.
    pub(crate) fn is_only_voter(&self) -> bool {
        let conf = self.raft.raft.prs().conf();
        conf.voters().ids().iter().all(|id| id == self.peer.id) && conf.voters().contains(self.peer.id)
    }

    /// Whether raft's clock matters: a sole voter that leads has nobody to tell and nothing to fear.
    pub(crate) fn needs_ticks(&self) -> bool {
        let clock = self.region.peers.len() != 1 || !self.is_leader || self.is_merging();
        clock && self.applying.is_none() && !self.is_asleep()
    }

    pub(crate) fn tick(&mut self, ctx: &StoreContext) {
        self.voteless_ticks = self.voteless_ticks.saturating_sub(1);
        let raft = &mut self.raft.raft;
        if raft.election_elapsed == 0 {
            // Raft's own draw cannot be repeated.
            let ticks = ctx.config.election_ticks;
            raft.set_randomized_election_timeout(ticks + self.luck.below(ticks as u64) as usize);
        }
        self.raft.tick();
        self.reads.retry(&mut self.raft);
        self.offer_merge(ctx);
        self.ask_for_snapshot(ctx);
        if self.is_leader {
            self.look_at_followers(ctx);
            self.consider_sleep(ctx);
        } else {
            self.look_for_leader(ctx);
        }
    }

    /// Tries to become leader.
    pub(crate) fn campaign(&mut self) {
        if self.is_applying() {
            return;
        }
        if let Err(error) = self.raft.campaign() {
            tracing::warn!(region_id = self.region.id, %error, "cannot campaign");
        }
    }

    /// Tries to become leader without asking first who would vote: nobody else can lead yet.
    pub(crate) fn campaign_first(&mut self) {
        self.raft.raft.pre_vote = false;
        self.campaign();
        self.raft.raft.pre_vote = true;
    }

    /// Whether a snapshot is being put into the engine.
    pub(crate) fn is_applying(&self) -> bool {
        self.applying.is_some()
    }

    /// Nobody gets an answer from this peer any more; who waits for a proposal hears of `outcome`.
    pub(crate) fn end(mut self, ctx: &StoreContext, outcome: &errorpb::Error) {
        ctx.registry.end_lease(&self.handle);
        if self.is_leader {
            let (region, term) = (Arc::clone(&self.region), self.raft.raft.term);
            ctx.tell_then(&RegionEvent::LostLeader { region, term }, || ());
        }
        for proposal in std::mem::take(&mut self.proposals) {
            proposal.callback.fail(outcome.clone());
        }
        self.reads.fail_all(&region_error::region_not_found(self.region.id));
    }

    /// Takes note of what is applied. Returns whether it should be looked at again soon.
    pub(crate) fn on_applied(&mut self) -> bool {
        let applied = self.applied_for_raft();
        if applied > self.raft.raft.raft_log.applied {
            self.raft.advance_apply_to(applied);
            self.raft.mut_store().trim_cache(applied);
        }
        self.finish_reads();
        self.raft.store().is_cached()
    }

    /// Cuts the log off up to `index`, at most what is applied and (unless forced, or the log became too long) what every follower
    /// has. Returns what the caller writes.
    pub(crate) fn truncate(
        &mut self,
        ctx: &StoreContext,
        index: u64,
        force: bool,
    ) -> Option<rutile_proto::raft_serverpb::RaftTruncatedState> {
        if self.applying.is_some() || !self.is_initialized() {
            return None;
        }
        let mut index = index.min(self.handle.applied_index()).min(self.merge_needs());
        if self.is_leader && !force {
            let slowest = self.raft.raft.prs().iter().map(|(_, p)| p.matched).min().unwrap_or(0);
            index = slowest.max(index.saturating_sub(ctx.config.log_gc_lag_max)).min(index);
        }
        if index <= self.raft.store().truncated().index {
            return None;
        }
        let term = raft::Storage::term(self.raft.store(), index).ok()?;
        let truncated = rutile_proto::raft_serverpb::RaftTruncatedState { index, term };
        self.raft.mut_store().set_truncated(truncated);
        self.raft.mut_store().trim_cache(index);
        Some(truncated)
    }

    fn published(&self) -> Published {
        let leader_id = self.raft.raft.leader_id;
        Published {
            region: Arc::clone(&self.region),
            term: self.raft.raft.term,
            is_leader: self.is_leader,
            merging: self.is_merging(),
            leader: self.region.peers.iter().find(|p| p.id == leader_id).copied(),
        }
    }

    /// Publishes leadership, term and leader after raft's state changed.
    fn on_role(&mut self, ctx: &StoreContext) {
        let leads = self.raft.raft.state == StateRole::Leader;
        let was_leader = std::mem::replace(&mut self.is_leader, leads);
        let state = self.published();
        let (region, term) = (Arc::clone(&self.region), state.term);
        let publish = || ctx.registry.publish(&self.handle, state);
        match (was_leader, leads) {
            (false, true) => {
                metrics::LEADERSHIPS.inc();
                self.heard.clear();
                self.lease_after = None;
                ctx.registry.end_lease(&self.handle);
                if self.is_only_voter() && !self.is_merging() {
                    ctx.registry.lease_forever(&self.handle);
                }
                ctx.tell_then(&RegionEvent::BecameLeader { region, term }, publish);
                ctx.heartbeat(self.region.id);
            }
            (true, false) => {
                self.raft.skip_bcast_commit(true);
                ctx.registry.end_lease(&self.handle);
                publish();
                ctx.tell_then(&RegionEvent::LostLeader { region, term }, || ());
            }
            _ => publish(),
        }
    }

    /// How long a quorum's promise not to elect another holds.
    pub(crate) fn lease(config: &RaftConfig) -> Duration {
        // Followers wait an election timeout before they vote; its first tick may come at once, and clocks may drift apart.
        config.tick.0 * (config.election_ticks as u32 - 2)
    }
}
