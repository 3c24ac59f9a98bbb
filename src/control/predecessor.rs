//! The process that this one replaces, in an upgrade: it started this one and hands its sockets and state to it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use weir_config::Driver;

use super::endpoint_overrides::EndpointOverrides;
use super::handover::{self, HandedSocket, HandedVerdict, Handover, VARIABLE};
use super::limits;
use crate::tls::TicketKeys;

/// The process that this one replaces.
pub(super) struct Predecessor {
    pub(super) pid: u32,
    socket: UnixStream,
    driver: String,
    /// Its listening sockets, until [`Predecessor::take_sockets`].
    sockets: Vec<(HandedSocket, OwnedFd)>,
    pub(super) overrides: EndpointOverrides,
    /// What its checks have found.
    pub(super) verdicts: Vec<HandedVerdict>,
    /// The keys of its session tickets.
    pub(super) tickets: TicketKeys,
}

impl Predecessor {
    /// Takes over what the process that started this one hands to it. `None` if this is a start like any other.
    ///
    /// # Errors
    /// The old process announces a handover and sends none.
    pub(super) fn from_environment() -> Result<Option<Self>, String> {
        let pid = std::env::var(VARIABLE).ok();
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        let Some(pid) = pid.filter(|pid| i32::try_from(*pid).ok() == parent) else {
            return Ok(None);
        };
        let taken = Self::take(pid);
        let taken = taken.map_err(|error| format!("cannot take over from process {pid}: {error}"));
        taken.map(Some)
    }

    fn take(pid: u32) -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let socket = UnixStream::from(socket);
        socket.set_read_timeout(Some(limits::UPGRADE_PATIENCE))?;
        socket.set_write_timeout(Some(limits::UPGRADE_PATIENCE))?;
        let (state, fds) = Handover::receive(&socket)?;
        Ok(Self {
            pid,
            socket,
            driver: state.driver,
            sockets: state.sockets.into_iter().zip(fds).collect(),
            overrides: state.overrides,
            verdicts: state.verdicts,
            tickets: TicketKeys::import(state.tickets),
        })
    }

    /// Checks that this process runs on the same driver.
    ///
    /// # Errors
    /// The drivers differ. The sockets of one driver wait for clients in a way that the other does not support.
    pub(super) fn check_driver(&self, driver: Driver) -> Result<(), String> {
        match driver_name(driver) == self.driver {
            true => Ok(()),
            false => Err(format!(
                "the driver changes from {} to {}, which needs a restart",
                self.driver,
                driver_name(driver)
            )),
        }
    }

    /// Its listening sockets. A later call gets none.
    pub(super) fn take_sockets(&mut self) -> Vec<(HandedSocket, OwnedFd)> {
        std::mem::take(&mut self.sockets)
    }

    /// Tells it that this process serves, and waits until it accepts no more.
    ///
    /// # Errors
    /// The old process has given up the upgrade and keeps serving.
    pub(super) async fn replace(&self) -> Result<(), String> {
        let socket = self.socket.try_clone();
        let socket = socket.map_err(|error| error.to_string())?;
        let said = tokio::task::spawn_blocking(move || handover::say_up(&socket)).await;
        let said = said.map_err(|error| error.to_string())?;
        let pid = self.pid;
        said.map_err(|error| format!("process {pid} has given up the upgrade: {error}"))
    }

    /// Another descriptor of the socket to it, to say why this process fails.
    pub(super) fn voice(&self) -> Option<UnixStream> {
        self.socket.try_clone().ok()
    }
}

/// The name of a driver in messages.
pub(super) fn driver_name(driver: Driver) -> &'static str {
    match driver {
        Driver::Monoio => "monoio",
        Driver::Ring | Driver::Auto => "ring",
    }
}
