//! The etcd v3 operations over the state: Range, Put, DeleteRange, Txn.
//!
//! Older versions can be read down to the compaction.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use rutile_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, compare, range_request, request_op,
    response_op,
};
use rutile_proto::mvccpb::{Event, KeyValue, event};

use super::state::State;

type Refusal = String;

/// Operations that one transaction may hold.
const TXN_OPS_MAX: usize = 4096;

/// Bounds of an etcd range: no end = the one key, a zero byte = to the end of all keys.
fn bounds<'a>(key: &'a [u8], range_end: &'a [u8]) -> Option<(Bound<&'a [u8]>, Bound<&'a [u8]>)> {
    match range_end {
        [] => Some((Bound::Included(key), Bound::Included(key))),
        [0] => Some((Bound::Included(key), Bound::Unbounded)),
        end if end > key => Some((Bound::Included(key), Bound::Excluded(end))),
        _ => None,
    }
}

fn header(state: &State) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: state.revision, ..Default::default() })
}

/// Reads a range. The caller fills cluster, member and term into the header.
pub fn range(state: &State, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
    if request.revision > 0 {
        state.check_revision(request.revision)?;
    }
    let revision = if request.revision > 0 { request.revision } else { state.revision };
    let mut found = match bounds(&request.key, &request.range_end) {
        Some(bounds) => state.keys_at(bounds, revision),
        None => Vec::new(),
    };
    let count = found.len() as i64;
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    found.retain(|kv| {
        within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
    sort(&mut found, request);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    let kvs =
        if request.count_only {
            Vec::new()
        } else {
            found
                .into_iter()
                .map(|kv| {
                    if request.keys_only {
                        KeyValue { value: Bytes::new(), ..kv.clone() }
                    } else {
                        kv.clone()
                    }
                })
                .collect()
        };
    Ok(RangeResponse { header: header(state), kvs, more: more && !request.count_only, count })
}

fn sort(found: &mut [&KeyValue], request: &RangeRequest) {
    use range_request::{SortOrder, SortTarget};
    let order = request.sort_order();
    let target = request.sort_target();
    if order == SortOrder::None && target == SortTarget::Key {
        return;
    }
    match target {
        SortTarget::Key => {}
        SortTarget::Version => found.sort_by_key(|kv| kv.version),
        SortTarget::Create => found.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => found.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => found.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if order == SortOrder::Descend {
        found.reverse();
    }
}

/// Applies a transaction: checks everything first, then changes.
pub fn apply_txn(state: &mut State, txn: TxnRequest) -> Result<TxnResponse, Refusal> {
    check(state, &txn, 0)?;
    let before = state.revision;
    state.revision += 1;
    let (mut response, changed) = run(state, txn)?;
    if !changed {
        state.revision = before;
    }
    state.limit_history();
    stamp(&mut response, state.revision);
    Ok(response)
}

/// Whether the request changes nothing whatever the comparisons say, so that it needs no log entry.
#[must_use]
pub fn is_read_only(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(request_op::Request::RequestRange(_)) => true,
        Some(request_op::Request::RequestTxn(txn)) => is_read_only(txn),
        _ => false,
    })
}

/// Answers a transaction without changes.
pub fn read_txn(state: &State, txn: &TxnRequest) -> Result<TxnResponse, Refusal> {
    check(state, txn, 0)?;
    let succeeded = txn.compare.iter().all(|compare| holds(state, compare));
    let ops = if succeeded { &txn.success } else { &txn.failure };
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let response = match &op.request {
            Some(request_op::Request::RequestRange(range_request)) => {
                response_op::Response::ResponseRange(range(state, range_request)?)
            }
            Some(request_op::Request::RequestTxn(inner)) => {
                response_op::Response::ResponseTxn(read_txn(state, inner)?)
            }
            _ => return Err("etcdserver: a change in a read-only transaction".into()),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok(TxnResponse { header: header(state), succeeded, responses })
}

/// Refuses what could fail half way: bad ranges, unknown leases, keys put twice.
fn check(state: &State, txn: &TxnRequest, depth: usize) -> Result<(), Refusal> {
    if depth > 8 {
        return Err("etcdserver: transactions nest too deeply".into());
    }
    if txn.compare.len().max(txn.success.len()).max(txn.failure.len()) > TXN_OPS_MAX {
        return Err("etcdserver: too many operations in txn request".into());
    }
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err("etcdserver: key is not provided".into());
    }
    for ops in [&txn.success, &txn.failure] {
        let mut put = BTreeSet::new();
        for op in ops {
            check_op(state, op, &mut put, depth)?;
        }
    }
    Ok(())
}

fn check_op(state: &State, op: &RequestOp, put: &mut BTreeSet<Bytes>, depth: usize) -> Result<(), Refusal> {
    let no_key = || Err("etcdserver: key is not provided".to_string());
    match &op.request {
        None => Err("etcdserver: empty operation in txn request".into()),
        Some(request_op::Request::RequestRange(r)) if r.key.is_empty() => no_key(),
        Some(request_op::Request::RequestRange(r)) if r.revision > 0 => state.check_revision(r.revision),
        Some(request_op::Request::RequestRange(_)) => Ok(()),
        Some(request_op::Request::RequestDeleteRange(r)) if r.key.is_empty() => no_key(),
        Some(request_op::Request::RequestDeleteRange(_)) => Ok(()),
        Some(request_op::Request::RequestTxn(txn)) => check(state, txn, depth + 1),
        Some(request_op::Request::RequestPut(r)) => {
            if r.key.is_empty() {
                return no_key();
            }
            if r.lease != 0 && !r.ignore_lease && !state.leases.contains_key(&r.lease) {
                return Err("etcdserver: requested lease not found".into());
            }
            if (r.ignore_value || r.ignore_lease) && !state.keys.contains_key(&r.key) {
                return Err("etcdserver: key not found".into());
            }
            if !put.insert(r.key.clone()) {
                return Err("etcdserver: duplicate key given in txn request".into());
            }
            Ok(())
        }
    }
}

fn run(state: &mut State, txn: TxnRequest) -> Result<(TxnResponse, bool), Refusal> {
    let succeeded = txn.compare.iter().all(|compare| holds(state, compare));
    let ops = if succeeded { txn.success } else { txn.failure };
    let mut changed = false;
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let response = match op.request {
            Some(request_op::Request::RequestRange(request)) => {
                response_op::Response::ResponseRange(range(state, &request)?)
            }
            Some(request_op::Request::RequestPut(request)) => {
                changed = true;
                response_op::Response::ResponsePut(put(state, request))
            }
            Some(request_op::Request::RequestDeleteRange(request)) => {
                let response = delete_range(state, &request);
                changed |= response.deleted > 0;
                response_op::Response::ResponseDeleteRange(response)
            }
            Some(request_op::Request::RequestTxn(inner)) => {
                let (response, inner_changed) = run(state, inner)?;
                changed |= inner_changed;
                response_op::Response::ResponseTxn(response)
            }
            None => return Err("etcdserver: empty operation in txn request".into()),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok((TxnResponse { header: header(state), succeeded, responses }, changed))
}

/// Writes the transaction's revision into every header.
fn stamp(response: &mut TxnResponse, revision: i64) {
    let set = |header: &mut Option<ResponseHeader>| header.get_or_insert_default().revision = revision;
    set(&mut response.header);
    for op in &mut response.responses {
        match &mut op.response {
            Some(response_op::Response::ResponseRange(r)) => set(&mut r.header),
            Some(response_op::Response::ResponsePut(r)) => set(&mut r.header),
            Some(response_op::Response::ResponseDeleteRange(r)) => set(&mut r.header),
            Some(response_op::Response::ResponseTxn(r)) => stamp(r, revision),
            None => {}
        }
    }
}

fn put(state: &mut State, request: PutRequest) -> PutResponse {
    let revision = state.revision;
    let old = state.keys.get(&request.key).cloned();
    let mut kv = KeyValue {
        key: request.key.clone(),
        create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
        mod_revision: revision,
        version: old.as_ref().map_or(1, |old| old.version + 1),
        value: request.value,
        lease: request.lease,
    };
    if let Some(old) = &old {
        if request.ignore_value {
            kv.value = old.value.clone();
        }
        if request.ignore_lease {
            kv.lease = old.lease;
        }
        if old.lease != kv.lease
            && let Some(lease) = state.leases.get_mut(&old.lease)
        {
            lease.keys.remove(&old.key);
        }
    }
    if let Some(lease) = state.leases.get_mut(&kv.lease) {
        lease.keys.insert(kv.key.clone());
    }
    state.keys.insert(request.key, kv.clone());
    state.record_event(Event { r#type: event::EventType::Put as i32, kv: Some(kv), prev_kv: old.clone() });
    PutResponse { header: None, prev_kv: old.filter(|_| request.prev_kv) }
}

fn delete_range(state: &mut State, request: &DeleteRangeRequest) -> DeleteRangeResponse {
    let keys: Vec<Bytes> = match bounds(&request.key, &request.range_end) {
        Some(bounds) => state.keys.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect(),
        None => Vec::new(),
    };
    let removed: Vec<KeyValue> = keys.iter().filter_map(|key| delete_key(state, key)).collect();
    DeleteRangeResponse {
        header: None,
        deleted: removed.len() as i64,
        prev_kvs: if request.prev_kv { removed } else { Vec::new() },
    }
}

/// Removes a key at the state's current revision.
pub(super) fn delete_key(state: &mut State, key: &Bytes) -> Option<KeyValue> {
    let old = state.keys.remove(key)?;
    if let Some(lease) = state.leases.get_mut(&old.lease) {
        lease.keys.remove(key);
    }
    let gone = KeyValue { key: key.clone(), mod_revision: state.revision, ..Default::default() };
    state.record_event(Event {
        r#type: event::EventType::Delete as i32,
        kv: Some(gone),
        prev_kv: Some(old.clone()),
    });
    Some(old)
}

/// Whether a comparison holds; over a range it must hold for every key in it.
fn holds(state: &State, compare: &Compare) -> bool {
    if compare.range_end.is_empty() {
        return holds_for(compare, state.keys.get(&compare.key));
    }
    match bounds(&compare.key, &compare.range_end) {
        Some(bounds) => state.keys.range::<[u8], _>(bounds).all(|(_, kv)| holds_for(compare, Some(kv))),
        None => true,
    }
}

fn holds_for(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    use compare::{CompareResult, CompareTarget, TargetUnion};
    use std::cmp::Ordering;
    let number = |of: fn(&KeyValue) -> i64| kv.map_or(0, of);
    let ordering = match (compare.target(), &compare.target_union) {
        (CompareTarget::Value, target) => {
            let Some(kv) = kv else { return false };
            let wanted: &[u8] = if let Some(TargetUnion::Value(value)) = target { value } else { &[] };
            kv.value.as_ref().cmp(wanted)
        }
        (CompareTarget::Version, Some(TargetUnion::Version(wanted))) => number(|kv| kv.version).cmp(wanted),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(wanted))) => {
            number(|kv| kv.create_revision).cmp(wanted)
        }
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(wanted))) => {
            number(|kv| kv.mod_revision).cmp(wanted)
        }
        (CompareTarget::Lease, Some(TargetUnion::Lease(wanted))) => number(|kv| kv.lease).cmp(wanted),
        (CompareTarget::Version, _) => number(|kv| kv.version).cmp(&0),
        (CompareTarget::Create, _) => number(|kv| kv.create_revision).cmp(&0),
        (CompareTarget::Mod, _) => number(|kv| kv.mod_revision).cmp(&0),
        (CompareTarget::Lease, _) => number(|kv| kv.lease).cmp(&0),
    };
    match compare.result() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
    }
}
