//! The etcd v3 service over the replicated store.

use rutile_proto::etcdserverpb::{
    self, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, MemberListRequest, MemberListResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse, request_op, response_op,
};
use tonic::Status;

use super::PdService;
use crate::error::Error;
use crate::replicated::command::{Op, Outcome};
use crate::replicated::etcd;

impl PdService {
    /// A header of the etcd service at the newest revision.
    pub(super) fn etcd_header(&self) -> ResponseHeader {
        let revision = self.store.read().revision();
        self.etcd_header_at(revision)
    }

    pub(super) fn etcd_header_at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id(),
            member_id: self.member_id(),
            revision,
            raft_term: self.store.term(),
        }
    }

    fn fill(&self, header: &mut Option<ResponseHeader>) {
        *header = Some(self.etcd_header_at(header.map_or(0, |header| header.revision)));
    }

    /// Reads keys.
    pub async fn etcd_range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        if request.key.is_empty() {
            return Err(refusal("etcdserver: key is not provided".into()));
        }
        let mut response = etcd::range(&self.store.read(), &request).map_err(refusal)?;
        self.fill(&mut response.header);
        Ok(response)
    }

    /// Writes a key.
    pub async fn etcd_put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        match self.run_one(request_op::Request::RequestPut(request)).await? {
            response_op::Response::ResponsePut(response) => Ok(response),
            other => Err(Status::internal(format!("a put gave {other:?}"))),
        }
    }

    /// Removes keys.
    pub async fn etcd_delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        match self.run_one(request_op::Request::RequestDeleteRange(request)).await? {
            response_op::Response::ResponseDeleteRange(response) => Ok(response),
            other => Err(Status::internal(format!("a delete gave {other:?}"))),
        }
    }

    async fn run_one(&self, request: request_op::Request) -> Result<response_op::Response, Status> {
        let txn = TxnRequest { success: vec![RequestOp { request: Some(request) }], ..Default::default() };
        let mut response = self.etcd_txn(txn).await?;
        let op = response.responses.pop().and_then(|op| op.response);
        op.ok_or_else(|| Status::internal("a transaction without an answer"))
    }

    /// Compares, then reads and writes.
    pub async fn etcd_txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let mut response = if etcd::is_read_only(&request) {
            etcd::read_txn(&self.store.read(), &request).map_err(refusal)?
        } else {
            match self.metrics.time_write(self.store.propose(Op::Etcd(request))).await? {
                Outcome::Etcd(response) => response,
                Outcome::Refused(text) => return Err(refusal(text)),
                other => return Err(Status::internal(format!("a transaction gave {other:?}"))),
            }
        };
        self.fill_txn(&mut response);
        Ok(response)
    }

    fn fill_txn(&self, response: &mut TxnResponse) {
        self.fill(&mut response.header);
        for op in &mut response.responses {
            match &mut op.response {
                Some(response_op::Response::ResponseRange(r)) => self.fill(&mut r.header),
                Some(response_op::Response::ResponsePut(r)) => self.fill(&mut r.header),
                Some(response_op::Response::ResponseDeleteRange(r)) => self.fill(&mut r.header),
                Some(response_op::Response::ResponseTxn(r)) => self.fill_txn(r),
                None => {}
            }
        }
    }

    /// A new lease.
    pub async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        if request.ttl <= 0 {
            return Err(refusal("etcdserver: lease TTL must be at least one second".into()));
        }
        match self.leases.grant(request.id, request.ttl).await? {
            Some(grant) => Ok(LeaseGrantResponse {
                header: Some(self.etcd_header()),
                id: grant.id,
                ttl: grant.ttl_s,
                error: String::new(),
            }),
            None => Err(Status::failed_precondition("etcdserver: lease already exists")),
        }
    }

    /// Ends a lease and removes its keys.
    pub async fn lease_revoke(&self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
        if self.leases.revoke(request.id).await? {
            Ok(LeaseRevokeResponse { header: Some(self.etcd_header()) })
        } else {
            Err(Status::not_found("etcdserver: requested lease not found"))
        }
    }

    /// Keeps a lease alive; TTL 0 in the answer: it is gone.
    #[must_use]
    pub fn lease_keep_alive(&self, id: i64) -> LeaseKeepAliveResponse {
        LeaseKeepAliveResponse {
            header: Some(self.etcd_header()),
            id,
            ttl: self.leases.keep_alive(id).unwrap_or(0),
        }
    }

    /// How long a lease still lives; TTL -1: it is gone.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let header = Some(self.etcd_header());
        let left = self.leases.seconds_left(request.id);
        let state = self.store.read();
        let (Some(lease), Some(ttl)) = (state.lease(request.id), left) else {
            return Ok(LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() });
        };
        let keys = if request.keys { lease.keys.iter().cloned().collect() } else { vec![] };
        Ok(LeaseTimeToLiveResponse { header, id: request.id, ttl, granted_ttl: lease.ttl_s, keys })
    }

    /// The members as the etcd service sees them.
    pub async fn member_list(&self, _request: MemberListRequest) -> Result<MemberListResponse, Status> {
        let member = self.member();
        Ok(MemberListResponse {
            header: Some(self.etcd_header()),
            members: vec![etcdserverpb::Member {
                id: member.member_id,
                name: member.name,
                peer_ur_ls: member.peer_urls,
                client_ur_ls: member.client_urls,
                is_learner: false,
            }],
        })
    }
}

/// etcd's own status codes for its own texts: clients look at both.
fn refusal(text: String) -> Status {
    if text.contains("lease not found") {
        Status::not_found(text)
    } else if text.contains("revision") {
        Status::out_of_range(text)
    } else {
        Error::Invalid(text).into()
    }
}
