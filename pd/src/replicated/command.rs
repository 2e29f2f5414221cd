//! What the raft log carries.

use bytes::Bytes;
use rutile_proto::etcdserverpb::{TxnRequest, TxnResponse};

/// One log entry: applied as a whole or not at all.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// What to do.
    #[prost(oneof = "Op", tags = "1, 2, 3, 4, 5")]
    pub op: Option<Op>,
}

/// The kinds of log entries.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// A change of the placement driver's own records.
    #[prost(message, tag = "1")]
    System(SystemBatch),
    /// A transaction of the etcd service; a single Put or DeleteRange is a transaction of one operation.
    #[prost(message, tag = "2")]
    Etcd(TxnRequest),
    /// A new lease.
    #[prost(message, tag = "3")]
    LeaseGrant(LeaseGrant),
    /// The end of a lease and of its keys.
    #[prost(message, tag = "4")]
    LeaseRevoke(LeaseRevoke),
    /// Older versions of the etcd service's keys are forgotten.
    #[prost(int64, tag = "5")]
    Compact(i64),
}

/// Changes of the placement driver's own records, under conditions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SystemBatch {
    /// All must hold, or nothing is changed.
    #[prost(message, repeated, tag = "1")]
    pub conditions: Vec<Condition>,
    /// Records to write.
    #[prost(message, repeated, tag = "2")]
    pub puts: Vec<Pair>,
    /// Records to remove.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub deletes: Vec<Bytes>,
    /// Big-endian numbers that only grow: written where they are larger than what is there.
    #[prost(message, repeated, tag = "4")]
    pub raises: Vec<Pair>,
}

impl SystemBatch {
    /// Writes one record.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.puts.push(Pair { key: key.into(), value: value.into() });
        self
    }

    /// Raises a number to at least `value`.
    #[must_use]
    pub fn raise(mut self, key: impl Into<Bytes>, value: u64) -> Self {
        self.raises.push(Pair { key: key.into(), value: value.to_be_bytes().to_vec().into() });
        self
    }

    /// Removes one record.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.deletes.push(key.into());
        self
    }

    /// Requires that a record has this value (`None`: does not exist).
    #[must_use]
    pub fn when(mut self, key: impl Into<Bytes>, expected: Option<Bytes>) -> Self {
        self.conditions.push(Condition { key: key.into(), expected });
        self
    }
}

/// A record's expected value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Condition {
    /// The record.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its value; unset = it does not exist.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub expected: Option<Bytes>,
}

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pair {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// A new lease.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseGrant {
    /// Its id, chosen by the proposer.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds it lives without a keep-alive.
    #[prost(int64, tag = "2")]
    pub ttl_s: i64,
}

/// The end of a lease.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseRevoke {
    /// The lease.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// What applying a command gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Whether the conditions held.
    System {
        /// False: nothing was changed.
        applied: bool,
    },
    /// The answer of the etcd transaction.
    Etcd(TxnResponse),
    /// The lease exists now; false: the id was taken.
    LeaseGranted(bool),
    /// The lease is gone now; false: there was none.
    LeaseRevoked(bool),
    /// Older versions are forgotten.
    Compacted,
    /// The command was refused in the words of the protocol, nothing was changed.
    Refused(String),
}

/// The whole state, as written to a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StateImage {
    /// The placement driver's own records.
    #[prost(message, repeated, tag = "1")]
    pub system: Vec<Pair>,
    /// The keys of the etcd service.
    #[prost(message, repeated, tag = "2")]
    pub keys: Vec<rutile_proto::mvccpb::KeyValue>,
    /// Leases of the etcd service.
    #[prost(message, repeated, tag = "3")]
    pub leases: Vec<LeaseGrant>,
    /// Revision of the etcd service.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// All changes of the etcd service since the compaction, oldest first.
    #[prost(message, repeated, tag = "5")]
    pub events: Vec<rutile_proto::mvccpb::Event>,
    /// Versions below it are forgotten.
    #[prost(int64, tag = "6")]
    pub compacted_revision: i64,
}
