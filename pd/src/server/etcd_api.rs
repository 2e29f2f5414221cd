//! The etcd v3 service over the replicated store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rutile_proto::etcdserverpb::{
    self, AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DefragmentRequest,
    DefragmentResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest, HashKvResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    MemberListRequest, MemberListResponse, MoveLeaderRequest, MoveLeaderResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, ResponseHeader, StatusRequest, StatusResponse, TxnRequest,
    TxnResponse, alarm_request, request_op, response_op,
};
use tonic::Status;

use super::PdService;
use crate::error::Error;
use crate::replicated::command::{Op, Outcome};
use crate::replicated::etcd;

/// What clients are told they talk to: the API is that of etcd 3.4.
const ETCD_VERSION: &str = "3.4.23";
/// How long handing the lead over may take.
const TRANSFER_MAX: Duration = Duration::from_secs(3);

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
            raft_term: self.store.role().term,
        }
    }

    fn fill(&self, header: &mut Option<ResponseHeader>) {
        *header = Some(self.etcd_header_at(header.map_or(0, |header| header.revision)));
    }

    /// Reads keys.
    pub async fn etcd_range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let leading = self.leading()?;
        if request.key.is_empty() {
            return Err(refusal("etcdserver: key is not provided".into()));
        }
        let mut response = etcd::range(&leading.store.read(), &request).map_err(refusal)?;
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
        let leading = self.leading()?;
        let mut response = if etcd::is_read_only(&request) {
            etcd::read_txn(&leading.store.read(), &request).map_err(refusal)?
        } else {
            match self.metrics.time_write(leading.store.propose(Op::Etcd(request))).await? {
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

    /// Forgets older versions.
    pub async fn etcd_compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        let leading = self.leading()?;
        match leading.store.propose(Op::Compact(request.revision)).await? {
            Outcome::Refused(text) => Err(refusal(text)),
            _ => Ok(CompactionResponse { header: Some(self.etcd_header()) }),
        }
    }

    /// All leases.
    pub async fn lease_leases(&self, _request: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Status> {
        let leases = self.leading()?.store.read().leases();
        Ok(LeaseLeasesResponse {
            header: Some(self.etcd_header()),
            leases: leases.into_iter().map(|(id, _)| LeaseStatus { id }).collect(),
        })
    }

    /// How this member is.
    pub async fn etcd_status(&self, _request: StatusRequest) -> Result<StatusResponse, Status> {
        let (role, stats) = (self.store.role(), self.store.stats());
        let size_bytes = stats.size_bytes.load(Ordering::Relaxed) as i64;
        Ok(StatusResponse {
            header: Some(self.etcd_header()),
            version: ETCD_VERSION.into(),
            db_size: size_bytes,
            db_size_in_use: size_bytes,
            leader: self.leader_member().map_or(0, |leader| leader.member_id),
            raft_index: stats.last_index.load(Ordering::Relaxed),
            raft_term: role.term,
            raft_applied_index: stats.applied_index.load(Ordering::Relaxed),
            ..Default::default()
        })
    }

    /// Nothing raises an alarm: a full disk stops the member.
    pub async fn etcd_alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        if request.action() == alarm_request::AlarmAction::Activate {
            return Err(Status::invalid_argument("etcdserver: alarms cannot be activated by hand"));
        }
        Ok(AlarmResponse { header: Some(self.etcd_header()), alarms: vec![] })
    }

    /// The log is replaced by a snapshot by itself, so there is nothing to free.
    pub async fn etcd_defragment(&self, _request: DefragmentRequest) -> Result<DefragmentResponse, Status> {
        Ok(DefragmentResponse { header: Some(self.etcd_header()) })
    }

    /// A checksum of all keys at the newest revision.
    pub async fn etcd_hash(&self, request: HashKvRequest) -> Result<HashKvResponse, Status> {
        let leading = self.leading()?;
        let state = leading.store.read();
        if request.revision != 0 && request.revision != state.revision() {
            return Err(Status::unimplemented("only the newest revision is hashed"));
        }
        let header = Some(self.etcd_header_at(state.revision()));
        Ok(HashKvResponse { header, hash: state.hash(), compact_revision: state.compacted_revision() })
    }

    /// Hands the lead to another member.
    pub async fn move_leader(&self, request: MoveLeaderRequest) -> Result<MoveLeaderResponse, Status> {
        self.leading()?;
        let all = self.members.all().iter();
        let target = all.into_iter().find(|member| self.member_id_of(&member.name) == request.target_id);
        let target = target.ok_or_else(|| Status::not_found("etcdserver: member not found"))?;
        if target != self.members.me() && !self.store.transfer_leader(target.raft_id, TRANSFER_MAX).await {
            return Err(Status::deadline_exceeded(
                "etcdserver: request timed out, leader transfer took too long",
            ));
        }
        Ok(MoveLeaderResponse { header: Some(self.etcd_header()) })
    }

    /// A new lease.
    pub async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        let leading = self.leading()?;
        if request.ttl <= 0 {
            return Err(refusal("etcdserver: lease TTL must be at least one second".into()));
        }
        match leading.leases.grant(request.id, request.ttl).await? {
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
        let leading = self.leading()?;
        if leading.leases.revoke(request.id).await? {
            Ok(LeaseRevokeResponse { header: Some(self.etcd_header()) })
        } else {
            Err(Status::not_found("etcdserver: requested lease not found"))
        }
    }

    /// Keeps a lease alive; TTL 0 in the answer: it is gone.
    pub fn lease_keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        let ttl = self.leading()?.leases.keep_alive(id).unwrap_or(0);
        Ok(LeaseKeepAliveResponse { header: Some(self.etcd_header()), id, ttl })
    }

    /// How long a lease still lives; TTL -1: it is gone.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let leading = self.leading()?;
        let header = Some(self.etcd_header());
        let left = leading.leases.seconds_left(request.id);
        let state = self.store.read();
        let (Some(lease), Some(ttl)) = (state.lease(request.id), left) else {
            return Ok(LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() });
        };
        let keys = if request.keys { lease.keys.iter().cloned().collect() } else { vec![] };
        Ok(LeaseTimeToLiveResponse { header, id: request.id, ttl, granted_ttl: lease.ttl_s, keys })
    }

    /// The members as the etcd service sees them.
    pub async fn member_list(&self, _request: MemberListRequest) -> Result<MemberListResponse, Status> {
        let describe = |member: rutile_proto::pdpb::Member| etcdserverpb::Member {
            id: member.member_id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: false,
        };
        let members = self.all_members().into_iter().map(describe).collect();
        Ok(MemberListResponse { header: Some(self.etcd_header()), members })
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
