//! Changes of members, at the leader that proposes them and at every member that has applied them.

use std::sync::Arc;

use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use rutile_proto::metapb::{self, PeerRole};

use super::{Peer, Proposal};
use crate::raftstore::api::RegionEvent;
use crate::raftstore::apply::Callback;
use crate::raftstore::apply::members::change_members;
use crate::raftstore::command::MembersCommand;
use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::AdminCallback;
use crate::raftstore::peer_storage::conf_state;
use crate::raftstore::region_error;

impl Peer {
    /// Proposes a change of members: none leaves a joint configuration, one is a simple change, more are a joint one.
    pub(crate) fn propose_members(
        &mut self,
        ctx: &StoreContext,
        epoch: Option<metapb::RegionEpoch>,
        changes: &[(ConfChangeType, metapb::Peer)],
        callback: AdminCallback,
    ) {
        if let Err(error) = self.check_members(epoch, changes) {
            callback(Err(error));
            return;
        }
        self.wake();
        let mut change = ConfChangeV2::default();
        if changes.len() > 1 {
            change.set_transition(ConfChangeTransition::Explicit);
        }
        for (kind, peer) in changes {
            let mut single = ConfChangeSingle::default();
            single.set_change_type(*kind);
            single.node_id = peer.id;
            change.mut_changes().push(single);
        }
        let epoch = self.region.region_epoch.unwrap_or_default();
        let command = MembersCommand {
            conf_ver: epoch.conf_ver,
            version: epoch.version,
            peers: changes.iter().map(|(_, peer)| *peer).collect(),
        };
        if let Err(error) = self.raft.propose_conf_change(command.encode_to_vec(), change) {
            tracing::debug!(region_id = self.region.id, %error, "change of members dropped");
            callback(Err(region_error::not_leader(self.region.id, None)));
            return;
        }
        let (index, term) = (self.raft.raft.raft_log.last_index(), self.raft.raft.term);
        let at = ctx.clock.now();
        self.proposals.push_back(Proposal { index, term, at, callback: Callback::Admin(callback) });
    }

    fn check_members(
        &self,
        epoch: Option<metapb::RegionEpoch>,
        changes: &[(ConfChangeType, metapb::Peer)],
    ) -> Result<(), rutile_proto::errorpb::Error> {
        if !self.is_leader {
            return Err(region_error::not_leader(self.region.id, self.published().leader));
        }
        if epoch.is_some() && epoch != self.region.region_epoch {
            return Err(region_error::epoch_not_match(self.region.id, vec![(*self.region).clone()]));
        }
        if self.is_merging() {
            return Err(region_error::merging(self.region.id));
        }
        if self.raft.raft.has_pending_conf() || !self.raft.raft.commit_to_current_term() {
            return Err(region_error::other("a change of members is on its way"));
        }
        let after = change_members(&self.region, changes).map_err(region_error::other)?;
        // A leader that removes itself would leave the region without one.
        match after.peers.iter().find(|p| p.id == self.peer.id).map(metapb::Peer::role) {
            Some(PeerRole::Learner) | None => {
                Err(region_error::other("the leader cannot leave; it must hand over first"))
            }
            Some(_) => Ok(()),
        }
    }

    /// An entry that changes members is applied. Returns whether this peer is no member any more.
    pub(crate) fn on_members(
        &mut self,
        ctx: &StoreContext,
        index: u64,
        changed: Option<(Arc<metapb::Region>, ConfChangeV2)>,
    ) -> bool {
        if self.members_at.front() == Some(&index) {
            self.members_at.pop_front();
        }
        // A snapshot that has come meanwhile says it, too.
        let superseded = index <= self.raft.store().truncated().index;
        let Some((region, change)) = changed.filter(|_| !superseded) else { return false };
        match self.raft.apply_conf_change(&change) {
            Ok(state) => assert!(
                same_members(state, conf_state(&region)),
                "raft and region {} disagree about the members",
                region.id
            ),
            Err(error) => panic!("raft refuses the members of region {}: {error}", region.id),
        }
        self.senders.retain(|s| region.peers.iter().all(|p| p.id != s.id));
        self.heard.retain(|(id, _)| region.peers.iter().any(|p| p.id == *id));
        tracing::info!(
            region_id = region.id,
            store_id = ctx.store_id,
            peers = ?region.peers.iter().map(|p| (p.id, p.store_id, p.role())).collect::<Vec<_>>(),
            "members changed"
        );
        self.region = Arc::clone(&region);
        let Some(peer) = ctx.own_peer(&region).copied() else { return true };
        self.peer = peer;
        if self.is_leader {
            if self.is_only_voter() {
                ctx.registry.lease_forever(&self.handle);
            } else {
                ctx.registry.end_lease_forever(&self.handle);
            }
            // New members hear of the region at once.
            self.raft.ping();
        }
        let state = self.published();
        ctx.tell_then(&RegionEvent::MembersChanged { region }, || {
            ctx.registry.publish(&self.handle, state);
        });
        if self.is_leader {
            self.look_at_followers(ctx);
            ctx.heartbeat(self.region.id);
        }
        false
    }
}

fn same_members(mut a: ConfState, mut b: ConfState) -> bool {
    for state in [&mut a, &mut b] {
        state.mut_voters().sort_unstable();
        state.mut_voters_outgoing().sort_unstable();
        state.mut_learners().sort_unstable();
        state.mut_learners_next().sort_unstable();
        state.auto_leave = false;
    }
    a == b
}
