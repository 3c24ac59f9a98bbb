//! A connected socket, shared by its two halves and the ring.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::super::os::{reset, shut};
use super::driver::{Driver, OperationKey, OperationKind, OperationOwner};
use super::send_queue::SendQueue;
use crate::limits::LOOP_BYTES_MAX;
#[cfg(doc)]
use crate::limits::SILENCE_MS;

/// A connected socket. It is one allocation of about 100 bytes, freed when both halves and all its watches are gone.
pub(super) struct RingSocket {
    pub(super) driver: Rc<Driver>,
    key: OperationKey,
    /// Negative once the socket is closed or packed for another core.
    fd: Cell<i32>,
    pub(super) receiver: Cell<Option<Waker>>,
    pub(super) sender: Cell<Option<Waker>>,
    /// The turn in which the socket last received, and how many bytes that turn brought.
    turn: Cell<u32>,
    spent: Cell<u32>,
    /// How many halves are alive.
    halves: Cell<u8>,
    /// How many receive watches were started; stops counting at 2.
    watches: Cell<u8>,
    watches_receive: Cell<bool>,
    watches_send: Cell<bool>,
    /// The driver starts the receive watch later.
    watches_later: Cell<bool>,
    /// A receive may succeed. After a receive clears this, the watch reports when it changes.
    pub(super) readable: Cell<bool>,
    /// A send may succeed.
    pub(super) writable: Cell<bool>,
    /// What waits to be sent. Allocated when there is something; freed at rest.
    pub(super) queue: Cell<Option<Box<SendQueue>>>,
    /// Bytes that went into batches since the peer last sent something.
    pub(super) unanswered: Cell<u32>,
    /// The socket is in the driver's batch of sends.
    pub(super) is_in_batch: Cell<bool>,
    /// The driver sends what a batch has left.
    pub(super) is_driven: Cell<bool>,
    /// The sending direction ends once that is sent.
    pub(super) finishes: Cell<bool>,
    /// Why nothing can be sent any more.
    pub(super) send_error: Cell<Option<io::ErrorKind>>,
    /// The peer has ended or broken the connection, so receiving never runs dry.
    has_end: Cell<bool>,
    /// A send has failed. The system reports a reset only once, so a later receive may see a plain end.
    pub(super) broken: Cell<bool>,
    /// The connection must end in a reset.
    pub(super) aborting: Cell<bool>,
    /// The kernel holds the last bytes back until the connection ends.
    pub(super) holds_back: Cell<bool>,
    /// The socket has received, sent or waited.
    pub(super) used: Cell<bool>,
}

impl RingSocket {
    /// Wraps a connected, non-blocking socket for two halves. `readable` says that bytes may have arrived already.
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
                watches_later: Cell::new(false),
                readable: Cell::new(readable),
                writable: Cell::new(true),
                queue: Cell::new(None),
                unanswered: Cell::new(0),
                is_in_batch: Cell::new(false),
                is_driven: Cell::new(false),
                finishes: Cell::new(false),
                send_error: Cell::new(None),
                has_end: Cell::new(false),
                broken: Cell::new(false),
                aborting: Cell::new(false),
                holds_back: Cell::new(false),
                used: Cell::new(false),
            });
            made = Some(socket.clone());
            OperationOwner::Socket(socket)
        });
        made.unwrap_or_else(|| unreachable!("the table calls its closure"))
    }

    pub(super) fn fd(&self) -> i32 {
        self.fd.get()
    }

    /// Whether a receive may succeed now. If not, the task wakes when that changes, or up to [`SILENCE_MS`] later if
    /// `is_patient`.
    pub(super) fn may_receive(&self, cx: &Context<'_>, is_patient: bool) -> bool {
        self.used.set(true);
        let is_spent = self.has_received_now() && self.spent.get() >= LOOP_BYTES_MAX;
        if self.readable.get() && !is_spent {
            return true;
        }
        if self.readable.get() {
            self.go_on_later(cx);
            return false;
        }
        remember(&self.receiver, cx);
        if !is_patient {
            self.watch_receive();
        } else if !self.watches_receive.get() && !self.watches_later.replace(true) {
            self.driver.watch_later(self.key);
        }
        false
    }

    fn watch_receive(&self) {
        if !self.watches_receive.replace(true) {
            // A lasting watch costs a cancellation at the end, which connections for a single request avoid.
            let watches = self.watches.get();
            self.watches.set((watches + 1).min(2));
            self.driver
                .watch(self.key, OperationKind::Receive, self.fd(), watches > 0);
        }
    }

    /// Starts the receive watch that a patient receive has put off.
    pub(super) fn watch_now(&self) {
        self.watches_later.set(false);
        if self.fd() >= 0 && !self.readable.get() {
            self.watch_receive();
        }
    }

    /// Whether the socket has received in this turn.
    pub(super) fn has_received_now(&self) -> bool {
        self.spent.get() > 0 && self.turn.get() == self.driver.turn.get()
    }

    /// Polls the receiving task again in the next turn.
    pub(super) fn go_on_later(&self, cx: &Context<'_>) {
        remember(&self.receiver, cx);
        self.driver.wake_later(cx);
    }

    /// Records a receive of `n` bytes. `is_all` says that it left nothing behind.
    pub(super) fn received(&self, n: usize, is_all: bool) {
        let turn = self.driver.turn.get();
        let before = if self.turn.replace(turn) == turn {
            self.spent.get()
        } else {
            0
        };
        self.spent.set(before.saturating_add(n as u32));
        self.unanswered.set(0);
        if is_all && !self.has_end.get() {
            self.readable.set(false);
        }
    }

    /// Whether a send may succeed now. If not, the task wakes when that changes.
    pub(super) fn may_send(&self, cx: &Context<'_>) -> bool {
        self.used.set(true);
        if self.writable.get() {
            return true;
        }
        remember(&self.sender, cx);
        self.watch_room();
        false
    }

    /// Lets the ring report when there is room to send.
    pub(super) fn watch_room(&self) {
        if !self.watches_send.replace(true) {
            self.driver
                .watch(self.key, OperationKind::Send, self.fd(), false);
        }
    }

    /// Handles an event of the ring. Returns whether the socket is gone and its key can be freed.
    pub(super) fn on_event(&self, kind: OperationKind, events: i32, is_last: bool) -> bool {
        let ends = i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR);
        // If the watch itself failed, the next call finds out why.
        if kind == OperationKind::Send {
            self.watches_send.set(false);
            self.writable.set(true);
            self.go_on_sending();
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

    /// Takes the descriptor out of an unused socket. The caller drops the halves.
    pub(super) fn leave(&self) -> i32 {
        self.fd.replace(-1)
    }

    /// Drops one half. Dropping the second closes the socket.
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
            } else if self.holds_back.get() {
                // A close alone would discard the bytes if the peer has sent some that Weir has not read.
                shut(fd, libc::SHUT_WR);
            }
            // SAFETY: the descriptor belongs to this socket, and nothing uses it after this.
            unsafe { libc::close(fd) };
        }
        let wakers = (self.receiver.take(), self.sender.take());
        if self.is_over() {
            self.driver.remove(self.key);
        }
        drop(wakers);
    }
}

fn remember(waker: &Cell<Option<Waker>>, cx: &Context<'_>) {
    let known = waker.take().filter(|known| known.will_wake(cx.waker()));
    waker.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
}

pub(super) fn wake(waker: &Cell<Option<Waker>>) {
    if let Some(known) = waker.take() {
        known.wake_by_ref();
        waker.set(Some(known));
    }
}
