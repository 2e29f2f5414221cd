//! Watches of the etcd service: one stream carries many of them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use rutile_proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request, watch_request,
};
use rutile_proto::key::in_range;
use rutile_proto::mvccpb::{Event, event};
use tonic::Status;

use super::PdService;
use crate::replicated::Role;

/// Watches on one stream.
const WATCHES_MAX: usize = 4096;
/// Events in one answer, unless a revision has more.
const EVENTS_MAX: usize = 1024;

struct Watcher {
    key: Bytes,
    range_end: Bytes,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    next_revision: i64,
    progress_notify: bool,
    fragment: bool,
    /// Nothing was told since the last time progress was told.
    quiet: bool,
}

impl Watcher {
    fn new(request: &WatchCreateRequest, revision: i64) -> Self {
        let filters = |wanted: watch_create_request::FilterType| request.filters.contains(&(wanted as i32));
        Watcher {
            key: if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key.clone() },
            range_end: request.range_end.clone(),
            prev_kv: request.prev_kv,
            no_put: filters(watch_create_request::FilterType::Noput),
            no_delete: filters(watch_create_request::FilterType::Nodelete),
            progress_notify: request.progress_notify,
            fragment: request.fragment,
            quiet: true,
            next_revision: if request.start_revision > 0 { request.start_revision } else { revision + 1 },
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let Some(kv) = &event.kv else { return false };
        let deletion = event.r#type() == event::EventType::Delete;
        if (deletion && self.no_delete) || (!deletion && self.no_put) {
            return false;
        }
        match self.range_end.as_ref() {
            [] => kv.key == self.key,
            [0] => kv.key >= self.key,
            end => in_range(&kv.key, &self.key, end),
        }
    }
}

/// The watches of one stream.
struct Watches {
    service: Arc<PdService>,
    by_id: HashMap<i64, Watcher>,
    next_id: i64,
}

impl Watches {
    fn take(&mut self, request: WatchRequest) -> Vec<WatchResponse> {
        match request.request_union {
            Some(watch_request::RequestUnion::CreateRequest(request)) => vec![self.create(&request)],
            Some(watch_request::RequestUnion::CancelRequest(request)) => {
                if self.by_id.remove(&request.watch_id).is_none() {
                    return vec![];
                }
                vec![WatchResponse { canceled: true, ..self.response(request.watch_id) }]
            }
            Some(watch_request::RequestUnion::ProgressRequest(_)) => vec![self.response(-1)],
            None => vec![],
        }
    }

    fn response(&self, watch_id: i64) -> WatchResponse {
        WatchResponse { header: Some(self.service.etcd_header()), watch_id, ..Default::default() }
    }

    fn create(&mut self, request: &WatchCreateRequest) -> WatchResponse {
        let refuse = |this: &Self, reason: &str| WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.into(),
            ..this.response(-1)
        };
        if request.watch_id != 0 && self.by_id.contains_key(&request.watch_id) {
            return refuse(self, "etcdserver: mvcc: duplicate watch ID provided on the WatchStream");
        }
        if self.by_id.len() >= WATCHES_MAX {
            return refuse(self, "etcdserver: too many watches on one stream");
        }
        while request.watch_id == 0 && self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = if request.watch_id == 0 { self.next_id } else { request.watch_id };
        let revision = self.service.store.read().revision();
        self.by_id.insert(id, Watcher::new(request, revision));
        WatchResponse { created: true, ..self.response(id) }
    }

    /// Tells watches that asked for it, and were told nothing else meanwhile, how far they are.
    fn progress(&mut self) -> Vec<WatchResponse> {
        let mut responses = Vec::new();
        let revision = self.service.store.read().revision();
        for (id, watcher) in &mut self.by_id {
            if watcher.progress_notify && watcher.quiet && watcher.next_revision > revision {
                let header = Some(self.service.etcd_header_at(revision));
                responses.push(WatchResponse { header, watch_id: *id, ..Default::default() });
            }
            watcher.quiet = true;
        }
        responses
    }

    /// What happened since each watch was told last.
    fn poll(&mut self) -> Vec<WatchResponse> {
        let mut responses = Vec::new();
        let mut compacted = Vec::new();
        let state = self.service.store.read();
        let revision = state.revision();
        for (id, watcher) in &mut self.by_id {
            if watcher.next_revision > revision {
                continue;
            }
            let Some(events) = state.events_since(watcher.next_revision) else {
                compacted.push((*id, state.compacted_revision()));
                continue;
            };
            watcher.next_revision = revision + 1;
            let wanted: Vec<Event> = events
                .into_iter()
                .map(|(_, event)| event)
                .filter(|event| watcher.wants(event))
                .map(|event| if watcher.prev_kv { event } else { Event { prev_kv: None, ..event } })
                .collect();
            watcher.quiet &= wanted.is_empty();
            let parts = cut(wanted, watcher.fragment);
            for (at, events) in (1..).zip(&parts) {
                responses.push(WatchResponse {
                    header: Some(self.service.etcd_header_at(revision)),
                    watch_id: *id,
                    fragment: watcher.fragment && at < parts.len(),
                    events: events.clone(),
                    ..Default::default()
                });
            }
        }
        drop(state);
        for (id, compact_revision) in compacted {
            self.by_id.remove(&id);
            let reason = "etcdserver: mvcc: required revision has been compacted".into();
            responses.push(WatchResponse {
                canceled: true,
                compact_revision,
                cancel_reason: reason,
                ..self.response(id)
            });
        }
        responses
    }
}

/// Parts of bounded length. Only a client that puts fragments together gets a revision in several parts.
fn cut(events: Vec<Event>, anywhere: bool) -> Vec<Vec<Event>> {
    let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let mut parts: Vec<Vec<Event>> = Vec::new();
    for event in events {
        match parts.last_mut() {
            Some(part) if part.len() < EVENTS_MAX => part.push(event),
            Some(part) if !anywhere && part.last().map(revision) == Some(revision(&event)) => {
                part.push(event)
            }
            _ => parts.push(vec![event]),
        }
    }
    parts
}

/// Until this member does not lead in `term` any more.
pub(super) async fn until_over(roles: &mut tokio::sync::watch::Receiver<Role>, term: u64) {
    drop(roles.wait_for(|role| !role.leading || role.term != term).await);
}

/// Answers a stream of watch requests until the client ends it.
pub fn run(
    service: Arc<PdService>,
    requests: impl Stream<Item = Result<WatchRequest, Status>> + Send + 'static,
) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static {
    async_stream::stream! {
        let mut revisions = service.store.revisions();
        let mut roles = service.store.roles();
        let term = match service.leading() {
            Ok(leading) => leading.store.bound_term(),
            Err(status) => {
                yield Err(status);
                return;
            }
        };
        let mut progress = tokio::time::interval(service.progress_interval());
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        progress.reset();
        let mut watches = Watches { service, by_id: HashMap::new(), next_id: 1 };
        let mut requests = Box::pin(requests);
        loop {
            let responses = tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => {
                        let mut responses = watches.take(request);
                        responses.extend(watches.poll());
                        responses
                    }
                    Some(Err(_)) | None => break, // the client is gone
                },
                () = until_over(&mut roles, term) => {
                    yield Err(crate::error::Error::NotLeader.into());
                    return;
                }
                _ = progress.tick() => watches.progress(),
                changed = revisions.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    watches.poll()
                }
            };
            for response in responses {
                yield Ok(response);
            }
        }
    }
}
