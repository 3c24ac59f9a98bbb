//! Replaces the process by a new one of the same program, without an end of service.
//!
//! The old process starts the program at its path with its own arguments, and hands it the listening sockets, the keys of
//! session tickets, the changes of endpoints that persist and the verdicts of health checks. Once every core of the new process serves, the old one
//! accepts no more and drains. Both accept from the same sockets until then, so the kernel's queues lose no client. If the
//! new process does not come up, the old one goes on as if nothing had happened.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::handover::{self, HandedSocket, Handover, SocketPurpose, VARIABLE};
use super::phrases::seconds;
use super::predecessor::driver_name;
use super::{Control, limits};
use crate::io::SocketOrigin;
use crate::obs::process;
use crate::plan::Transport;
use crate::serving::{self, ListenerShare};

/// How an upgrade ended.
pub(super) enum UpgradeOutcome {
    /// This process serves in place of the old one, which drains.
    Done { pid: u32, message: String },
    /// This process cannot be replaced. The text says why.
    Impossible(&'static str),
    /// The process drains already.
    Draining,
    /// The new process did not come up, so the old one goes on.
    Failed(String),
}

/// The program that this process runs, as it was started: a path that a newer version may have replaced since. `None` if
/// the path is unknown.
pub(super) fn own_program() -> Option<PathBuf> {
    let started = std::env::args_os().next().map(PathBuf::from);
    let by_path = started.filter(|path| path.components().count() > 1 && path.exists());
    match by_path {
        Some(path) => std::path::absolute(path).ok(),
        None => std::env::current_exe().ok(),
    }
}

/// The process that replaces this one, once it serves.
struct Successor {
    child: Child,
    socket: UnixStream,
}

impl Successor {
    /// Starts `program`, hands it everything, and waits until it serves. Blocks.
    ///
    /// # Errors
    /// Why the new process does not serve. It has ended then.
    fn start(program: &Path, state: &Handover, fds: &[OwnedFd]) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        socket
            .set_read_timeout(Some(limits::UPGRADE_PATIENCE))
            .and_then(|()| socket.set_write_timeout(Some(limits::UPGRADE_PATIENCE)))
            .map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, std::process::id().to_string())
            // The service manager means them for this process alone.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn();
        // The command holds the other end of the socket, whose close shows that the new process has ended.
        drop(command);
        let child =
            child.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let successor = Self { child, socket };
        let sent = state.send(&successor.socket, fds);
        // A process that ends before it has read everything has sent its reason, so the send error adds nothing.
        match handover::wait_for_up(&successor.socket) {
            Ok(()) if sent.is_ok() => Ok(successor),
            Ok(()) => {
                successor.end();
                Err("it has not taken everything over".to_owned())
            }
            Err(why) => {
                successor.end();
                Err(why)
            }
        }
    }

    /// Ends the process at once. A drain would close the sockets that it shares with this process. Blocks.
    fn end(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Control {
    /// Replaces this process once no other change is under way. If that succeeds, this process drains and ends.
    pub(super) async fn upgrade(self: &Rc<Self>) -> UpgradeOutcome {
        let _turn = self.change_lock.lock().await;
        if self.draining.get() {
            return UpgradeOutcome::Draining;
        }
        if std::process::id() == 1 {
            return UpgradeOutcome::Impossible(
                "this Weir is process 1, whose end ends the container; start a new container instead",
            );
        }
        let Some(program) = &self.program else {
            return UpgradeOutcome::Impossible("this Weir has endpoints of its own (`weir demo`)");
        };
        let begun = Instant::now();
        process::info(format_args!("upgrade: starting {}", program.display()));
        let outcome = match self.start_successor(program).await {
            Ok(successor) => self.give_way(successor).await,
            Err(why) => Err(why),
        };
        match outcome {
            Ok(pid) => {
                let took = seconds(begun.elapsed());
                let message = format!("process {pid} serves after {took}");
                process::info(format_args!("upgrade: {message}; this process drains"));
                UpgradeOutcome::Done { pid, message }
            }
            Err(why) => {
                process::error(format_args!("upgrade failed, this process goes on: {why}"));
                UpgradeOutcome::Failed(why)
            }
        }
    }

    async fn start_successor(&self, program: &Path) -> Result<Successor, String> {
        let (sockets, fds) = self.share_sockets().await?;
        let state = Handover {
            version: handover::VERSION,
            driver: driver_name(self.cores.driver()).to_owned(),
            sockets,
            overrides: self.state.borrow().overrides.clone(),
            verdicts: self.state.borrow().health.verdicts(),
            tickets: self.tickets.export(),
        };
        let program = program.to_owned();
        let start = move || Successor::start(&program, &state, &fds);
        let started = tokio::task::spawn_blocking(start).await;
        started.map_err(|_| "starting the new process has panicked".to_owned())?
    }

    /// Another descriptor of every listening socket.
    async fn share_sockets(&self) -> Result<(Vec<HandedSocket>, Vec<OwnedFd>), String> {
        let (to, mut from_cores) = mpsc::unbounded_channel();
        for core in 0..self.cores.count() {
            let to = to.clone();
            self.send(core, serving::Command::ShareListeners { to })
                .await;
        }
        drop(to);
        let (mut sockets, mut fds) = (Vec::new(), Vec::new());
        loop {
            let share = timeout(limits::OBEY_PATIENCE, from_cores.recv()).await;
            let share = share.map_err(|_| "a core does not read its mailbox".to_owned())?;
            let Some(ListenerShare {
                address,
                transport,
                socket,
            }) = share
            else {
                break;
            };
            let socket = socket.map_err(|error| format!("cannot share {address}: {error}"))?;
            sockets.push(HandedSocket {
                address: address.to_string(),
                purpose: match transport {
                    Transport::Stream => SocketPurpose::Listener,
                    Transport::Datagram => SocketPurpose::Datagrams,
                },
                is_inherited: socket.origin == SocketOrigin::Inherited,
            });
            fds.push(socket.fd);
        }
        let state = self.state.borrow();
        if let (Some(admin), Some(settings)) = (&state.admin, &state.config.admin)
            && let Some(fd) = admin.share()
        {
            fds.push(fd.map_err(|error| format!("cannot share the admin listener: {error}"))?);
            sockets.push(HandedSocket {
                address: settings.address.to_string(),
                purpose: SocketPurpose::Admin,
                is_inherited: admin.is_inherited(),
            });
        }
        Ok((sockets, fds))
    }

    /// Stops accepting, and tells the new process. Returns that process's number.
    async fn give_way(&self, successor: Successor) -> Result<u32, String> {
        if self.draining.get() {
            successor.end();
            return Err("this process has begun to drain".to_owned());
        }
        let pid = successor.child.id();
        self.draining.set(true);
        // systemd ignores messages of the new process until this one has named it (NotifyAccess=main).
        self.manager.name_main_process(pid).await;
        {
            let mut state = self.state.borrow_mut();
            state.files.iter().for_each(|file| file.leave());
            if let Some(admin) = &mut state.admin {
                admin.leave();
            }
        }
        self.change(|receipt| serving::Command::LeaveListeners { _receipt: receipt })
            .await;
        let socket = successor.socket;
        let said = tokio::task::spawn_blocking(move || handover::say_go(&socket)).await;
        self.is_replaced.set(true);
        match said {
            Ok(Ok(())) => {}
            // It has served, so a supervisor that watches it has seen its end.
            _ => process::error(format_args!("process {pid} has ended; nothing serves now")),
        }
        Ok(pid)
    }
}
