//! What only the leader has: everything that is read from the replicated state when its term begins, and thrown away when
//! the term ends.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::PdService;
use super::scheduling::Scheduling;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::gc_safe_point::SafePoints;
use crate::id_alloc::IdAllocator;
use crate::lease::Leases;
use crate::members::{MemberRecord, RECORD_PREFIX};
use crate::replicated::command::SystemBatch;
use crate::replicated::{Replicated, Role};
use prost::Message as _;

/// The leader's view of the cluster, for one term.
pub struct Leading {
    /// Refuses writes in any other term.
    pub store: Arc<Replicated>,
    /// Stores and regions.
    pub cluster: Arc<Cluster>,
    /// Ids.
    pub ids: IdAllocator,
    /// Safe points.
    pub safe_points: SafePoints,
    /// Lifetimes of the etcd service's leases.
    pub leases: Arc<Leases>,
    /// Settings and operators.
    pub scheduling: Scheduling,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Leading {
    /// Whether this term goes on and nobody else can lead at this moment.
    pub fn is_valid(&self) -> bool {
        self.store.holds_lease(self.store.bound_term())
    }

    /// Writes what is known and not written yet, at a clean stop.
    pub async fn close(&self) {
        self.stop();
        for result in [self.cluster.flush().await, self.ids.close().await] {
            if let Err(error) = result {
                tracing::warn!(%error, "not everything was written at the stop; the next start recovers it");
            }
        }
    }

    fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.stop();
    }
}

impl PdService {
    /// Begins to serve as the leader of a term.
    pub(super) async fn begin(self: &Arc<Self>, term: u64) -> Result<()> {
        let store = self.store.in_term(term);
        let cluster = Cluster::open(store.clone(), self.clock.now_ms()).await?;
        self.record_members(&store).await?;
        let leases = Leases::open(store.clone());
        let tasks = vec![tokio::spawn(cluster.clone().run_flush()), tokio::spawn(leases.clone().run())];
        let leading = Leading {
            ids: IdAllocator::open(store.clone()),
            safe_points: SafePoints::new(store.clone()),
            store,
            scheduling: Scheduling::open(&self.store, self.initial_schedule_config()),
            cluster,
            leases,
            tasks: Mutex::new(tasks),
        };
        self.tso.begin(term).await?;
        let leading = Arc::new(leading);
        let schedulers = tokio::spawn(self.clone().run_schedulers(leading.clone()));
        leading.tasks.lock().push(schedulers);
        *self.leading.write() = Some(leading);
        Ok(())
    }

    /// Serves no more: another member leads, or none.
    pub(super) fn end(&self) -> Option<Arc<Leading>> {
        self.tso.end();
        let leading = self.leading.write().take();
        if let Some(leading) = &leading {
            leading.stop();
        }
        leading
    }

    /// Follows the group: serves while this member leads. Runs until dropped.
    pub(super) async fn follow_role(self: Arc<Self>) {
        let mut roles = self.store.roles();
        let mut led = 0;
        loop {
            let role: Role = *roles.borrow_and_update();
            if led != 0 && (!role.leading || role.term != led) {
                tracing::info!(term = led, "this member does not lead any more");
                drop(self.end());
                led = 0;
            }
            if role.leading && led == 0 {
                match self.begin(role.term).await {
                    Ok(()) => {
                        tracing::info!(term = role.term, "this member leads");
                        led = role.term;
                    }
                    Err(error) if self.store.role() == role => {
                        tracing::error!(%error, "this member cannot lead");
                        self.store.transfer_leader(0, std::time::Duration::from_secs(1)).await;
                    }
                    Err(error) => tracing::info!(%error, "the lead was lost at once"),
                }
            }
            if self.store.role() != role {
                continue;
            }
            tokio::select! {
                changed = roles.changed() => if changed.is_err() { return },
                () = self.introduced.notified(), if led != 0 => {
                    let store = self.store.in_term(led);
                    if let Err(error) = self.record_members(&store).await {
                        tracing::debug!(%error, "the members were not recorded");
                    }
                }
            }
        }
    }

    /// Writes what the members say of themselves, where it is news.
    async fn record_members(&self, store: &Replicated) -> Result<()> {
        let mut batch = SystemBatch::default();
        let mut told = self.introductions.lock().clone();
        told.insert(self.members.me().name.clone(), self.introduction());
        for (name, introduction) in told {
            let key = [RECORD_PREFIX, name.as_bytes()].concat();
            let record = MemberRecord {
                incarnation: introduction.incarnation,
                client_url: introduction.client_url,
                version: introduction.version,
            };
            let known = self.member_record(&name);
            if known.as_ref() == Some(&record) {
                continue;
            }
            if known.is_some_and(|known| known.incarnation != record.incarnation) && self.members.is_group() {
                continue; // refused when it introduces itself again
            }
            batch = batch.put(key, record.encode_to_vec());
        }
        if !batch.puts.is_empty() {
            store.write_system(batch).await?;
        }
        Ok(())
    }
}
