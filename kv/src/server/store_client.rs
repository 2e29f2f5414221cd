//! Calls of other stores: one connection to each, made when it is needed and given up when a call fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rutile_proto::kvrpcpb::{CheckLeaderRequest, CheckLeaderResponse, ReadIndexRequest, ReadIndexResponse};
use rutile_proto::tikvpb::tikv_client::TikvClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::pd_client::PdClient;
use crate::txn::other_stores::OtherStores;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// To the other stores of a cluster, whose addresses the placement driver knows.
pub struct StoreClient {
    pd: Arc<dyn PdClient>,
    stores: Mutex<HashMap<u64, TikvClient<Channel>>>,
}

impl StoreClient {
    /// Connected to nobody yet.
    #[must_use]
    pub fn new(pd: Arc<dyn PdClient>) -> Self {
        StoreClient { pd, stores: Mutex::default() }
    }

    async fn store(&self, store_id: u64) -> Result<TikvClient<Channel>, String> {
        if let Some(known) = self.stores.lock().get(&store_id) {
            return Ok(known.clone());
        }
        let store = self.pd.get_store(store_id).await.map_err(|e| e.to_string())?;
        let endpoint =
            Endpoint::from_shared(format!("http://{}", store.address)).map_err(|e| e.to_string())?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let client = TikvClient::new(endpoint.connect_lazy()).max_decoding_message_size(64 << 20);
        Ok(self.stores.lock().entry(store_id).or_insert(client).clone())
    }

    /// A store that does not answer may come back at another address.
    fn answer<T>(&self, store_id: u64, answer: Result<Response<T>, Status>) -> Result<T, String> {
        answer.map(Response::into_inner).map_err(|status| {
            self.stores.lock().remove(&store_id);
            status.message().to_owned()
        })
    }
}

#[async_trait]
impl OtherStores for StoreClient {
    async fn read_index(
        &self,
        store_id: u64,
        request: ReadIndexRequest,
    ) -> Result<ReadIndexResponse, String> {
        let answer = self.store(store_id).await?.read_index(request).await;
        self.answer(store_id, answer)
    }

    async fn check_leader(
        &self,
        store_id: u64,
        request: CheckLeaderRequest,
    ) -> Result<CheckLeaderResponse, String> {
        let answer = self.store(store_id).await?.check_leader(request).await;
        self.answer(store_id, answer)
    }
}
