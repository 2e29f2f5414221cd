//! One port for HTTP/2 with prior knowledge (gRPC) and HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::PdService;

/// Connections get so long to finish their requests when the server stops.
const GRACE: Duration = Duration::from_millis(300);

/// An open port.
pub struct Listener {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Accepts connections until stopped.
    pub fn spawn(listener: TcpListener, router: Router, service: Arc<PdService>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept_all(listener, router, service, stopped));
        Listener { stop, task }
    }

    /// Accepts no more, lets running requests finish for a moment, then closes.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if self.task.await.is_err() {
            tracing::error!("the task that accepts connections panicked");
        }
    }
}

async fn accept_all(
    listener: TcpListener,
    router: Router,
    service: Arc<PdService>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone(), service.clone(), stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        connections.shutdown().await; // streams have no end of their own
    }
}

async fn serve(
    stream: TcpStream,
    router: Router,
    service: Arc<PdService>,
    mut stopped: watch::Receiver<bool>,
) {
    drop(stream.set_nodelay(true));
    service.metrics.connections.inc();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(None)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        // Clients cancel requests freely: never answer with GOAWAY.
        .max_pending_accept_reset_streams(usize::MAX)
        .max_local_error_reset_streams(usize::MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
    service.metrics.connections.dec();
}
