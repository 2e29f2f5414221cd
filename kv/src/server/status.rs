//! The HTTP status port: `/metrics` (Prometheus), `/status`, `/config`.

use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Serialize;

use crate::config::Config;
use crate::metrics;
use crate::raftstore::{RaftKv, RaftStore};

/// The answer to `/status`.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    cluster_id: u64,
    store_id: u64,
    regions: usize,
    leaders: usize,
    data_size_bytes: u64,
    raft_log_size_bytes: u64,
    engine_memory_bytes: u64,
}

/// The routes of the status port.
pub(super) fn router(config: Config, cluster_id: u64, raft: Arc<RaftStore>) -> Router {
    let config = Arc::new(config);
    let status = move || async move {
        let regions = raft.regions();
        axum::Json(Status {
            version: env!("CARGO_PKG_VERSION"),
            cluster_id,
            store_id: raft.store_id(),
            regions: regions.len(),
            leaders: regions.iter().filter(|(_, leads)| *leads).count(),
            data_size_bytes: raft.engine().used_size_bytes(),
            raft_log_size_bytes: raft.raft_log_size_bytes(),
            engine_memory_bytes: raft.engine().memory_bytes(),
        })
    };
    let text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Router::new()
        .route("/metrics", get(move || async move { (text, metrics::render()).into_response() }))
        .route("/status", get(status))
        .route("/config", get(move || async move { axum::Json((*config).clone()) }))
}
