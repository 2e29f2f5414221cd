//! The status port: `/status` in JSON, `/metrics` for Prometheus.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use crate::session::instance::{Instance, VERSION};

/// Serves until the task is aborted.
pub async fn serve(instance: Arc<Instance>, listener: TcpListener) {
    let router =
        Router::new().route("/status", get(status)).route("/metrics", get(metrics)).with_state(instance);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!(%error, "status port");
    }
}

async fn status(State(instance): State<Arc<Instance>>) -> impl IntoResponse {
    Json(serde_json::json!({
        "version": VERSION,
        "connections": instance.connection_count(),
        "schema_version": instance.catalog.snapshot().version(),
        "uptime_seconds": instance.uptime_seconds(),
    }))
}

async fn metrics(State(instance): State<Arc<Instance>>) -> impl IntoResponse {
    let mut text = String::new();
    for (name, value) in instance.status() {
        let name = format!("rutile_sql_{}", name.to_lowercase());
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
