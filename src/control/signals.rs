//! The signals that Weir obeys.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives signals.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

/// A signal, by what it asks for.
pub(super) enum ProcessSignal {
    /// End. The name is the signal's.
    Stop(&'static str),
    /// Reload the configuration.
    Reload,
    /// Reopen logs.
    Reopen,
    /// Replace this process by a new one.
    Upgrade,
}

impl Signals {
    /// Takes over the signals from the system.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new() -> Result<Self, String> {
        let receive =
            |kind| signal(kind).map_err(|error| format!("cannot receive signals: {error}"));
        Ok(Self {
            terminate: receive(SignalKind::terminate())?,
            interrupt: receive(SignalKind::interrupt())?,
            hangup: receive(SignalKind::hangup())?,
            user1: receive(SignalKind::user_defined1())?,
            user2: receive(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> ProcessSignal {
        tokio::select! {
            _ = self.terminate.recv() => ProcessSignal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => ProcessSignal::Stop("SIGINT"),
            _ = self.hangup.recv() => ProcessSignal::Reload,
            _ = self.user1.recv() => ProcessSignal::Reopen,
            _ = self.user2.recv() => ProcessSignal::Upgrade,
        }
    }
}
