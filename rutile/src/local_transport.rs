//! The client's transport within one process: direct calls of the placement driver and of the stores, without sockets,
//! serialization or another thread.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use rutile_client::{PdRequest, PdResponse, StoreRequest, StoreResponse, Transport, TransportError};
use rutile_kv::server::service::Service;
use rutile_pd::PdService;
use rutile_proto::ids::{ClusterId, StoreId, Timestamp};
use rutile_proto::kvrpcpb::{GetRequest, GetResponse};
use rutile_proto::{coprocessor, kvrpcpb, pdpb};

/// Calls a placement driver and stores of this process.
pub struct LocalTransport {
    cluster_id: ClusterId,
    pd: Arc<PdService>,
    stores: HashMap<StoreId, Service>,
}

impl LocalTransport {
    /// Over these services; `None` if the placement driver has no cluster id yet.
    pub fn new(pd: Arc<PdService>, stores: impl IntoIterator<Item = (StoreId, Service)>) -> Option<Self> {
        let cluster_id = ClusterId::new(pd.cluster_id())?;
        Some(LocalTransport { cluster_id, pd, stores: stores.into_iter().collect() })
    }

    fn store_service(&self, store: StoreId) -> Result<&Service, TransportError> {
        let missing = || TransportError::not_sent(format!("store {store} is not in this process"));
        self.stores.get(&store).ok_or_else(missing)
    }
}

macro_rules! dispatch_pd {
    ($(($variant:ident, $request:ty, $response:ty, $method:ident),)*) => {
        async fn dispatch_pd(service: &PdService, request: PdRequest) -> Result<PdResponse, tonic::Status> {
            Ok(match request {
                $(PdRequest::$variant(request) => {
                    let request: $request = request;
                    let response: $response = service.$method(request).await?;
                    PdResponse::$variant(response)
                })*
            })
        }
    };
}

macro_rules! dispatch_store {
    ($(($variant:ident, $request:ty, $response:ty, $method:ident),)*) => {
        async fn dispatch_store(service: &Service, request: StoreRequest) -> StoreResponse {
            match request {
                $(StoreRequest::$variant(request) => {
                    let request: $request = request;
                    let response: $response = service.$method(request).await;
                    StoreResponse::$variant(response)
                })*
            }
        }
    };
}

rutile_client::for_each_pd_rpc!(dispatch_pd);
rutile_client::for_each_store_rpc!(dispatch_store);

#[async_trait]
impl Transport for LocalTransport {
    fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    fn try_tso(&self, count: u32) -> Option<Timestamp> {
        self.pd.try_timestamps(count)
    }

    async fn tso(&self, count: u32) -> Result<Timestamp, TransportError> {
        self.pd.timestamps(count).await.map_err(|e| TransportError::not_sent(e.to_string()))
    }

    async fn pd(&self, request: PdRequest) -> Result<PdResponse, TransportError> {
        let answer = dispatch_pd(&self.pd, request).await;
        answer.map_err(|status| TransportError::not_sent(status.message().to_owned()))
    }

    fn try_get(&self, store: StoreId, request: &GetRequest) -> Option<GetResponse> {
        // With a valid lease and no lock in the way the store answers at the first poll.
        self.stores.get(&store)?.kv_get(request.clone()).now_or_never()
    }

    async fn store(&self, store: StoreId, request: StoreRequest) -> Result<StoreResponse, TransportError> {
        Ok(dispatch_store(self.store_service(store)?, request).await)
    }
}
