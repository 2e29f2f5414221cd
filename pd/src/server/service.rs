//! The placement driver's service: one function per RPC, for gRPC and for callers in the same process.
//!
//! Look-ups of regions are in `regions`, the etcd service is in `etcd_api`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use rutile_proto::ids::Timestamp;
use rutile_proto::keyspacepb::{KeyspaceMeta, KeyspaceState, LoadKeyspaceRequest, LoadKeyspaceResponse};
use rutile_proto::pdpb::{
    self, AdvanceTxnSafePointRequest, AdvanceTxnSafePointResponse, AllocIdRequest, AllocIdResponse,
    BootstrapRequest, BootstrapResponse, ErrorType, GcState, GetAllStoresRequest, GetAllStoresResponse,
    GetClusterInfoRequest, GetClusterInfoResponse, GetGcSafePointRequest, GetGcSafePointResponse,
    GetGcStateRequest, GetGcStateResponse, GetMembersRequest, GetMembersResponse, GetStoreRequest,
    GetStoreResponse, IsBootstrappedRequest, IsBootstrappedResponse, KeyspaceScope, Member, PutStoreRequest,
    PutStoreResponse, ServiceMode, StoreHeartbeatRequest, StoreHeartbeatResponse, TsoRequest, TsoResponse,
    UpdateGcSafePointRequest, UpdateGcSafePointResponse, UpdateServiceGcSafePointRequest,
    UpdateServiceGcSafePointResponse, keyspace_scope,
};
use rutile_proto::pdpeerpb::Introduction;
use tokio::sync::Notify;
use tonic::Status;

use super::leading::Leading;
use crate::cluster::stores::StoreRefused;
use crate::cluster::{Cluster, Refused};
use crate::config::Config;
use crate::error::Result as PdResult;
use crate::members::{self, MemberRecord, Members, RECORD_PREFIX};
use crate::metrics::Metrics;
use crate::replicated::Replicated;
use crate::tso::{Clock, Tso};

/// The keyspace that always exists.
const DEFAULT_KEYSPACE: &str = "DEFAULT";
/// Stands for "no keyspace" in scopes.
const NULL_KEYSPACE_ID: u32 = 0xFFFF_FFFF;

/// Everything the placement driver answers.
pub struct PdService {
    pub(super) config: Config,
    pub(super) members: Members,
    /// Unbound: for reads, and to begin a term.
    pub(super) store: Arc<Replicated>,
    pub(super) tso: Arc<Tso>,
    /// While this member leads.
    pub(super) leading: RwLock<Option<Arc<Leading>>>,
    /// What the other members said of themselves, by name.
    pub(super) introductions: Mutex<HashMap<String, Introduction>>,
    /// There is a new one among them.
    pub(super) introduced: Notify,
    /// 0 until it is known.
    pub(super) cluster_id: AtomicU64,
    /// To the other members' client ports.
    pub(super) channels: super::forward::Channels,
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<dyn Clock>,
}

impl PdService {
    /// `count` timestamps: the largest of them. Costs no I/O nearly always.
    pub async fn timestamps(&self, count: u32) -> PdResult<Timestamp> {
        let begun = std::time::Instant::now();
        let result = match self.try_timestamps(count) {
            Some(ts) => Ok(ts),
            None => {
                let result = self.tso.allocate(count).await;
                if result.is_ok() {
                    self.metrics.tso_requests.inc();
                    self.metrics.timestamps.inc_by(u64::from(count));
                }
                result
            }
        };
        self.metrics.tso_seconds.observe(begun.elapsed().as_secs_f64());
        result
    }

    /// The same without waiting, if that is possible: nearly always.
    #[must_use]
    pub fn try_timestamps(&self, count: u32) -> Option<Timestamp> {
        let ts = self.tso.try_allocate(count).ok()?.ok()?;
        self.metrics.tso_requests.inc();
        self.metrics.timestamps.inc_by(u64::from(count));
        Some(ts)
    }

    /// The configuration it runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What only the leader has; refused with the words that clients know while this member does not lead.
    pub(super) fn leading(&self) -> Result<Arc<Leading>, Status> {
        let leading = self.leading.read().clone().filter(|leading| leading.is_valid());
        leading.ok_or_else(|| crate::error::Error::NotLeader.into())
    }

    pub(super) fn progress_interval(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.config.watch_progress_interval_ms)
    }

    /// The cluster map.
    pub fn cluster(&self) -> Result<Arc<Cluster>, Status> {
        Ok(self.leading()?.cluster.clone())
    }

    /// What the replicated state knows of a member.
    pub(super) fn member_record(&self, name: &str) -> Option<MemberRecord> {
        let record = self.store.system_get(&[RECORD_PREFIX, name.as_bytes()].concat())?;
        MemberRecord::decode(record).ok()
    }

    /// All members, by name.
    #[must_use]
    pub fn all_members(&self) -> Vec<Member> {
        let each = self.members.all().iter().map(|member| self.describe(member));
        each.collect()
    }

    /// The member that leads, if it is known.
    #[must_use]
    pub fn leader_member(&self) -> Option<Member> {
        let leader = self.members.by_raft_id(self.store.role().leader)?;
        Some(self.describe(leader))
    }

    fn describe(&self, member: &members::Member) -> Member {
        if *member == *self.members.me() {
            return self.member();
        }
        let record = self.member_record(&member.name).unwrap_or_default();
        Member {
            name: member.name.clone(),
            member_id: self.member_id_of(&member.name),
            peer_urls: vec![member.peer_url.clone()],
            client_urls: Some(record.client_url).into_iter().filter(|url| !url.is_empty()).collect(),
            binary_version: record.version,
            ..Default::default()
        }
    }

    /// This member.
    #[must_use]
    pub fn member(&self) -> Member {
        Member {
            name: self.config.name.clone(),
            member_id: self.member_id(),
            peer_urls: vec![self.members.me().peer_url.clone()],
            client_urls: vec![self.config.client_url()],
            binary_version: format!("v{}", env!("CARGO_PKG_VERSION")),
            deploy_path: self.config.data_dir.display().to_string(),
            ..Default::default()
        }
    }

    /// Of the cluster's id and the member's name, so that it is the same after a restart.
    pub(super) fn member_id(&self) -> u64 {
        self.member_id_of(&self.config.name)
    }

    pub(super) fn member_id_of(&self, name: &str) -> u64 {
        let hash = crc32fast::hash(name.as_bytes());
        ((self.cluster_id() << 32) ^ u64::from(hash)).max(1) & (u64::MAX >> 1)
    }

    /// One answer of the timestamp stream.
    pub async fn tso(&self, request: TsoRequest) -> Result<TsoResponse, Status> {
        self.check_cluster(request.header.as_ref())?;
        if !matches!(request.dc_location.as_str(), "" | "global") {
            return Err(Status::invalid_argument(format!("unknown dc-location {}", request.dc_location)));
        }
        let ts = self.timestamps(request.count).await?;
        let timestamp = pdpb::Timestamp {
            physical: ts.physical_ms() as i64,
            logical: ts.logical() as i64,
            suffix_bits: 0,
        };
        Ok(TsoResponse { header: self.ok(), count: request.count, timestamp: Some(timestamp) })
    }

    /// The members; asked first, so the request's cluster id does not matter.
    pub async fn get_members(&self, _request: GetMembersRequest) -> Result<GetMembersResponse, Status> {
        let leader = self.leader_member();
        Ok(GetMembersResponse {
            header: self.ok(),
            members: self.all_members(),
            leader: leader.clone(),
            etcd_leader: leader,
            tso_allocator_leaders: Default::default(),
        })
    }

    /// How timestamps are served: by the placement driver itself.
    pub async fn get_cluster_info(
        &self,
        _request: GetClusterInfoRequest,
    ) -> Result<GetClusterInfoResponse, Status> {
        Ok(GetClusterInfoResponse {
            header: self.ok(),
            service_modes: vec![ServiceMode::PdSvcMode as i32],
            tso_urls: vec![],
        })
    }

    /// Offers the first store and region.
    pub async fn bootstrap(&self, request: BootstrapRequest) -> Result<BootstrapResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let (Some(store), Some(region)) = (request.store, request.region) else {
            let header =
                self.error(ErrorType::Unknown, "invalid bootstrap request: store and region must be set");
            return Ok(BootstrapResponse { header });
        };
        let result =
            self.metrics.time_write(leading.cluster.bootstrap(store, region, self.clock.now_ms())).await?;
        Ok(BootstrapResponse { header: result.map_or_else(|refused| self.refusal(refused), |()| self.ok()) })
    }

    fn refusal(&self, refused: Refused) -> Option<pdpb::ResponseHeader> {
        match refused {
            Refused::AlreadyBootstrapped => {
                self.error(ErrorType::AlreadyBootstrapped, "cluster is already bootstrapped")
            }
            Refused::NotBootstrapped => self.not_bootstrapped(),
            Refused::Invalid(text) | Refused::Store(StoreRefused::Invalid(text)) => {
                self.error(ErrorType::Unknown, text)
            }
            Refused::Store(StoreRefused::Tombstone(id)) => {
                self.error(ErrorType::StoreTombstone, format!("store {id} is tombstone and cannot come back"))
            }
            Refused::Store(StoreRefused::DuplicateAddress(text)) => self.error(ErrorType::Unknown, text),
        }
    }

    /// Whether there is a first store and region.
    pub async fn is_bootstrapped(
        &self,
        request: IsBootstrappedRequest,
    ) -> Result<IsBootstrappedResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        Ok(IsBootstrappedResponse { header: self.ok(), bootstrapped: leading.cluster.view().bootstrapped })
    }

    /// New ids; the answer holds the largest.
    pub async fn alloc_id(&self, request: AllocIdRequest) -> Result<AllocIdResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let count = request.count.max(1);
        let id = self.metrics.time_write(leading.ids.allocate(u64::from(count))).await?;
        Ok(AllocIdResponse { header: self.ok(), id, count })
    }

    /// A store by its id.
    pub async fn get_store(&self, request: GetStoreRequest) -> Result<GetStoreResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let view = leading.cluster.view();
        if !view.bootstrapped {
            return Ok(GetStoreResponse { header: self.not_bootstrapped(), ..Default::default() });
        }
        match view.stores.get(request.store_id) {
            Some(info) => {
                Ok(GetStoreResponse { header: self.ok(), store: Some(info.to_meta()), stats: info.stats })
            }
            None => {
                let text = format!("invalid store ID {}, not found", request.store_id);
                Ok(GetStoreResponse { header: self.error(ErrorType::Unknown, text), ..Default::default() })
            }
        }
    }

    /// Registers or updates a store.
    pub async fn put_store(&self, request: PutStoreRequest) -> Result<PutStoreResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let Some(store) = request.store else {
            return Ok(PutStoreResponse {
                header: self.error(ErrorType::Unknown, "invalid put store request"),
            });
        };
        let result = self.metrics.time_write(leading.cluster.put_store(store, self.clock.now_ms())).await?;
        Ok(PutStoreResponse { header: result.map_or_else(|refused| self.refusal(refused), |()| self.ok()) })
    }

    /// All stores.
    pub async fn get_all_stores(&self, request: GetAllStoresRequest) -> Result<GetAllStoresResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let view = leading.cluster.view();
        if !view.bootstrapped {
            return Ok(GetAllStoresResponse { header: self.not_bootstrapped(), stores: vec![] });
        }
        let wanted = |info: &&Arc<crate::cluster::stores::StoreInfo>| {
            !(request.exclude_tombstone_stores && info.is_tombstone())
        };
        let stores = view.stores.iter().filter(wanted).map(|info| info.to_meta()).collect();
        Ok(GetAllStoresResponse { header: self.ok(), stores })
    }

    /// Takes what a store tells of itself.
    pub async fn store_heartbeat(
        &self,
        request: StoreHeartbeatRequest,
    ) -> Result<StoreHeartbeatResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        self.metrics.store_heartbeats.inc();
        if !leading.cluster.view().bootstrapped {
            return Ok(StoreHeartbeatResponse { header: self.not_bootstrapped() });
        }
        let Some(stats) = request.stats else {
            let header = self.error(ErrorType::Unknown, "invalid store heartbeat: no stats");
            return Ok(StoreHeartbeatResponse { header });
        };
        let store_id = stats.store_id;
        let tombstone = leading.cluster.view().stores.get(store_id).is_some_and(|info| info.is_tombstone());
        let header = if tombstone {
            self.error(ErrorType::StoreTombstone, format!("store {store_id} is tombstone"))
        } else if leading.cluster.store_heartbeat(stats, self.clock.now_ms()) {
            self.ok()
        } else {
            self.error(ErrorType::Unknown, format!("invalid store ID {store_id}, not found"))
        };
        Ok(StoreHeartbeatResponse { header })
    }

    /// The GC safe point.
    pub async fn get_gc_safe_point(
        &self,
        request: GetGcSafePointRequest,
    ) -> Result<GetGcSafePointResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        Ok(GetGcSafePointResponse { header: self.ok(), safe_point: leading.safe_points.gc() })
    }

    /// Raises the GC safe point; it never goes back.
    pub async fn update_gc_safe_point(
        &self,
        request: UpdateGcSafePointRequest,
    ) -> Result<UpdateGcSafePointResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let new_safe_point = leading.safe_points.update_gc(request.safe_point).await?;
        Ok(UpdateGcSafePointResponse { header: self.ok(), new_safe_point })
    }

    /// A service holds garbage collection back for a time.
    pub async fn update_service_gc_safe_point(
        &self,
        request: UpdateServiceGcSafePointRequest,
    ) -> Result<UpdateServiceGcSafePointResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let now_s = self.now_s();
        let points = &leading.safe_points;
        let smallest =
            points.update_service(request.service_id, request.ttl, request.safe_point, now_s).await?;
        Ok(UpdateServiceGcSafePointResponse {
            header: self.ok(),
            service_id: smallest.service_id,
            ttl: smallest.expires_at_s.saturating_sub(now_s),
            min_safe_point: smallest.safe_point,
        })
    }

    /// Both safe points.
    pub async fn get_gc_state(&self, request: GetGcStateRequest) -> Result<GetGcStateResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let scope = request.keyspace_scope.unwrap_or_else(null_keyspace);
        let gc_state = GcState {
            keyspace_scope: Some(scope),
            is_keyspace_level_gc: false,
            txn_safe_point: leading.safe_points.txn(),
            gc_safe_point: leading.safe_points.gc(),
        };
        Ok(GetGcStateResponse { header: self.ok(), gc_state: Some(gc_state) })
    }

    /// Raises the transaction safe point as far as nobody holds it back.
    pub async fn advance_txn_safe_point(
        &self,
        request: AdvanceTxnSafePointRequest,
    ) -> Result<AdvanceTxnSafePointResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        match leading.safe_points.advance_txn(request.target, self.now_s()).await {
            Ok(advanced) => Ok(AdvanceTxnSafePointResponse {
                header: self.ok(),
                old_txn_safe_point: advanced.old,
                new_txn_safe_point: advanced.new,
                blocker_description: advanced.blocker,
            }),
            Err(crate::error::Error::Invalid(text)) => {
                let header = self.error(ErrorType::InvalidValue, text);
                Ok(AdvanceTxnSafePointResponse { header, ..Default::default() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A keyspace by its name.
    pub async fn load_keyspace(&self, request: LoadKeyspaceRequest) -> Result<LoadKeyspaceResponse, Status> {
        self.check(request.header.as_ref())?;
        if request.name != DEFAULT_KEYSPACE {
            let header =
                self.error(ErrorType::EntryNotFound, format!("keyspace {} does not exist", request.name));
            return Ok(LoadKeyspaceResponse { header, keyspace: None });
        }
        let keyspace =
            KeyspaceMeta { name: request.name, state: KeyspaceState::Enabled as i32, ..Default::default() };
        Ok(LoadKeyspaceResponse { header: self.ok(), keyspace: Some(keyspace) })
    }

    fn now_s(&self) -> i64 {
        (self.clock.now_ms() / 1000) as i64
    }
}

fn null_keyspace() -> KeyspaceScope {
    KeyspaceScope { keyspace: Some(keyspace_scope::Keyspace::KeyspaceId(NULL_KEYSPACE_ID)) }
}
