//! Client of a cluster: for the SQL layer and for low-level users.
//!
//! Floors, each importing only lower ones:
//! 1. [`transport`] traits, [`grpc`] (most requests share a stream per store), [`error`];
//! 2. [`pd_client`], [`tso`] batching;
//! 3. [`region_cache`], [`read_from`], [`sender`] region-error retries, [`backoff`];
//! 4. [`txn`] transactions, snapshots and lock resolution, [`raw`];
//! 5. [`client`], which ties them together.
//!
//! ```no_run
//! # async fn example() -> rutile_client::Result<()> {
//! use rutile_client::{Client, TxnOptions};
//! let client = Client::connect(&["127.0.0.1:2379".to_owned()]).await?;
//! let txn = client.begin(TxnOptions::default()).await?;
//! txn.put(&b"key"[..], &b"value"[..])?;
//! txn.commit().await?;
//! # Ok(())
//! # }
//! ```

pub mod backoff;
mod batch_stream;
pub mod client;
pub mod error;
pub mod grpc;
pub mod pd_client;
pub mod raw;
pub mod read_from;
pub mod region_cache;
pub mod sender;
pub mod transport;
pub mod tso;
pub mod txn;

pub use client::Client;
pub use error::{Error, Result, TransportError};
pub use raw::{RawClient, RawOptions};
pub use read_from::ReadFrom;
pub use rutile_proto::ids::Timestamp;
pub use transport::{PdRequest, PdResponse, StoreRequest, StoreResponse, Transport};
pub use txn::{
    Computation, ComputeStats, Computing, KeyRange, KvPair, LockOptions, LockWait, LockedValue, ReadView,
    Savepoint, ScanOptions, Scanner, Snapshot, Transaction, TxnMode, TxnOptions,
};
