//! When to stop.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};

/// Listens for Ctrl-C, SIGTERM and SIGHUP from now on.
pub struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Installs the handlers.
    pub fn install() -> Result<Self> {
        let on =
            |kind| signal(kind).map_err(|e| Error::System(format!("cannot install a signal handler: {e}")));
        Ok(StopSignals {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// Stops; a second signal meanwhile ends the process at once.
    pub async fn stop(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.wait() => {
                eprintln!("rutile: stopping at once; the next start recovers");
                crate::exit::now(1);
            }
        }
    }
}
