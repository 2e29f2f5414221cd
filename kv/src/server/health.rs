//! The standard gRPC health check of a store.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use futures::stream::StreamExt;
use rutile_proto::health::health_check_response::ServingStatus;
use rutile_proto::health::health_server::Health;
use rutile_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

/// Whether the store serves. Cheap to clone.
#[derive(Clone)]
pub struct HealthService {
    serving: Arc<watch::Sender<bool>>,
}

impl Default for HealthService {
    fn default() -> Self {
        HealthService { serving: Arc::new(watch::channel(true).0) }
    }
}

impl HealthService {
    /// Tells from now on whether the store serves.
    pub fn set_serving(&self, serving: bool) {
        self.serving.send_replace(serving);
    }
}

fn response(serving: bool) -> HealthCheckResponse {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(response(*self.serving.borrow())))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = WatchStream::new(self.serving.subscribe());
        Ok(Response::new(Box::pin(changes.map(|serving| Ok(response(serving))))))
    }
}
