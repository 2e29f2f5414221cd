//! What a scheduler proposes: where a region's replicas and its leader shall be.

use std::collections::BTreeSet;
use std::fmt;

/// Why a region is changed; also what counts towards which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Replicas are missing, superfluous, dead or at the wrong place.
    Replica,
    /// Peers are evened out.
    Region,
    /// Leaders are evened out.
    Leader,
    /// A hot region is moved.
    Hot,
    /// Two neighbours become one.
    Merge,
    /// Split.
    Split,
    /// A person asked for it.
    Admin,
}

impl Kind {
    /// Of several operators for one region the one of the highest priority stays.
    #[must_use]
    pub fn priority(self) -> u8 {
        match self {
            Kind::Admin => 3,
            Kind::Replica => 2,
            Kind::Hot | Kind::Merge | Kind::Split => 1,
            Kind::Region | Kind::Leader => 0,
        }
    }

    /// As people and metrics read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Replica => "replica",
            Kind::Region => "region",
            Kind::Leader => "leader",
            Kind::Hot => "hot-region",
            Kind::Merge => "merge",
            Kind::Split => "split",
            Kind::Admin => "admin",
        }
    }
}

/// What shall become of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Voters on these stores, led from one of them when it matters which.
    Place {
        /// The stores.
        voters: BTreeSet<u64>,
        /// Where the leader shall be.
        leader: Option<u64>,
    },
    /// Leave a change of members that was begun and not finished.
    LeaveJoint,
    /// Become part of a neighbour that has its peers on the same stores.
    MergeInto {
        /// The neighbour.
        target: u64,
    },
}

/// A goal for a region, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The region.
    pub region_id: u64,
    /// Why, in words that do not change: they label metrics.
    pub reason: &'static str,
    /// What it counts as.
    pub kind: Kind,
    /// What shall become of it.
    pub goal: Goal,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "region {} {}: ", self.region_id, self.reason)?;
        match &self.goal {
            Goal::Place { voters, leader } => {
                write!(f, "voters on {voters:?}")?;
                leader.map_or(Ok(()), |leader| write!(f, ", leader on {leader}"))
            }
            Goal::LeaveJoint => write!(f, "leave the joint state"),
            Goal::MergeInto { target } => write!(f, "merge into {target}"),
        }
    }
}
