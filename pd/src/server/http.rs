//! The HTTP API: the cluster map as JSON, metrics as text.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rutile_proto::metapb::Peer;
use rutile_proto::pdpb::Member;
use serde_json::{Value, json};

use super::{PdService, http_admin};
use crate::cluster::region_tree::RegionInfo;
use crate::cluster::stores::StoreInfo;
use crate::schedule::config::ScheduleConfig;
use crate::schedule::hot_region::{self, Flow};
use crate::schedule::view::Health;

type Service = State<Arc<PdService>>;

/// Routes under `/pd/api/v1`, `/metrics` and `/health`.
pub fn router(service: Arc<PdService>) -> Router {
    Router::new()
        .route("/pd/api/v1/regions", get(regions))
        .route("/pd/api/v1/region/id/{id}", get(region_by_id))
        .route("/pd/api/v1/region/key/{hex}", get(region_by_key))
        .route("/pd/api/v1/stores", get(stores))
        .route("/pd/api/v1/store/{id}", get(store).delete(http_admin::decommission))
        .route("/pd/api/v1/hotspot/regions/write", get(hot_write))
        .route("/pd/api/v1/hotspot/regions/read", get(hot_read))
        .route("/pd/api/v1/members", get(members))
        .route("/pd/api/v1/leader", get(leader))
        .route("/pd/api/v1/health", get(health))
        .route("/pd/api/v1/cluster", get(cluster))
        .route("/pd/api/v1/version", get(|| async { Json(json!({ "version": env!("CARGO_PKG_VERSION") })) }))
        .route("/health", get(|| async { Json(json!({ "health": "true" })) }))
        .route("/metrics", get(metrics))
        .merge(http_admin::router())
        .with_state(service)
}

/// 503: this member does not lead.
pub struct NotLeading;

impl From<tonic::Status> for NotLeading {
    fn from(_: tonic::Status) -> Self {
        NotLeading
    }
}

impl IntoResponse for NotLeading {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "not leader" }))).into_response()
    }
}

async fn regions(State(service): Service) -> Result<Json<Value>, NotLeading> {
    let leading = service.leading()?;
    let view = leading.cluster.view();
    let regions: Vec<Value> = view.regions.iter().map(|info| region(info)).collect();
    Ok(Json(json!({ "count": regions.len(), "regions": regions })))
}

async fn region_by_id(State(service): Service, Path(id): Path<u64>) -> Result<Response, NotLeading> {
    let leading = service.leading()?;
    let view = leading.cluster.view();
    Ok(found(view.regions.by_id(id).map(|info| region(info)), "region not found"))
}

async fn region_by_key(State(service): Service, Path(key): Path<String>) -> Result<Response, NotLeading> {
    let Some(key) = from_hex(&key) else {
        let error = json!({ "error": "the key must be hexadecimal" });
        return Ok((StatusCode::BAD_REQUEST, Json(error)).into_response());
    };
    let leading = service.leading()?;
    let view = leading.cluster.view();
    Ok(found(view.regions.by_key(&key).map(|info| region(info)), "region not found"))
}

async fn stores(State(service): Service) -> Result<Json<Value>, NotLeading> {
    let now_ms = service.clock.now_ms();
    let leading = service.leading()?;
    let view = leading.cluster.view();
    let config = leading.scheduling.config();
    let stores: Vec<Value> = view
        .stores
        .iter()
        .filter(|info| !info.is_tombstone())
        .map(|info| store_json(&view, info, now_ms, &config))
        .collect();
    Ok(Json(json!({ "count": stores.len(), "stores": stores })))
}

async fn store(State(service): Service, Path(id): Path<u64>) -> Result<Response, NotLeading> {
    let now_ms = service.clock.now_ms();
    let leading = service.leading()?;
    let view = leading.cluster.view();
    let info = view.stores.get(id);
    Ok(found(
        info.map(|info| store_json(&view, info, now_ms, &leading.scheduling.config())),
        "store not found",
    ))
}

async fn members(State(service): Service) -> Json<Value> {
    let leader = service.leader_member().as_ref().map(member);
    Json(json!({
        "header": { "cluster_id": service.cluster_id() },
        "members": service.all_members().iter().map(member).collect::<Vec<_>>(),
        "leader": leader,
        "etcd_leader": leader,
    }))
}

async fn leader(State(service): Service) -> Response {
    found(service.leader_member().as_ref().map(member), "no leader")
}

async fn health(State(service): Service) -> Json<Value> {
    let member = service.member();
    Json(json!([{
        "name": member.name,
        "member_id": member.member_id,
        "client_urls": member.client_urls,
        "health": true,
    }]))
}

async fn cluster(State(service): Service) -> Result<Json<Value>, NotLeading> {
    Ok(Json(json!({
        "id": service.cluster_id(),
        "max_peer_count": service.leading()?.scheduling.config().max_replicas,
        "is_bootstrapped": service.leading()?.cluster.view().bootstrapped,
    })))
}

async fn hot_write(State(service): Service) -> Result<Json<Value>, NotLeading> {
    hot(&service, Flow::Write)
}

async fn hot_read(State(service): Service) -> Result<Json<Value>, NotLeading> {
    hot(&service, Flow::Read)
}

/// Hot regions, the hottest first.
fn hot(service: &PdService, flow: Flow) -> Result<Json<Value>, NotLeading> {
    let leading = service.leading()?;
    let regions: Vec<Value> = leading.with_view(service.clock.now_ms(), |cluster, _| {
        hot_region::hot_regions(cluster, flow).into_iter().map(|info| region(info)).collect()
    });
    Ok(Json(json!({ "count": regions.len(), "regions": regions })))
}

async fn metrics(State(service): Service) -> String {
    if let Ok(leading) = service.leading() {
        let view = leading.cluster.view();
        service.metrics.regions.set(view.regions.len() as i64);
        service.metrics.stores.set(view.stores.iter().count() as i64);
        service.metrics.store_states.reset();
        let (config, now_ms) = (leading.scheduling.config(), service.clock.now_ms());
        for store in view.stores.iter() {
            let state = Health::of(store, &config, now_ms).name();
            service.metrics.store_states.with_label_values(&[state]).inc();
        }
        let controller = leading.scheduling.controller.lock();
        for (reason, event, count) in controller.counts() {
            service.metrics.operators.with_label_values(&[reason, event]).set(count as i64);
        }
        service.metrics.operators_running.reset();
        for operator in controller.running() {
            service.metrics.operators_running.with_label_values(&[operator.kind.name()]).inc();
        }
    }
    let (role, stats) = (service.store.role(), service.store.stats());
    let leads = i64::from(service.leading().is_ok());
    for (name, value) in [
        ("term", role.term as i64),
        ("leads", leads),
        ("last_index", stats.last_index.load(Ordering::Relaxed) as i64),
        ("applied_index", stats.applied_index.load(Ordering::Relaxed) as i64),
        ("log_size_bytes", stats.size_bytes.load(Ordering::Relaxed) as i64),
        ("proposals", stats.proposals.load(Ordering::Relaxed) as i64),
        ("messages_sent", stats.messages_sent.load(Ordering::Relaxed) as i64),
        ("messages_received", stats.messages_received.load(Ordering::Relaxed) as i64),
        ("snapshots_installed", stats.snapshots_installed.load(Ordering::Relaxed) as i64),
        ("elections_won", stats.elections_won.load(Ordering::Relaxed) as i64),
        ("syncs", stats.syncs.load(Ordering::Relaxed) as i64),
        ("sync_microseconds", stats.sync_us.load(Ordering::Relaxed) as i64),
    ] {
        service.metrics.raft.with_label_values(&[name]).set(value);
    }
    service.metrics.text()
}

fn found(value: Option<Value>, missing: &str) -> Response {
    match value {
        Some(value) => Json(value).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": missing }))).into_response(),
    }
}

fn region(info: &RegionInfo) -> Value {
    let epoch = info.epoch();
    json!({
        "id": info.meta.id,
        "start_key": to_hex(&info.meta.start_key),
        "end_key": to_hex(&info.meta.end_key),
        "epoch": { "conf_ver": epoch.conf_ver, "version": epoch.version },
        "peers": info.meta.peers.iter().map(peer).collect::<Vec<_>>(),
        "leader": info.leader.as_ref().map(peer),
        "down_peers": info.down_peers.iter().filter_map(|down| down.peer.as_ref().map(peer)).collect::<Vec<_>>(),
        "pending_peers": info.pending_peers.iter().map(peer).collect::<Vec<_>>(),
        "written_bytes_per_s": info.flow.written_bytes_per_s,
        "read_bytes_per_s": info.flow.read_bytes_per_s,
        "written_bytes": info.written_bytes,
        "read_bytes": info.read_bytes,
        "approximate_size": info.approximate_size_bytes >> 20,
        "approximate_keys": info.approximate_keys,
    })
}

fn peer(peer: &Peer) -> Value {
    json!({ "id": peer.id, "store_id": peer.store_id, "role_name": peer.role().as_str_name() })
}

fn store_json(view: &crate::cluster::View, info: &StoreInfo, now_ms: u64, config: &ScheduleConfig) -> Value {
    let (id, stats) = (info.meta.id, info.stats.unwrap_or_default());
    let led = view.regions.iter().filter(|r| r.leader.is_some_and(|leader| leader.store_id == id));
    let held = view.regions.iter().filter(|r| r.meta.peers.iter().any(|peer| peer.store_id == id));
    let mib = |regions: Vec<&Arc<RegionInfo>>| {
        let bytes: u64 = regions.iter().map(|region| region.approximate_size_bytes).sum();
        (regions.len(), bytes >> 20)
    };
    let ((leaders, leader_mib), (regions, region_mib)) = (mib(led.collect()), mib(held.collect()));
    let labels = info.meta.labels.iter();
    let interval = stats.interval.unwrap_or_default();
    let interval_s = interval.end_timestamp.saturating_sub(interval.start_timestamp).max(1);
    let uptime_s = (now_ms / 1000).saturating_sub(u64::from(stats.start_time));
    json!({
        "store": {
            "id": id,
            "address": info.meta.address,
            "status_address": info.meta.status_address,
            "version": info.meta.version,
            "labels": labels.map(|l| json!({ "key": l.key, "value": l.value })).collect::<Vec<_>>(),
            "state": info.meta.state,
            "state_name": Health::of(info, config, now_ms).name(),
            "node_state_name": info.meta.node_state().as_str_name(),
            "last_heartbeat": info.last_heartbeat_ms.saturating_mul(1_000_000),
        },
        "status": {
            "capacity": size(stats.capacity),
            "available": size(stats.available),
            "used_size": size(stats.used_size),
            "capacity_bytes": stats.capacity,
            "available_bytes": stats.available,
            "used_bytes": stats.used_size,
            "leader_count": leaders,
            "leader_weight": 1,
            "leader_score": leaders,
            "leader_size": leader_mib,
            "region_count": regions,
            "region_weight": 1,
            "region_score": regions,
            "region_size": region_mib,
            "sending_snap_count": stats.sending_snap_count,
            "receiving_snap_count": stats.receiving_snap_count,
            "is_busy": stats.is_busy,
            "written_bytes_per_s": stats.bytes_written / interval_s,
            "read_bytes_per_s": stats.bytes_read / interval_s,
            "start_ts": stats.start_time,
            "last_heartbeat_ms": info.last_heartbeat_ms,
            "uptime": format!("{}h{}m{}s", uptime_s / 3600, uptime_s / 60 % 60, uptime_s % 60),
        },
    })
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = (0..units.len() - 1).take_while(|at| bytes >> (10 * (at + 1)) > 0).count();
    let scaled = bytes as f64 / (1u64 << (10 * at)) as f64;
    format!("{scaled:.4}").trim_end_matches('0').trim_end_matches('.').to_owned() + units[at]
}

fn member(member: &Member) -> Value {
    json!({
        "name": member.name,
        "member_id": member.member_id,
        "peer_urls": member.peer_urls,
        "client_urls": member.client_urls,
        "binary_version": member.binary_version,
    })
}

fn to_hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02X}")).collect()
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
