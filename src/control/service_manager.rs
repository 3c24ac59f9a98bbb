//! Notices to the service manager (sd_notify): Weir is ready, reloads, ends, and, for the watchdog, every core answers.
//! Without `NOTIFY_SOCKET` in the environment, Weir sends none.
//!
//! Control does not wait for the manager. A task sends the notices, and control drops a notice if too many wait.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::limits::{NOTICE_PATIENCE, NOTICES_MAX};
use crate::obs::process;

/// The service manager.
pub(super) struct ServiceManager {
    notices: Option<mpsc::Sender<Notice>>,
    /// Another process is the main one, so this one says nothing.
    is_silent: Cell<bool>,
    /// The watchdog's timeout: how long the manager waits for a notice before it ends the process.
    pub(super) watchdog: Option<Duration>,
}

/// A notice on its way.
struct Notice {
    text: String,
    /// Dropped when the notice is sent.
    _sent: Option<oneshot::Sender<()>>,
}

impl ServiceManager {
    /// The manager that the environment names, if any. Call it inside a runtime.
    pub(super) fn from_environment() -> Self {
        let none = Self {
            notices: None,
            is_silent: Cell::new(false),
            watchdog: None,
        };
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
            return none;
        };
        let socket = match connect(name.as_bytes()) {
            Ok(socket) => socket,
            Err(error) => {
                let name = name.to_string_lossy();
                process::warn(format_args!("NOTIFY_SOCKET={name}: {error}"));
                return none;
            }
        };
        let (notices, queue) = mpsc::channel(NOTICES_MAX);
        spawn_local(send_queued(socket, queue));
        Self {
            notices: Some(notices),
            is_silent: Cell::new(false),
            watchdog: watchdog(
                std::env::var("WATCHDOG_USEC").ok().as_deref(),
                std::env::var("WATCHDOG_PID").ok().as_deref(),
                std::process::id(),
            ),
        }
    }

    /// Reports that everything listens and every core runs, or that a reload is over. `status` is for people.
    pub(super) fn ready(&self, status: impl fmt::Display) {
        self.send(format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Reports that a reload begins.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(format!(
            "RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=Reloading"
        ));
    }

    /// Reports that the process ends, within `at_most`.
    pub(super) fn stopping(&self, status: impl fmt::Display, at_most: Duration) {
        let us = at_most.as_micros();
        self.send(format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={us}\nSTATUS={}",
            one_line(status)
        ));
    }

    /// Reports a status for people.
    pub(super) fn status(&self, status: impl fmt::Display) {
        self.send(format!("STATUS={}", one_line(status)));
    }

    /// Feeds the watchdog: every core answers.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1".to_owned());
    }

    /// Says that the process with this number is the service's main process from now on. Returns when that is sent, and
    /// says nothing more.
    pub(super) async fn name_main_process(&self, pid: u32) {
        let (sent, is_sent) = oneshot::channel();
        self.post(format!("MAINPID={pid}"), Some(sent));
        self.is_silent.set(true);
        // An error means that it is sent. If it takes longer, the manager does not read.
        let _ = timeout(NOTICE_PATIENCE, is_sent).await;
    }

    fn send(&self, notice: String) {
        self.post(notice, None);
    }

    fn post(&self, text: String, sent: Option<oneshot::Sender<()>>) {
        if let Some(notices) = self.notices.as_ref().filter(|_| !self.is_silent.get()) {
            // If the queue is full, the manager does not read.
            let _ = notices.try_send(Notice { text, _sent: sent });
        }
    }
}

/// Sends notices one after the other.
async fn send_queued(socket: tokio::net::UnixDatagram, mut queue: mpsc::Receiver<Notice>) {
    let mut has_failed = false;
    while let Some(notice) = queue.recv().await {
        let sent = socket.send(notice.text.as_bytes()).await;
        if let (Err(error), false) = (&sent, has_failed) {
            process::warn(format_args!("cannot tell the service manager: {error}"));
        }
        has_failed = sent.is_err();
    }
}

fn connect(name: &[u8]) -> io::Result<tokio::net::UnixDatagram> {
    let address = match name {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsString::from_vec(name.to_owned()))?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    tokio::net::UnixDatagram::from_std(socket)
}

/// The watchdog's timeout, if the manager watches this process.
fn watchdog(us: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_meant = pid.is_none_or(|pid| pid.trim().parse() == Ok(own));
    let us = us?.trim().parse().ok().filter(|&us| us > 0 && is_meant)?;
    Some(Duration::from_micros(us))
}

/// Joins lines, because a line end would begin another field.
fn one_line(text: impl fmt::Display) -> String {
    let text = text.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let of = |us, pid| watchdog(us, pid, 7).map(|it| it.as_micros());
        assert_eq!(of(Some("30000000"), None), Some(30_000_000));
        assert_eq!(of(Some("5"), Some("7")), Some(5));
        assert_eq!(of(Some("5"), Some("8")), None);
        assert_eq!(of(Some("0"), None), None);
        assert_eq!(of(Some("soon"), None), None);
        assert_eq!(of(None, Some("7")), None);
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(one_line("a\n  b\r\n\nREADY=1"), "a; b; READY=1");
    }
}
