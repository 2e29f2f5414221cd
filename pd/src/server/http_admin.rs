//! The HTTP API that changes something: operators, schedulers, settings, decommissioning.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rutile_proto::metapb::StoreState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::PdService;
use super::http::NotLeading;
use super::leading::Leading;
use crate::cluster::region_tree::RegionInfo;
use crate::error::Error;
use crate::schedule::config::{SCHEDULERS, ScheduleConfig};
use crate::schedule::operator::{Operator, Step};
use crate::schedule::proposal::{Goal, Kind, Proposal};
use crate::schedule::view::Health;

type Service = State<Arc<PdService>>;

/// Routes that change something, and those that show what they change.
pub fn router() -> Router<Arc<PdService>> {
    Router::new()
        .route("/pd/api/v1/operators", get(operators).post(add_operator))
        .route("/pd/api/v1/operators/records", get(operator_records))
        .route("/pd/api/v1/operators/{region}", get(operator).delete(cancel_operator))
        .route("/pd/api/v1/schedulers", get(schedulers).post(start_scheduler))
        .route("/pd/api/v1/schedulers/{name}", post(start_named).delete(stop_named))
        .route("/pd/api/v1/config", get(config).post(set_config))
        .route("/pd/api/v1/config/schedule", get(schedule_config).post(set_config))
        .route("/pd/api/v1/config/replicate", get(replication_config).post(set_config))
        .route("/pd/api/v1/store/{id}/state", post(set_state))
        .route("/pd/api/v1/store/{id}/progress", get(progress))
}

/// What a request is refused with.
pub enum Refused {
    /// 503.
    NotLeading,
    /// 400, with the reason.
    Bad(String),
    /// 404, with what is missing.
    Missing(String),
    /// 500: it may or may not have happened.
    Failed(String),
}

impl From<tonic::Status> for Refused {
    fn from(_: tonic::Status) -> Self {
        Refused::NotLeading
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::NotLeader | Error::Stopping => Refused::NotLeading,
            Error::Invalid(text) => Refused::Bad(text),
            other => Refused::Failed(other.to_string()),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Refused::NotLeading => return NotLeading.into_response(),
            Refused::Bad(text) => (StatusCode::BAD_REQUEST, text),
            Refused::Missing(text) => (StatusCode::NOT_FOUND, text),
            Refused::Failed(text) => (StatusCode::INTERNAL_SERVER_ERROR, text),
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}

type Answer = Result<Json<Value>, Refused>;

async fn operators(State(service): Service) -> Answer {
    let leading = service.leading()?;
    let controller = leading.scheduling.controller.lock();
    Ok(Json(controller.running().map(|operator| Value::from(operator.to_string())).collect()))
}

async fn operator_records(State(service): Service) -> Answer {
    let leading = service.leading()?;
    let controller = leading.scheduling.controller.lock();
    let record = |operator: &Operator| format!("{operator} -> {}", operator.status.name());
    Ok(Json(controller.ended().map(|operator| Value::from(record(operator))).collect()))
}

async fn operator(State(service): Service, Path(region): Path<u64>) -> Answer {
    let leading = service.leading()?;
    let controller = leading.scheduling.controller.lock();
    let missing = || Refused::Missing(format!("region {region} has no operator"));
    let operator = controller.of_region(region).ok_or_else(missing)?;
    Ok(Json(json!({ "operator": operator.to_string(), "status": operator.status.name() })))
}

async fn cancel_operator(State(service): Service, Path(region): Path<u64>) -> Answer {
    let leading = service.leading()?;
    match leading.scheduling.controller.lock().cancel(region) {
        true => Ok(Json(json!("The pending operator is canceled."))),
        false => Err(Refused::Missing(format!("region {region} has no operator under way"))),
    }
}

/// The body of a new operator.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NewOperator {
    name: String,
    region_id: Option<u64>,
    store_id: Option<u64>,
    from_store_id: Option<u64>,
    to_store_id: Option<u64>,
    to_store_ids: Vec<u64>,
    source_region_id: Option<u64>,
    target_region_id: Option<u64>,
    keys: Vec<String>,
    group: String,
}

async fn add_operator(State(service): Service, Json(wanted): Json<NewOperator>) -> Answer {
    let leading = service.leading()?;
    let now_ms = service.clock.now_ms();
    let name = wanted.name.as_str();
    let region_id = wanted.region_id.or(wanted.source_region_id);
    let region_id = region_id.ok_or_else(|| Refused::Bad("region_id is missing".into()))?;
    if name == "scatter-region" {
        leading.scatter(region_id, &wanted.group, now_ms).await?;
        return Ok(Json(json!("The operator is created.")));
    }
    let region = leading.cluster.view().regions.by_id(region_id).cloned();
    let region = region.ok_or_else(|| Refused::Missing(format!("there is no region {region_id}")))?;
    if name == "split-region" {
        let keys = wanted.keys.iter().map(|key| super::http::from_hex(key).map(Into::into)).collect();
        let keys: Option<Vec<bytes::Bytes>> = keys;
        let keys = keys.ok_or_else(|| Refused::Bad("keys must be hexadecimal".into()))?;
        let inside = |key: &bytes::Bytes| {
            *key > region.meta.start_key && (region.meta.end_key.is_empty() || *key < region.meta.end_key)
        };
        if let Some(bad) = keys.iter().position(|key| !inside(key)) {
            return Err(Refused::Bad(format!("key {} is not inside region {region_id}", wanted.keys[bad])));
        }
        let steps = vec![Step::Split(keys)];
        leading.add_operator(Operator::new(&region, "admin-split-region", Kind::Split, steps, now_ms))?;
    } else {
        let goal = goal_of(&leading, &wanted, &region, now_ms)?;
        let proposal = Proposal { region_id, reason: "admin", kind: Kind::Admin, goal };
        leading.start(&proposal, &format!("admin-{name}"), now_ms).await?;
    }
    leading.scheduling.wake();
    Ok(Json(json!("The operator is created.")))
}

fn goal_of(
    leading: &Leading,
    wanted: &NewOperator,
    region: &RegionInfo,
    now_ms: u64,
) -> Result<Goal, Refused> {
    let needs =
        |field: Option<u64>, name: &str| field.ok_or_else(|| Refused::Bad(format!("{name} is missing")));
    let voters = || -> BTreeSet<u64> { region.meta.peers.iter().map(|peer| peer.store_id).collect() };
    let place = |voters: BTreeSet<u64>, leader: Option<u64>| Goal::Place { voters, leader };
    let goal = match wanted.name.as_str() {
        "transfer-leader" => place(voters(), Some(needs(wanted.to_store_id, "to_store_id")?)),
        "add-peer" => {
            let store = needs(wanted.store_id, "store_id")?;
            place(voters().into_iter().chain([store]).collect(), None)
        }
        "remove-peer" => {
            let store = needs(wanted.store_id, "store_id")?;
            if !voters().contains(&store) {
                return Err(Refused::Bad(format!("region {} has no peer on store {store}", region.meta.id)));
            }
            place(voters().into_iter().filter(|id| *id != store).collect(), None)
        }
        "transfer-peer" => {
            let (from, to) =
                (needs(wanted.from_store_id, "from_store_id")?, needs(wanted.to_store_id, "to_store_id")?);
            if !voters().contains(&from) {
                return Err(Refused::Bad(format!("region {} has no peer on store {from}", region.meta.id)));
            }
            place(voters().into_iter().filter(|id| *id != from).chain([to]).collect(), None)
        }
        "transfer-region" => place(wanted.to_store_ids.iter().copied().collect(), None),
        "merge-region" => Goal::MergeInto { target: needs(wanted.target_region_id, "target_region_id")? },
        other => {
            return Err(Refused::Bad(format!(
                "there is no operator \"{other}\"; there are transfer-leader, add-peer, remove-peer, transfer-peer, \
                 transfer-region, split-region, merge-region, scatter-region"
            )));
        }
    };
    if let Goal::Place { voters, .. } = &goal {
        leading.with_view(now_ms, |cluster, _| {
            let held = |id: u64| region.meta.peers.iter().any(|peer| peer.store_id == id);
            for id in voters {
                match cluster.stores.get(id).map(|store| store.health) {
                    None => return Err(Refused::Bad(format!("there is no store {id}"))),
                    Some(health) if health != Health::Up && !held(*id) => {
                        return Err(Refused::Bad(format!(
                            "store {id} cannot take a peer: it is {}",
                            health.name()
                        )));
                    }
                    Some(_) => {}
                }
            }
            Ok(())
        })?;
    }
    Ok(goal)
}

async fn schedulers(State(service): Service) -> Answer {
    let config = service.leading()?.scheduling.config();
    Ok(Json(SCHEDULERS.iter().filter(|name| config.is_on(name)).map(|name| Value::from(*name)).collect()))
}

#[derive(Deserialize)]
struct SchedulerName {
    name: String,
}

async fn start_scheduler(service: Service, Json(wanted): Json<SchedulerName>) -> Answer {
    switch(service, &wanted.name, true).await
}

async fn start_named(service: Service, Path(name): Path<String>) -> Answer {
    switch(service, &name, true).await
}

async fn stop_named(service: Service, Path(name): Path<String>) -> Answer {
    switch(service, &name, false).await
}

async fn switch(State(service): Service, name: &str, on: bool) -> Answer {
    let leading = service.leading()?;
    let mut config = ScheduleConfig::clone(&leading.scheduling.config());
    if on {
        if !SCHEDULERS.contains(&name) {
            return Err(Refused::Missing(format!(
                "there is no scheduler \"{name}\"; there are {}",
                SCHEDULERS.join(", ")
            )));
        }
        config.paused_schedulers.remove(name);
    } else {
        config.paused_schedulers.insert(name.to_owned());
    }
    leading.set_config(config).await?;
    Ok(Json(json!(if on { "The scheduler is on." } else { "The scheduler is off." })))
}

async fn config(State(service): Service) -> Answer {
    let leading = service.leading()?;
    let mut all = serde_json::to_value(&service.config).unwrap_or_default();
    all["schedule"] = serde_json::to_value(&*leading.scheduling.config()).unwrap_or_default();
    all["replication"] = replication(&leading.scheduling.config());
    Ok(Json(all))
}

fn replication(config: &ScheduleConfig) -> Value {
    json!({ "max-replicas": config.max_replicas, "location-labels": config.location_labels.join(",") })
}

async fn schedule_config(State(service): Service) -> Answer {
    Ok(Json(serde_json::to_value(&*service.leading()?.scheduling.config()).unwrap_or_default()))
}

async fn replication_config(State(service): Service) -> Answer {
    Ok(Json(replication(&service.leading()?.scheduling.config())))
}

/// Settings by name; a name may begin with `schedule.` or `replication.`.
async fn set_config(State(service): Service, Json(wanted): Json<serde_json::Map<String, Value>>) -> Answer {
    let leading = service.leading()?;
    let mut config = ScheduleConfig::clone(&leading.scheduling.config());
    for (name, value) in wanted {
        let short = name.trim_start_matches("schedule.").trim_start_matches("replication.");
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        };
        config = config.set(short, &text).map_err(Refused::Bad)?;
    }
    leading.set_config(config).await?;
    Ok(Json(json!("The config is updated.")))
}

#[derive(Deserialize)]
struct WantedState {
    state: String,
}

async fn set_state(service: Service, Path(id): Path<u64>, Query(wanted): Query<WantedState>) -> Answer {
    let state = match wanted.state.as_str() {
        "Up" => StoreState::Up,
        "Offline" => return decommission(service, Path(id)).await,
        other => return Err(Refused::Bad(format!("a store can become Up or Offline, not \"{other}\""))),
    };
    let State(service) = service;
    let leading = service.leading()?;
    let done = leading.cluster.set_store_state(id, state, service.clock.now_ms()).await?;
    done.map_err(Refused::Bad)?;
    Ok(Json(json!("The store's state is updated.")))
}

/// Begins to move everything off a store. Refused when the others are too few to hold the replicas.
pub async fn decommission(State(service): Service, Path(id): Path<u64>) -> Answer {
    let leading = service.leading()?;
    let now_ms = service.clock.now_ms();
    let (staying, wanted) = leading.with_view(now_ms, |cluster, _| {
        let staying = cluster.stores.values().filter(|store| store.id != id && store.health == Health::Up);
        (staying.count(), cluster.config.max_replicas as usize)
    });
    if staying < wanted {
        return Err(Refused::Bad(format!(
            "store {id} cannot leave: {staying} other stores are up, and max-replicas is {wanted}"
        )));
    }
    let done = leading.cluster.set_store_state(id, StoreState::Offline, now_ms).await?;
    done.map_err(Refused::Bad)?;
    leading.scheduling.wake();
    Ok(Json(json!("The store is set as Offline.")))
}

/// What a store that leaves still holds.
async fn progress(State(service): Service, Path(id): Path<u64>) -> Answer {
    let leading = service.leading()?;
    let view = leading.cluster.view();
    let store = view.stores.get(id).ok_or_else(|| Refused::Missing(format!("there is no store {id}")))?;
    let held = view.regions.iter().filter(|r| r.meta.peers.iter().any(|peer| peer.store_id == id));
    let led = view.regions.iter().filter(|r| r.leader.is_some_and(|leader| leader.store_id == id));
    let config = leading.scheduling.config();
    Ok(Json(json!({
        "store_id": id,
        "state_name": Health::of(store, &config, service.clock.now_ms()).name(),
        "region_count": held.count(),
        "leader_count": led.count(),
        "operator_count": leading.scheduling.controller.lock().running().filter(|o| o.removes().any(|s| s == id)).count(),
    })))
}
