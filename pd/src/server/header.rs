//! Headers: every answer carries one with the cluster's id; most requests must carry the right id.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rutile_proto::pdpb::{self, ErrorType, RequestHeader, ResponseHeader};
use tonic::Status;

use super::PdService;
use super::leading::Leading;
use crate::cluster::CLUSTER_ID_KEY;

impl PdService {
    /// The cluster's id; 0 until a first leader chose it.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        match self.cluster_id.load(Ordering::Relaxed) {
            0 => {
                let id = self.store.system_get_u64(CLUSTER_ID_KEY);
                self.cluster_id.store(id, Ordering::Relaxed);
                id
            }
            id => id,
        }
    }

    /// The header that requests of this process carry.
    #[must_use]
    pub fn request_header(&self) -> Option<RequestHeader> {
        Some(RequestHeader { cluster_id: self.cluster_id(), ..Default::default() })
    }

    pub(super) fn ok(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: self.cluster_id(), error: None })
    }

    pub(super) fn error(&self, kind: ErrorType, message: impl Into<String>) -> Option<ResponseHeader> {
        let error = pdpb::Error { r#type: kind as i32, message: message.into() };
        Some(ResponseHeader { cluster_id: self.cluster_id(), error: Some(error) })
    }

    pub(super) fn not_bootstrapped(&self) -> Option<ResponseHeader> {
        self.error(ErrorType::NotBootstrapped, "cluster is not bootstrapped")
    }

    /// Refuses requests for another cluster, and all requests while this member does not lead.
    pub(super) fn check(&self, header: Option<&RequestHeader>) -> Result<Arc<Leading>, Status> {
        self.check_cluster(header)?;
        self.leading()
    }

    /// Refuses requests for another cluster.
    pub(super) fn check_cluster(&self, header: Option<&RequestHeader>) -> Result<(), Status> {
        let got = header.map_or(0, |header| header.cluster_id);
        let need = self.cluster_id();
        if got == need || need == 0 {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("mismatch cluster id, need {need} but got {got}")))
    }
}
