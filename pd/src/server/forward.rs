//! Requests that another member must answer, sent on to it.
//!
//! A client that cannot reach the leader asks another member and names the leader in `pd-forwarded-host`. Clients of the
//! etcd service and of the HTTP API may ask any member: what only the leader can answer is sent on without being asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tonic::Status;
use tonic::client::GrpcService;
use tonic::transport::{Channel, Endpoint};

use super::PdService;

/// Set by clients: the URL of the member that shall answer.
const FORWARDED_HOST: &str = "pd-forwarded-host";
/// Set by us, so that a request is sent on once at most.
const FORWARDED_BY: &str = "rutile-forwarded-by";
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Connections to other members' client ports.
#[derive(Default)]
pub struct Channels(Mutex<HashMap<String, Channel>>);

impl Channels {
    fn get(&self, url: &str) -> Result<Channel, String> {
        let mut channels = self.0.lock();
        if let Some(channel) = channels.get(url) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| format!("{url}: {e}"))?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .connect_lazy();
        channels.insert(url.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Where a request must go; `None` = it is answered here.
fn destination(service: &PdService, request: &Request) -> Option<String> {
    if !service.members.is_group() || request.headers().contains_key(FORWARDED_BY) {
        return None;
    }
    if let Some(url) = request.headers().get(FORWARDED_HOST).and_then(|url| url.to_str().ok()) {
        let url = url.trim_end_matches('/');
        let known = service.all_members().iter().any(|member| member.client_urls.iter().any(|u| u == url));
        return (known && url != service.config.client_url()).then(|| url.to_owned());
    }
    let path = request.uri().path();
    let anywhere = path.ends_with("/MemberList") || path.ends_with("Maintenance/Status");
    let etcd = path.starts_with("/etcdserverpb.") && !anywhere;
    let http = path.strip_prefix("/pd/api/v1/").is_some_and(|rest| {
        !matches!(rest, "members" | "leader" | "health" | "version" | "config/self" | "status")
    });
    if !(etcd || http) || service.leading().is_ok() {
        return None;
    }
    let leader = service.leader_member()?;
    leader.client_urls.into_iter().next().filter(|url| *url != service.config.client_url())
}

/// Sends a request on to the leader if it must answer it.
pub async fn to_leader(State(service): State<Arc<PdService>>, request: Request, next: Next) -> Response {
    let Some(url) = destination(&service, &request) else { return next.run(request).await };
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    match send(&service, &url, request).await {
        Ok(response) => response,
        Err(text) if grpc => {
            Status::unavailable(format!("not leader; {text}")).into_http::<axum::body::Body>()
        }
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}

async fn send(service: &PdService, url: &str, request: Request) -> Result<Response, String> {
    let failed = |error: tonic::transport::Error| format!("{url}: {error}");
    let mut channel = service.channels.get(url)?;
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse::<Uri>().map_err(|e| e.to_string())?;
    parts.version = Version::HTTP_2;
    for hop in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        parts.headers.remove(hop);
    }
    let by = HeaderValue::from_str(&service.config.name).unwrap_or(HeaderValue::from_static("member"));
    parts.headers.insert(FORWARDED_BY, by);
    let request = axum::http::Request::from_parts(parts, tonic::body::Body::new(body));
    std::future::poll_fn(|cx| GrpcService::poll_ready(&mut channel, cx)).await.map_err(failed)?;
    let response = GrpcService::call(&mut channel, request).await.map_err(failed)?;
    Ok(response.map(axum::body::Body::new))
}
