//! The SQL servers of a cluster, each with a lease and the oldest schema version that it may still use.
//!
//! A server writes its entry when it starts, when the oldest version in use changes, and before a third of the lease is over. A
//! server whose lease has run out neither counts for schema changes nor commits anything. The lease is measured in the
//! cluster's timestamps: what a server may assume of its own ends [`MARGIN_MS`] before what others wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rutile_client::{Client, TxnMode, TxnOptions};

use super::meta::{self, Meta, ServerEntry};
use super::model::TableId;
use super::usage::Usage;
use crate::{Error, Result};

/// How long an entry counts without being written again.
pub const LEASE_MS: u64 = 15_000;
/// A commit must begin so long before the lease ends: it has this time to be carried out.
const MARGIN_MS: u64 = 5_000;
/// How often others' entries are looked at while a change waits for them.
const WAIT_REMOTE_MS: u64 = 10;
/// How often this server's own statements and transactions are looked at.
const WAIT_LOCAL_MS: u64 = 2;

/// This server among the others.
pub struct Membership {
    client: Client,
    id: u64,
    started: Instant,
    /// Until when this server may commit, in milliseconds after `started`.
    usable_until_ms: AtomicU64,
    /// When the entry was written, in milliseconds after `started`, and the version it names.
    written: parking_lot::Mutex<Option<(u64, i64)>>,
}

impl Membership {
    /// A server that has not told anybody yet.
    pub fn new(client: Client) -> Membership {
        let id = rand::random_range(1..=i64::MAX as u64);
        Membership {
            client,
            id,
            started: Instant::now(),
            usable_until_ms: AtomicU64::new(0),
            written: parking_lot::Mutex::new(None),
        }
    }

    /// This server's id: random, new with every start.
    pub fn id(&self) -> u64 {
        self.id
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Fails when this server has lost touch with the others for so long that they no longer wait for it.
    pub fn check_lease(&self) -> Result<()> {
        match self.elapsed_ms() < self.usable_until_ms.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(Error::SchemaOutOfDate),
        }
    }

    /// Writes the entry if it says something else or is getting old.
    pub async fn announce(&self, version: i64) -> Result<()> {
        let now_ms = self.elapsed_ms();
        if let Some((written_ms, announced)) = *self.written.lock()
            && announced == version
            && now_ms < written_ms + LEASE_MS / 3
        {
            return Ok(());
        }
        let until_ms = self.client.timestamp().await?.physical_ms() + LEASE_MS;
        let txn = self.client.begin(optimistic()).await?;
        Meta::new(&txn).await?.put_server(self.id, &ServerEntry { version, until_ms })?;
        txn.commit().await?;
        self.usable_until_ms.store(now_ms + LEASE_MS - MARGIN_MS, Ordering::Relaxed);
        *self.written.lock() = Some((now_ms, version));
        Ok(())
    }

    /// Takes the entry away: the server stops.
    pub async fn leave(&self) -> Result<()> {
        self.forget(self.id).await
    }

    async fn forget(&self, id: u64) -> Result<()> {
        let txn = self.client.begin(optimistic()).await?;
        Meta::new(&txn).await?.delete_server(id)?;
        txn.commit().await?;
        Ok(())
    }

    /// The servers whose leases run, this one included; entries of others that are over are removed.
    pub async fn live(&self) -> Result<Vec<(u64, ServerEntry)>> {
        let ts = self.client.timestamp().await?;
        let mut servers = meta::servers(&self.client.snapshot(ts)).await?;
        let over = |id: u64, entry: &ServerEntry| id != self.id && entry.until_ms < ts.physical_ms();
        for (id, _) in servers.iter().filter(|(id, entry)| over(*id, entry)) {
            self.forget(*id).await?;
        }
        servers.retain(|(id, entry)| !over(*id, entry));
        Ok(servers)
    }

    /// Waits until no statement or transaction anywhere uses a definition of the table from before `version`.
    pub async fn wait_for(
        &self,
        usage: &Arc<Usage>,
        table: TableId,
        version: i64,
        timeout: Duration,
    ) -> Result<()> {
        let waiting = async {
            while usage.uses_older(table, version) {
                tokio::time::sleep(Duration::from_millis(WAIT_LOCAL_MS)).await;
            }
            loop {
                let servers = self.live().await?;
                if servers.iter().all(|(id, entry)| *id == self.id || entry.version >= version) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(WAIT_REMOTE_MS)).await;
            }
        };
        tokio::time::timeout(timeout, waiting).await.unwrap_or(Err(Error::LockWaitTimeout))
    }
}

fn optimistic() -> TxnOptions {
    TxnOptions { mode: TxnMode::Optimistic, ..TxnOptions::default() }
}
