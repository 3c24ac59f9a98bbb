//! Listening sockets.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::super::os;
use super::super::{SharedSocket, SocketOrigin};
use super::driver::{Driver, OperationKind};
use super::owner_table::{OperationKey, OperationOwner};
use crate::limits::ACCEPTS_AT_ONCE_MAX;

/// After this many events in a row that found enough connections, an event accepts more than one.
const STREAK_MIN: u32 = 4;

/// A listening socket on its core.
pub struct RingListener {
    state: Rc<ListenerState>,
}

/// What a listener and the ring share.
pub(super) struct ListenerState {
    driver: Rc<Driver>,
    key: OperationKey,
    fd: OwnedFd,
    is_tcp: bool,
    origin: SocketOrigin,
    is_watched: Cell<bool>,
    is_closed: Cell<bool>,
    is_dropped: Cell<bool>,
    /// How many accepts to try before asking the ring again.
    left: Cell<u32>,
    /// How many events in a row found as many connections as they were allowed.
    streak: Cell<u32>,
    waiting: RefCell<Vec<Waker>>,
}

impl RingListener {
    pub(super) fn new(
        driver: &Rc<Driver>,
        fd: OwnedFd,
        is_tcp: bool,
        origin: SocketOrigin,
    ) -> Self {
        let state = driver.listeners.add(|key| ListenerState {
            driver: driver.clone(),
            key,
            fd,
            is_tcp,
            origin,
            is_watched: Cell::new(false),
            is_closed: Cell::new(false),
            is_dropped: Cell::new(false),
            left: Cell::new(1),
            streak: Cell::new(0),
            waiting: RefCell::default(),
        });
        Self { state }
    }

    pub(super) async fn accept(&self) -> io::Result<(i32, Option<SocketAddr>)> {
        poll_fn(|cx| self.state.poll_accept(cx)).await
    }

    pub(super) fn stop(&self) {
        if self.state.origin == SocketOrigin::Bound {
            os::stop_listening(self.state.fd.as_raw_fd(), self.state.is_tcp);
        }
    }

    pub(super) fn accept_queued(&self) -> io::Result<Option<(i32, Option<SocketAddr>)>> {
        os::accept_queued(self.state.fd.as_raw_fd(), libc::SOCK_NONBLOCK)
    }

    pub(super) fn share(&self) -> io::Result<SharedSocket> {
        Ok(SharedSocket {
            fd: self.state.fd.try_clone()?,
            origin: self.state.origin,
        })
    }

    pub(super) fn leave(&self) {
        self.state.is_closed.set(true);
        self.state.wake_all();
    }

    pub(super) fn close(&self) {
        self.state.is_closed.set(true);
        if self.state.origin == SocketOrigin::Bound {
            os::shut(self.state.fd.as_raw_fd(), libc::SHUT_RDWR);
        }
        self.state.wake_all();
    }
}

impl OperationOwner for ListenerState {
    fn key(&self) -> OperationKey {
        self.key
    }
}

impl ListenerState {
    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(i32, Option<SocketAddr>)>> {
        loop {
            if self.is_closed.get() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            if self.left.get() == 0 {
                self.wait(cx);
                return Poll::Pending;
            }
            match os::accept(self.fd.as_raw_fd(), libc::SOCK_NONBLOCK) {
                Ok(accepted) => {
                    self.left.set(self.left.get() - 1);
                    return Poll::Ready(Ok(accepted));
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        self.left.set(0);
                        self.streak.set(0);
                    }
                    Some(libc::EINTR) => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        if !self.is_watched.replace(true) {
            self.driver
                .watch(self.key, OperationKind::Accept, self.fd.as_raw_fd(), false);
        }
    }

    /// Handles an event of the ring. Returns whether the listener is gone and its key can be freed.
    pub(super) fn on_event(&self) -> bool {
        self.is_watched.set(false);
        // An accept that finds no connection costs as much as one that does, so an event usually tries a single accept.
        // While connections arrive faster than that, it tries more.
        let streak = self.streak.get();
        self.streak.set(streak + 1);
        let at_once = 1 << streak.saturating_sub(STREAK_MIN).min(8);
        self.left.set(ACCEPTS_AT_ONCE_MAX.min(at_once));
        self.wake_all();
        self.is_dropped.get()
    }

    fn wake_all(&self) {
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for RingListener {
    fn drop(&mut self) {
        self.state.is_dropped.set(true);
        self.state.is_closed.set(true);
        self.state.wake_all();
        if self.state.is_watched.get() {
            self.state
                .driver
                .forget(self.state.key, OperationKind::Accept);
        } else {
            self.state.driver.listeners.remove(self.state.key);
        }
    }
}
