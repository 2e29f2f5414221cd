//! One connection: log-in, then commands until it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use arrow::record_batch::RecordBatch;
use mysql_common::constants::CapabilityFlags;
use tokio::net::TcpStream;

use super::Shared;
use super::login::{LOGIN_PAYLOAD_BYTES_MAX, LoginError, log_in, refuse};
use super::packet::{PacketError, PacketIo};
use super::params::ParamType;
use super::response::{write_error, write_ok};
use crate::Error;
use crate::plan::SchemaRef;
use crate::session::Session;
use crate::session::instance::Counters;

/// What the protocol keeps of a prepared statement between its commands.
#[derive(Default)]
pub(super) struct ClientStatement {
    /// The types bound last.
    pub types: Vec<ParamType>,
    /// Values sent ahead, by parameter.
    pub long_data: Vec<Option<Vec<u8>>>,
    /// Why a value sent ahead cannot be used: told at the next execution.
    pub long_data_error: Option<Error>,
    /// Rows not fetched yet.
    pub cursor: Option<Cursor>,
}

/// An open cursor: rows computed and kept until fetched.
pub(super) struct Cursor {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// The batch being sent and its next row.
    pub position: (usize, usize),
}

/// A connection after log-in.
pub(super) struct Conn {
    pub shared: Arc<Shared>,
    pub io: PacketIo,
    pub session: Session,
    pub capabilities: CapabilityFlags,
    /// The client's address without the port.
    pub host: String,
    pub statements: AHashMap<u32, ClientStatement>,
}

/// Whether a connection goes on after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Stop,
}

/// Why a connection ends before the client says so.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves one client until it goes.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let mut io = PacketIo::new(stream, LOGIN_PAYLOAD_BYTES_MAX);
    let host = match peer.ip().to_canonical() {
        ip if ip.is_loopback() => "localhost".to_owned(),
        ip => ip.to_string(),
    };
    let counters = &shared.instance.counters;
    let connection = match shared.instance.connect(format!("{host}:{}", peer.port())) {
        Ok(connection) => connection,
        Err(error) => {
            Counters::count(&counters.aborted_connects);
            return refuse(&mut io, &error).await;
        }
    };
    let logged_in = match log_in(&shared, &mut io, connection.id, &host).await {
        Ok(logged_in) => logged_in,
        Err(reason) => {
            Counters::count(&counters.aborted_connects);
            shared.instance.disconnect(connection.id);
            if let LoginError::Refused(error) = reason {
                refuse(&mut io, &error).await;
            }
            return;
        }
    };
    let session = Session::new(Arc::clone(&shared.instance), connection, logged_in.login);
    let capabilities = logged_in.capabilities;
    let mut conn = Conn { shared, io, session, capabilities, host, statements: AHashMap::new() };
    match conn.session.enter(logged_in.database).await {
        Ok(()) => {
            let ok = conn.session.command_ok();
            write_ok(&mut conn.io, capabilities, 0, &ok);
            if conn.io.flush().await.is_ok() {
                conn.run().await;
            }
        }
        Err(error) => refuse(&mut conn.io, &error).await,
    }
    conn.io.shutdown().await;
    conn.session.close().await;
}

impl Conn {
    async fn run(&mut self) {
        let ended = self.session.connection().ended.clone();
        let shutdown = self.shared.instance.shutdown.clone();
        loop {
            let settings = self.session.settings();
            self.io.begin_command();
            self.io.set_payload_bytes_max(settings.max_allowed_packet as usize);
            let idle_max = Duration::from_secs(settings.wait_timeout_s);
            let payload = tokio::select! {
                biased;
                payload = self.io.read_within(idle_max) => payload,
                () = ended.cancelled() => return,
                () = shutdown.cancelled() => return self.farewell(&Error::ServerShutdown).await,
            };
            let outcome = match payload {
                Ok(payload) if self.try_point_read(&payload) => {
                    self.io.flush().await.map(|()| Next::Go).map_err(ConnectionError::from)
                }
                // On the heap: what a command needs, an idle connection must not hold.
                Ok(payload) => Box::pin(self.command(payload)).await,
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(Next::Go) if !self.session.released && !ended.is_cancelled() => {}
                Ok(_) => return,
                Err(error) => return self.broken(error).await,
            }
        }
    }

    /// Tells the client why the connection ends, where it can still be told.
    async fn broken(&mut self, error: ConnectionError) {
        match error {
            ConnectionError::Packet(PacketError::TooLarge { .. }) => {
                self.farewell(&Error::PacketTooLarge).await;
                self.io.drain().await;
            }
            ConnectionError::Packet(PacketError::OutOfOrder { .. }) => {
                self.farewell(&Error::PacketsOutOfOrder).await
            }
            ConnectionError::Packet(PacketError::TimedOut) => self.farewell(&Error::IdleTimeout).await,
            ConnectionError::Packet(PacketError::Io(_)) | ConnectionError::Io(_) => {}
        }
    }

    async fn farewell(&mut self, error: &Error) {
        write_error(&mut self.io, self.capabilities, error);
        let _ = self.io.flush().await;
    }
}
