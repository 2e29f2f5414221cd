//! Wire formats shared by every part: generated protobuf types and gRPC services, ids, and key codecs.
//!
//! The messages are wire-compatible with kvproto, so that TiKV clients can talk to a Rutile cluster.
//! `bytes` fields are [`bytes::Bytes`]: a decoded message shares its receive buffer.

macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(clippy::all, missing_docs)]
        pub mod $name {
            tonic::include_proto!($file);
        }
    };
}

package!(/** Regions, peers and stores. */ metapb, "metapb");
package!(/** Region errors. */ errorpb, "errorpb");
package!(/** Requests and responses of a store. */ kvrpcpb, "kvrpcpb");
package!(/** Who waits for whom. */ deadlock, "deadlock");
package!(/** Pushed-down computation. */ coprocessor, "coprocessor");
package!(/** Rutile's own plans within `coprocessor` requests. */ copr, "copr");
package!(/** Raft messages between stores and their local state. */ raft_serverpb, "raft_serverpb");
package!(/** The service of a store. */ tikvpb, "tikvpb");
package!(/** The service of the placement driver. */ pdpb, "pdpb");
package!(/** What members of the placement driver tell one another. */ pdpeerpb, "pdpeerpb");
package!(/** Keyspaces. */ keyspacepb, "keyspacepb");
package!(/** Stored form of the etcd service. */ mvccpb, "mvccpb");
package!(/** The etcd v3 subset. */ etcdserverpb, "etcdserverpb");
package!(/** Health checks. */ health, "grpc.health.v1");

pub mod codec;
pub mod ids;
pub mod key;
