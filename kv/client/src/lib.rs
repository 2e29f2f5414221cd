//! Client of a cluster: for the SQL layer and for low-level users.
//!
//! Floors, each importing only lower ones:
//! 1. [`transport`] traits, [`error`];
//! 2. placement driver calls, timestamp batching;
//! 3. region cache, region-error retries, back-off;
//! 4. [`txn`] transactions, snapshots and lock resolution, [`raw`]; [`client`] ties them together.
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

pub mod client;
pub mod error;
pub mod raw;
pub mod transport;
pub mod txn;

pub use client::Client;
pub use error::{Error, Result, TransportError};
pub use raw::{RawClient, RawOptions};
pub use rutile_proto::ids::Timestamp;
pub use transport::{PdRequest, PdResponse, StoreRequest, StoreResponse, Transport};
pub use txn::{
    KeyRange, KvPair, LockOptions, LockWait, LockedValue, ReadView, Savepoint, ScanOptions, Scanner,
    Snapshot, Transaction, TxnMode, TxnOptions,
};
