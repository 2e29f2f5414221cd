//! Changes of a region's members.
//!
//! One change is applied at once; several go through a joint configuration, in which old and new members decide together
//! (raft dissertation §4.3), and which an empty change leaves. What the region then looks like is decided here, purely.

use std::sync::Arc;

use prost::Message as _;
use raft::eraftpb::{ConfChangeType, ConfChangeV2, Entry};
use rutile_proto::metapb::{self, PeerRole};
use rutile_proto::raft_serverpb::{PeerState, RegionLocalState};

use super::{Applier, Callback, Delegate};
use crate::engine::Cf;
use crate::raftstore::command::{Malformed, MembersCommand};
use crate::raftstore::messages::ExecResult;
use crate::raftstore::{keys, region_error};

impl Applier {
    /// Puts the region's new members into the batch. The store thread tells raft, whether or not the entry had an effect.
    pub(super) fn exec_members(
        &mut self,
        delegate: &mut Delegate,
        entry: &Entry,
        callback: Option<Callback>,
    ) -> Result<(), Malformed> {
        let change: ConfChangeV2 = protobuf::Message::parse_from_bytes(&entry.data).map_err(|_| Malformed)?;
        let command = MembersCommand::decode(&entry.context[..]).map_err(|_| Malformed)?;
        if command.peers.len() != change.changes.len() {
            return Err(Malformed);
        }
        let callback = match callback {
            Some(Callback::Admin(callback)) => Some(callback),
            _ => None,
        };
        let epoch = delegate.region.region_epoch.unwrap_or_default();
        let result = if (command.conf_ver, command.version) == (epoch.conf_ver, epoch.version) {
            let types = change.changes.iter().map(|c| c.get_change_type());
            let changes: Vec<_> = types.zip(command.peers).collect();
            change_members(&delegate.region, &changes).map_err(region_error::other)
        } else {
            Err(region_error::epoch_not_match(delegate.region.id, vec![(*delegate.region).clone()]))
        };
        let (changed, callback) = match result {
            Ok(region) => {
                let state = RegionLocalState {
                    state: PeerState::Normal.into(),
                    region: Some(region.clone()),
                    ..Default::default()
                };
                self.batch.put(Cf::Raft, &keys::region_state(region.id), &state.encode_to_vec());
                delegate.region = Arc::new(region);
                (Some((Arc::clone(&delegate.region), change)), callback)
            }
            Err(error) => {
                callback.into_iter().for_each(|callback| callback(Err(error.clone())));
                (None, None)
            }
        };
        delegate.results.push(ExecResult::Members { index: entry.index, changed, callback });
        Ok(())
    }
}

/// The region after a change of its members; what is wrong with the change otherwise. No change leaves a joint configuration.
pub(crate) fn change_members(
    region: &metapb::Region,
    changes: &[(ConfChangeType, metapb::Peer)],
) -> Result<metapb::Region, String> {
    let joint = is_joint(region);
    let (peers, steps) = match changes.len() {
        0 if joint => leave_joint(region),
        0 => return Err(format!("region {} is not in a joint configuration", region.id)),
        _ if joint => return Err(format!("region {} is in a joint configuration already", region.id)),
        n => {
            let mut peers = region.peers.clone();
            for (kind, peer) in changes {
                change_one(&mut peers, *kind, peer, n > 1)?;
            }
            (peers, n as u64)
        }
    };
    if !peers.iter().any(|p| matches!(p.role(), PeerRole::Voter | PeerRole::IncomingVoter)) {
        return Err("no voter would be left".to_owned());
    }
    let mut region = metapb::Region { peers, ..region.clone() };
    let epoch = region.region_epoch.get_or_insert_default();
    epoch.conf_ver += steps;
    Ok(region)
}

/// Whether the region is between two configurations.
pub(crate) fn is_joint(region: &metapb::Region) -> bool {
    region.peers.iter().any(|p| matches!(p.role(), PeerRole::IncomingVoter | PeerRole::DemotingVoter))
}

fn leave_joint(region: &metapb::Region) -> (Vec<metapb::Peer>, u64) {
    let mut peers = region.peers.clone();
    let mut steps = 0;
    for peer in &mut peers {
        let role = match peer.role() {
            PeerRole::IncomingVoter => PeerRole::Voter,
            PeerRole::DemotingVoter => PeerRole::Learner,
            _ => continue,
        };
        peer.set_role(role);
        steps += 1;
    }
    (peers, steps)
}

fn change_one(
    peers: &mut Vec<metapb::Peer>,
    kind: ConfChangeType,
    peer: &metapb::Peer,
    joint: bool,
) -> Result<(), String> {
    let at = peers.iter().position(|p| p.store_id == peer.store_id);
    if let Some(at) = at
        && peers[at].id != peer.id
    {
        return Err(format!("store {} has peer {} already, not {}", peer.store_id, peers[at].id, peer.id));
    }
    if at.is_none() && peers.iter().any(|p| p.id == peer.id) {
        return Err(format!("peer {} is on another store", peer.id));
    }
    let new = |role: PeerRole| metapb::Peer { role: role.into(), ..*peer };
    let incoming = if joint { PeerRole::IncomingVoter } else { PeerRole::Voter };
    let demoted = if joint { PeerRole::DemotingVoter } else { PeerRole::Learner };
    match (at.map(|at| (at, peers[at].role())), kind) {
        (None, ConfChangeType::AddNode) => peers.push(new(incoming)),
        (None, ConfChangeType::AddLearnerNode) => peers.push(new(PeerRole::Learner)),
        (None, ConfChangeType::RemoveNode) => return Err(format!("peer {} is no member", peer.id)),
        (Some((at, PeerRole::Learner)), ConfChangeType::AddNode) => peers[at].set_role(incoming),
        (Some((at, PeerRole::Voter)), ConfChangeType::AddLearnerNode) => peers[at].set_role(demoted),
        (Some((at, PeerRole::Learner)), ConfChangeType::RemoveNode) => drop(peers.remove(at)),
        (Some((at, PeerRole::Voter)), ConfChangeType::RemoveNode) if !joint => drop(peers.remove(at)),
        (Some((_, PeerRole::Voter)), ConfChangeType::RemoveNode) => {
            return Err(format!("peer {} votes: it must become a learner first", peer.id));
        }
        (Some((_, role)), _) => return Err(format!("peer {} is {role:?} already", peer.id)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u64, role: PeerRole) -> metapb::Peer {
        metapb::Peer { id, store_id: id, role: role.into(), ..Default::default() }
    }

    fn region(peers: &[(u64, PeerRole)]) -> metapb::Region {
        metapb::Region {
            id: 1,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 5, version: 1 }),
            peers: peers.iter().map(|(id, role)| peer(*id, *role)).collect(),
            ..Default::default()
        }
    }

    fn roles(region: &metapb::Region) -> Vec<(u64, PeerRole)> {
        region.peers.iter().map(|p| (p.id, p.role())).collect()
    }

    #[test]
    fn simple_changes_take_effect_at_once() {
        use ConfChangeType::*;
        let one = region(&[(1, PeerRole::Voter)]);
        let with = |r: &metapb::Region, kind, id| change_members(r, &[(kind, peer(id, PeerRole::Voter))]);
        let two = with(&one, AddLearnerNode, 2).unwrap();
        assert_eq!(roles(&two), [(1, PeerRole::Voter), (2, PeerRole::Learner)]);
        assert_eq!(two.region_epoch.unwrap().conf_ver, 6);
        let promoted = with(&two, AddNode, 2).unwrap();
        assert_eq!(roles(&promoted), [(1, PeerRole::Voter), (2, PeerRole::Voter)]);
        assert_eq!(roles(&with(&promoted, RemoveNode, 1).unwrap()), [(2, PeerRole::Voter)]);
        assert!(with(&one, RemoveNode, 1).unwrap_err().contains("no voter"));
        assert!(with(&one, RemoveNode, 3).unwrap_err().contains("no member"));
        assert!(with(&one, AddNode, 1).is_err());
        let other = metapb::Peer { id: 9, store_id: 1, ..Default::default() };
        assert!(change_members(&one, &[(AddNode, other)]).unwrap_err().contains("has peer 1 already"));
    }

    #[test]
    fn several_changes_go_through_a_joint_configuration() {
        use ConfChangeType::*;
        use PeerRole::*;
        let three = region(&[(1, Voter), (2, Voter), (3, Voter), (4, Learner)]);
        let changes = [(AddNode, peer(4, Voter)), (AddLearnerNode, peer(1, Voter))];
        let joint = change_members(&three, &changes).unwrap();
        assert_eq!(roles(&joint), [(1, DemotingVoter), (2, Voter), (3, Voter), (4, IncomingVoter)]);
        assert!(is_joint(&joint) && joint.region_epoch.unwrap().conf_ver == 7);
        assert!(change_members(&joint, &changes).is_err(), "one joint change at a time");
        let left = change_members(&joint, &[]).unwrap();
        assert_eq!(roles(&left), [(1, Learner), (2, Voter), (3, Voter), (4, Voter)]);
        assert_eq!(left.region_epoch.unwrap().conf_ver, 9);
        assert!(change_members(&left, &[]).is_err());
        let remove = [(RemoveNode, peer(1, Voter)), (AddNode, peer(4, Voter))];
        assert!(change_members(&three, &remove).unwrap_err().contains("learner first"));
    }
}
