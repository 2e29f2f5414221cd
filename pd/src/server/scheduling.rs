//! Drives the schedulers: looks at the cluster from time to time, turns what they propose into operators, and sends these to
//! the leaders of the regions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use parking_lot::{Mutex, RwLock};
use rutile_proto::metapb::StoreState;
use rutile_proto::pdpb::{RegionHeartbeatRequest, RegionHeartbeatResponse};
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use super::PdService;
use super::leading::Leading;
use crate::cluster::View;
use crate::cluster::region_tree::RegionInfo;
use crate::error::{Error, Result};
use crate::id_alloc::IdAllocator;
use crate::replicated::Replicated;
use crate::replicated::command::SystemBatch;
use crate::schedule::config::ScheduleConfig;
use crate::schedule::controller::Controller;
use crate::schedule::operator::{Operator, Step};
use crate::schedule::proposal::{Goal, Kind, Proposal};
use crate::schedule::scatter::{self, Group};
use crate::schedule::view::{ClusterView, Health};
use crate::schedule::{builder, patrol};

/// The settings, as JSON.
const CONFIG_KEY: &[u8] = b"config/schedule";
/// Between two looks at the cluster.
const INTERVAL: Duration = Duration::from_millis(500);
/// Answers that may wait for one store.
const ANSWERS_MAX: usize = 1024;
/// The keyspaces whose bounds regions keep.
pub const KEYSPACE_IDS: [u32; 1] = [0];
/// Groups of scattered regions that are remembered.
const GROUPS_MAX: usize = 256;

/// Settings, operators, and where to send them.
pub struct Scheduling {
    config: RwLock<Arc<ScheduleConfig>>,
    /// The operators.
    pub controller: Mutex<Controller>,
    streams: Mutex<HashMap<u64, mpsc::Sender<RegionHeartbeatResponse>>>,
    groups: Mutex<HashMap<String, Group>>,
    wake: Notify,
    seed: AtomicU64,
}

impl Scheduling {
    /// With the settings that are stored, or `initial` ones.
    pub fn open(store: &Replicated, initial: ScheduleConfig) -> Self {
        let stored = store.system_get(CONFIG_KEY).and_then(|json| serde_json::from_slice(&json).ok());
        Scheduling {
            config: RwLock::new(Arc::new(stored.unwrap_or(initial))),
            controller: Mutex::default(),
            streams: Mutex::default(),
            groups: Mutex::default(),
            wake: Notify::new(),
            seed: AtomicU64::new(rand::random::<u32>().into()),
        }
    }

    /// The settings.
    pub fn config(&self) -> Arc<ScheduleConfig> {
        self.config.read().clone()
    }

    /// Looks at the cluster without waiting for the next time.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Sends each answer to the store that must act on it.
    fn dispatch(&self, answers: Vec<RegionHeartbeatResponse>, service: &PdService) {
        let mut streams = self.streams.lock();
        for mut answer in answers {
            answer.header = service.ok();
            let Some(store) = answer.target_peer.map(|peer| peer.store_id) else { continue };
            if let Some(stream) = streams.get(&store)
                && let Err(mpsc::error::TrySendError::Closed(_)) = stream.try_send(answer)
            {
                streams.remove(&store);
            }
        }
    }
}

impl Leading {
    /// Changes a setting and keeps it.
    pub async fn set_config(&self, changed: ScheduleConfig) -> Result<()> {
        changed.validate().map_err(Error::Invalid)?;
        let json = serde_json::to_vec(&changed).map_err(|e| Error::Invalid(e.to_string()))?;
        self.store.write_system(SystemBatch::default().put(CONFIG_KEY, json)).await?;
        *self.scheduling.config.write() = Arc::new(changed);
        self.scheduling.wake();
        Ok(())
    }

    /// Runs a function over the cluster as schedulers see it.
    pub fn with_view<T>(&self, now_ms: u64, look: impl FnOnce(&mut ClusterView<'_>, &View) -> T) -> T {
        let view = self.cluster.view();
        let influence = self.scheduling.controller.lock().influence(&view.regions);
        let config = self.scheduling.config();
        let mut cluster = ClusterView::new(&view.regions, &view.stores, &config, &influence, now_ms);
        look(&mut cluster, &view)
    }

    /// What the schedulers propose now.
    fn propose(&self, now_ms: u64) -> Vec<Proposal> {
        let seed = self.scheduling.seed.fetch_add(patrol::REGIONS_MAX as u64, Ordering::Relaxed);
        self.with_view(now_ms, |cluster, _| {
            patrol::propose(cluster, &self.scheduling.controller.lock(), &KEYSPACE_IDS, seed)
        })
    }

    /// Turns a proposal into operators.
    pub async fn start(&self, proposal: &Proposal, reason: &str, now_ms: u64) -> Result<()> {
        let region = self.cluster.view().regions.by_id(proposal.region_id).cloned();
        let region =
            region.ok_or_else(|| Error::Invalid(format!("there is no region {}", proposal.region_id)))?;
        if let Goal::MergeInto { target } = proposal.goal {
            return self.start_merge(&region, target, proposal.kind, reason, now_ms);
        }
        let ids = new_ids(&self.ids, builder::new_peers(&region, &proposal.goal)).await?;
        let steps =
            self.with_view(now_ms, |cluster, _| builder::build(cluster, &region, &proposal.goal, ids));
        let steps = steps.map_err(Error::Invalid)?;
        let operator = Operator::new(&region, reason, proposal.kind, steps, now_ms);
        self.add_operator(operator)
    }

    /// Adds an operator, within the limits of the stores.
    pub fn add_operator(&self, operator: Operator) -> Result<()> {
        self.scheduling.controller.lock().add(operator).map_err(Error::Invalid)
    }

    fn start_merge(
        &self,
        source: &RegionInfo,
        target: u64,
        kind: Kind,
        reason: &str,
        now_ms: u64,
    ) -> Result<()> {
        let view = self.cluster.view();
        let target = view.regions.by_id(target).cloned();
        drop(view);
        let target = target.ok_or_else(|| Error::Invalid("the neighbour is gone".into()))?;
        let neighbours = source.meta.end_key == target.meta.start_key && !source.meta.end_key.is_empty()
            || target.meta.end_key == source.meta.start_key && !target.meta.end_key.is_empty();
        let stores =
            |region: &RegionInfo| -> BTreeSet<u64> { region.meta.peers.iter().map(|p| p.store_id).collect() };
        if !neighbours || stores(source) != stores(&target) {
            let text = "only neighbours whose peers are on the same stores can be merged";
            return Err(Error::Invalid(text.into()));
        }
        let mut controller = self.scheduling.controller.lock();
        let wait = Step::AwaitMerge { source: source.meta.id };
        controller.add(Operator::new(&target, reason, kind, vec![wait], now_ms)).map_err(Error::Invalid)?;
        let merge = Step::Merge(target.meta.clone());
        let added = controller.add(Operator::new(source, reason, kind, vec![merge], now_ms));
        if added.is_err() {
            controller.cancel(target.meta.id);
        }
        added.map_err(Error::Invalid)
    }

    /// Spreads a region within its group.
    pub async fn scatter(&self, region_id: u64, group: &str, now_ms: u64) -> Result<()> {
        let region = self.cluster.view().regions.by_id(region_id).cloned();
        let region = region.ok_or_else(|| Error::Invalid(format!("there is no region {region_id}")))?;
        let proposal = self.with_view(now_ms, |cluster, _| {
            let mut groups = self.scheduling.groups.lock();
            if groups.len() >= GROUPS_MAX && !groups.contains_key(group) {
                groups.clear();
            }
            scatter::scatter(cluster, &region, groups.entry(group.to_owned()).or_default())
        });
        let busy = || Error::Invalid(format!("region {region_id} cannot be moved now"));
        let proposal = proposal.ok_or_else(busy)?;
        match self.start(&proposal, proposal.reason, now_ms).await {
            Err(Error::Invalid(text)) if text.contains("as it shall be") => Ok(()),
            result => {
                self.scheduling.wake();
                result
            }
        }
    }

    /// Stores that are being decommissioned and hold nothing any more are gone for good.
    async fn bury_empty_stores(&self, now_ms: u64) -> Result<()> {
        let empty: Vec<u64> = self.with_view(now_ms, |cluster, view| {
            let leaving = cluster.stores.values().filter(|store| store.health == Health::Offline);
            leaving
                .filter(|store| {
                    view.regions.iter().all(|r| r.meta.peers.iter().all(|p| p.store_id != store.id))
                })
                .map(|store| store.id)
                .collect()
        });
        for id in empty {
            if let Err(text) = self.cluster.set_store_state(id, StoreState::Tombstone, now_ms).await? {
                tracing::warn!(store = id, "{text}");
            } else {
                tracing::info!(store = id, "the store is empty and gone for good");
            }
        }
        Ok(())
    }
}

async fn new_ids(ids: &IdAllocator, count: u64) -> Result<std::ops::RangeInclusive<u64>> {
    if count == 0 {
        #[allow(clippy::reversed_empty_ranges)]
        return Ok(1..=0);
    }
    let last = ids.allocate(count).await?;
    Ok(last + 1 - count..=last)
}

impl PdService {
    /// The settings of a cluster that has none stored.
    pub(super) fn initial_schedule_config(&self) -> ScheduleConfig {
        ScheduleConfig {
            max_replicas: self.config.replicas_max,
            store_disconnected_s: (self.config.store_disconnected_ms / 1000).max(1),
            ..ScheduleConfig::default()
        }
    }

    /// Schedules while this member leads; runs until dropped.
    pub(super) async fn run_schedulers(self: Arc<Self>, leading: Arc<Leading>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = leading.scheduling.wake.notified() => {}
            }
            if leading.is_valid() {
                self.schedule_once(&leading).await;
            }
        }
    }

    async fn schedule_once(&self, leading: &Leading) {
        let now_ms = self.clock.now_ms();
        let alone = leading.cluster.view().stores.iter().filter(|store| !store.is_tombstone()).count() < 2;
        if !alone {
            let lost: Vec<u64> = leading.with_view(now_ms, |cluster, _| {
                let lost = cluster.stores.values().filter(|store| store.health != Health::Up);
                lost.map(|store| store.id).collect()
            });
            leading.scheduling.controller.lock().give_up_on(&lost);
            let begin = std::time::Instant::now();
            for proposal in leading.propose(now_ms) {
                if let Err(error) = leading.start(&proposal, proposal.reason, now_ms).await {
                    tracing::debug!(%proposal, %error, "a proposal was not taken up");
                }
            }
            self.metrics.schedule_seconds.observe(begin.elapsed().as_secs_f64());
            if let Err(error) = leading.bury_empty_stores(now_ms).await {
                tracing::warn!(%error, "an empty store was not buried");
            }
        }
        let answers = {
            // The view before the controller, as everywhere.
            let view = leading.cluster.view();
            leading.scheduling.controller.lock().tick(&view.regions, now_ms)
        };
        leading.scheduling.dispatch(answers, self);
    }

    /// Takes the heartbeats of one store's regions and answers what their leaders shall do, also without being asked. Ends when
    /// this member does not lead any more.
    pub fn region_heartbeats(
        self: Arc<Self>,
        requests: impl Stream<Item = std::result::Result<RegionHeartbeatRequest, Status>> + Send + 'static,
    ) -> impl Stream<Item = std::result::Result<RegionHeartbeatResponse, Status>> + Send + 'static {
        async_stream::stream! {
            let (sender, mut pushed) = mpsc::channel(ANSWERS_MAX);
            let mut requests = Box::pin(requests);
            let mut roles = self.store.roles();
            let leading = match self.leading() {
                Ok(leading) => leading,
                Err(status) => {
                    yield Err(status);
                    return;
                }
            };
            let term = leading.store.bound_term();
            let mut store = 0;
            loop {
                let answer = tokio::select! {
                    request = requests.next() => match request {
                        None => return,
                        Some(Err(status)) => Err(status),
                        Some(Ok(request)) => {
                            let from = request.leader.map_or(0, |leader| leader.store_id);
                            if from != store {
                                store = from;
                                leading.scheduling.streams.lock().insert(store, sender.clone());
                            }
                            self.region_heartbeat(&request)
                        }
                    },
                    Some(answer) = pushed.recv() => Ok(Some(answer)),
                    () = super::watch::until_over(&mut roles, term) => Err(Error::NotLeader.into()),
                };
                match answer {
                    Ok(Some(answer)) => yield Ok(answer),
                    Ok(None) => {}
                    Err(status) => {
                        yield Err(status);
                        return;
                    }
                }
            }
        }
    }
}
