//! A connected socket: what its two halves and the ring share.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::super::os::reset;
use super::driver::{Driver, OperationKey, OperationKind, OperationOwner};
use crate::limits::TURN_BYTES_MAX;

/// A socket. One allocation a connection, about 100 bytes; while nothing is in flight and both halves are gone, none.
pub(super) struct RingSocket {
    pub(super) driver: Rc<Driver>,
    key: OperationKey,
    /// Negative when it is closed or has left.
    fd: Cell<i32>,
    receiver: Cell<Option<Waker>>,
    sender: Cell<Option<Waker>>,
    /// The turn in which something was received last, and how many bytes.
    turn: Cell<u32>,
    spent: Cell<u32>,
    /// Halves that are alive.
    halves: Cell<u8>,
    /// Watches for something to receive that have been begun, up to two.
    watches: Cell<u8>,
    watches_receive: Cell<bool>,
    watches_send: Cell<bool>,
    /// There may be something to be received. Once cleared, the watch tells when that changes.
    pub(super) readable: Cell<bool>,
    /// There may be room to send.
    pub(super) writable: Cell<bool>,
    /// The other side has ended or broken the connection: what is to be received does not run dry.
    has_end: Cell<bool>,
    /// A send has failed. The system tells of a reset only once, so that a receive may read it as an end.
    pub(super) broken: Cell<bool>,
    /// The connection is to end in a reset.
    pub(super) aborting: Cell<bool>,
    /// Something was received, sent, or waited for.
    pub(super) used: Cell<bool>,
}

impl RingSocket {
    /// Takes over a connected, non-blocking socket, for two halves. `readable`: something may have come already.
    pub(super) fn new(driver: &Rc<Driver>, fd: i32, readable: bool) -> Rc<Self> {
        let mut made = None;
        driver.add(|key| {
            let socket = Rc::new(Self {
                driver: driver.clone(),
                key,
                fd: Cell::new(fd),
                receiver: Cell::new(None),
                sender: Cell::new(None),
                turn: Cell::new(0),
                spent: Cell::new(0),
                halves: Cell::new(2),
                watches: Cell::new(0),
                watches_receive: Cell::new(false),
                watches_send: Cell::new(false),
                readable: Cell::new(readable),
                writable: Cell::new(true),
                has_end: Cell::new(false),
                broken: Cell::new(false),
                aborting: Cell::new(false),
                used: Cell::new(false),
            });
            made = Some(socket.clone());
            OperationOwner::Socket(socket)
        });
        made.unwrap_or_else(|| unreachable!("the table has asked for it"))
    }

    pub(super) fn fd(&self) -> i32 {
        self.fd.get()
    }

    /// Whether something may be received now. If not, the task is woken when that changes.
    pub(super) fn may_receive(&self, cx: &Context<'_>) -> bool {
        self.used.set(true);
        let is_spent = self.has_received_now() && self.spent.get() >= TURN_BYTES_MAX;
        if self.readable.get() && !is_spent {
            return true;
        }
        if self.readable.get() {
            self.go_on_later(cx);
            return false;
        }
        remember(&self.receiver, cx);
        if !self.watches_receive.replace(true) {
            // A lasting watch has to be cancelled at the end; connections for one request do without.
            let watches = self.watches.get();
            self.watches.set((watches + 1).min(2));
            self.driver
                .watch(self.key, OperationKind::Receive, self.fd(), watches > 0);
        }
        false
    }

    /// Whether something was received in this turn.
    pub(super) fn has_received_now(&self) -> bool {
        self.spent.get() > 0 && self.turn.get() == self.driver.turn.get()
    }

    /// Has the receiving task polled again in the next turn.
    pub(super) fn go_on_later(&self, cx: &Context<'_>) {
        remember(&self.receiver, cx);
        self.driver.wake_later(cx);
    }

    /// Takes note of a receive that has brought `n` bytes, all that there was if `is_all`.
    pub(super) fn received(&self, n: usize, is_all: bool) {
        let turn = self.driver.turn.get();
        let before = if self.turn.replace(turn) == turn {
            self.spent.get()
        } else {
            0
        };
        self.spent.set(before.saturating_add(n as u32));
        if is_all && !self.has_end.get() {
            self.readable.set(false);
        }
    }

    /// Whether something may be sent now. If not, the task is woken when that changes.
    pub(super) fn may_send(&self, cx: &Context<'_>) -> bool {
        self.used.set(true);
        if self.writable.get() {
            return true;
        }
        remember(&self.sender, cx);
        if !self.watches_send.replace(true) {
            self.driver
                .watch(self.key, OperationKind::Send, self.fd(), false);
        }
        false
    }

    /// Hears from the ring. Says whether nothing is left of the socket.
    pub(super) fn told(&self, kind: OperationKind, events: i32, is_last: bool) -> bool {
        let ends = i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR);
        // What a watch that has failed would have told is found out by trying.
        if kind == OperationKind::Send {
            self.watches_send.set(false);
            self.writable.set(true);
            wake(&self.sender);
        } else {
            self.watches_receive.set(!is_last);
            self.readable.set(true);
            if events >= 0 && events & ends != 0 {
                self.has_end.set(true);
            }
            wake(&self.receiver);
        }
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.halves.get() == 0 && !self.watches_receive.get() && !self.watches_send.get()
    }

    /// Takes the descriptor out of a socket that nobody has used. Its halves are to be dropped.
    pub(super) fn leave(&self) -> i32 {
        self.fd.replace(-1)
    }

    /// One half is gone. With the second one the socket closes.
    pub(super) fn drop_half(&self) {
        self.halves.set(self.halves.get() - 1);
        if self.halves.get() > 0 {
            return;
        }
        if self.watches_receive.get() {
            self.driver.forget(self.key, OperationKind::Receive);
        }
        if self.watches_send.get() {
            self.driver.forget(self.key, OperationKind::Send);
        }
        let fd = self.fd.replace(-1);
        if fd >= 0 {
            if self.aborting.get() {
                reset(fd);
            }
            // SAFETY: the descriptor is this socket's own, and nobody uses it after this.
            unsafe { libc::close(fd) };
        }
        let wakers = (self.receiver.take(), self.sender.take());
        if self.is_over() {
            self.driver.remove(self.key);
        }
        drop(wakers);
    }
}

fn remember(place: &Cell<Option<Waker>>, cx: &Context<'_>) {
    let known = place.take().filter(|waker| waker.will_wake(cx.waker()));
    place.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
}

fn wake(place: &Cell<Option<Waker>>) {
    if let Some(waker) = place.take() {
        waker.wake_by_ref();
        place.set(Some(waker));
    }
}
