//! Ports: claimed before anything is started, so that a taken one is told at once.

use std::net::{SocketAddr, ToSocketAddrs};

use tokio::net::{TcpListener, TcpSocket};

use crate::error::{Error, Result};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A port that is ours but does not accept connections yet.
pub struct Port {
    socket: TcpSocket,
    address: String,
    what: &'static str,
    flag: &'static str,
}

impl Port {
    /// Claims `host:port`. `what` and `flag` are for the user if it is taken.
    pub fn claim(address: &str, what: &'static str, flag: &'static str) -> Result<Self> {
        let fail = |reason: String| Error::Address { address: address.into(), what, reason, flag };
        let resolved = resolve(address).map_err(&fail)?;
        let socket = if resolved.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|e| fail(e.to_string()))?;
        let port = Port { socket, address: address.into(), what, flag };
        port.socket
            .set_reuseaddr(true)
            .and_then(|()| port.socket.bind(resolved))
            .map_err(|e| port.refused(&e))?;
        Ok(port)
    }

    /// The address in use; tells the port when 0 was asked for.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(|e| self.refused(&e))
    }

    /// Accepts connections from now on.
    pub fn listen(self) -> Result<TcpListener> {
        let Port { socket, address, what, flag } = self;
        socket.listen(BACKLOG).map_err(|error| refused(&error, &address, what, flag))
    }

    fn refused(&self, error: &std::io::Error) -> Error {
        refused(error, &self.address, self.what, self.flag)
    }
}

/// The first address of `host:port`.
pub fn resolve(address: &str) -> std::result::Result<SocketAddr, String> {
    let mut found = address.to_socket_addrs().map_err(|e| e.to_string())?;
    found.next().ok_or_else(|| "the name has no address".into())
}

fn refused(error: &std::io::Error, address: &str, what: &'static str, flag: &'static str) -> Error {
    let address = address.to_string();
    if error.kind() == std::io::ErrorKind::AddrInUse {
        return Error::PortTaken { address, what, flag };
    }
    Error::Address { address, what, reason: error.to_string(), flag }
}
