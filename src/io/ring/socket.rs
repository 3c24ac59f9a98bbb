//! A connected socket, shared by its two halves and the ring.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::super::os::{reset, shut};
use super::driver::{Driver, OperationKind};
use super::owner_table::{OperationKey, OperationOwner};
use super::send_queue::SendQueue;
use crate::limits::LOOP_BYTES_MAX;
#[cfg(doc)]
use crate::limits::SILENCE_MS;

/// A connected socket. It is one allocation, freed when both halves and all its watches are gone.
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
    /// What waits to be sent. Allocated when there is something; freed at rest.
    pub(super) queue: Cell<Option<Box<SendQueue>>>,
    /// Bytes that went into batches since the peer last sent something.
    pub(super) unanswered: Cell<u32>,
    /// Why nothing can be sent any more.
    pub(super) send_error: Cell<Option<io::ErrorKind>>,
    pub(super) flags: Flags,
}

// Each connection has one: see "Idle connections by owner" in src/ARCHITECTURE.md. With the counts of `Rc` it takes 96.
const _: () = assert!(size_of::<RingSocket>() <= 80);

/// Facts about a socket in two bytes, because there are very many sockets.
pub(super) struct Flags(Cell<u16>);

impl Flags {
    /// A receive watch is in flight.
    const WATCHES_RECEIVE: u16 = 1;
    /// A send watch is in flight.
    const WATCHES_SEND: u16 = 1 << 1;
    /// The driver starts the receive watch later.
    const WATCHES_LATER: u16 = 1 << 2;
    /// A receive may succeed. After a receive clears this, the watch reports when it changes.
    pub(super) const READABLE: u16 = 1 << 3;
    /// A send may succeed.
    pub(super) const WRITABLE: u16 = 1 << 4;
    /// The socket is in the driver's batch of sends.
    pub(super) const IS_IN_BATCH: u16 = 1 << 5;
    /// The driver sends what a batch has left.
    pub(super) const IS_DRIVEN: u16 = 1 << 6;
    /// The sending direction ends once that is sent.
    pub(super) const FINISHES: u16 = 1 << 7;
    /// Nothing more will be sent for a while, so the queue is freed once it is empty.
    pub(super) const RESTS: u16 = 1 << 8;
    /// The peer has ended or broken the connection, so receiving never runs dry.
    const HAS_END: u16 = 1 << 9;
    /// A send has failed. The system reports a reset only once, so a later receive may see a plain end.
    pub(super) const BROKEN: u16 = 1 << 10;
    /// The connection must end in a reset.
    pub(super) const ABORTING: u16 = 1 << 11;
    /// The kernel holds the last bytes back until the connection ends.
    pub(super) const HOLDS_BACK: u16 = 1 << 12;
    /// The socket has received, sent or waited.
    pub(super) const USED: u16 = 1 << 13;

    /// Whether the socket has this flag, or one of these.
    #[inline]
    pub(super) fn has(&self, flag: u16) -> bool {
        self.0.get() & flag != 0
    }

    #[inline]
    pub(super) fn add(&self, flag: u16) {
        self.0.set(self.0.get() | flag);
    }

    #[inline]
    pub(super) fn remove(&self, flag: u16) {
        self.0.set(self.0.get() & !flag);
    }
}

impl OperationOwner for RingSocket {
    fn key(&self) -> OperationKey {
        self.key
    }
}

impl RingSocket {
    /// Wraps a connected, non-blocking socket for two halves. `readable` says that bytes may have arrived already.
    pub(super) fn new(driver: &Rc<Driver>, fd: i32, readable: bool) -> Rc<Self> {
        driver.sockets.add(|key| Self {
            driver: driver.clone(),
            key,
            fd: Cell::new(fd),
            receiver: Cell::new(None),
            sender: Cell::new(None),
            turn: Cell::new(0),
            spent: Cell::new(0),
            halves: Cell::new(2),
            watches: Cell::new(0),
            queue: Cell::new(None),
            unanswered: Cell::new(0),
            send_error: Cell::new(None),
            flags: Flags(Cell::new(match readable {
                true => Flags::WRITABLE | Flags::READABLE,
                false => Flags::WRITABLE,
            })),
        })
    }

    pub(super) fn fd(&self) -> i32 {
        self.fd.get()
    }

    /// Whether a receive may succeed now. If not, the task wakes when that changes, or up to [`SILENCE_MS`] later if
    /// `is_patient`.
    pub(super) fn may_receive(&self, cx: &Context<'_>, is_patient: bool) -> bool {
        self.flags.add(Flags::USED);
        if self.flags.has(Flags::READABLE) {
            let is_spent = self.has_received_now() && self.spent.get() >= LOOP_BYTES_MAX;
            if is_spent {
                self.go_on_later(cx);
            }
            return !is_spent;
        }
        remember(&self.receiver, cx);
        if !is_patient {
            self.watch_receive();
        } else if !self
            .flags
            .has(Flags::WATCHES_RECEIVE | Flags::WATCHES_LATER)
        {
            self.flags.add(Flags::WATCHES_LATER);
            self.driver.watch_later(self.key);
        }
        false
    }

    fn watch_receive(&self) {
        if !self.flags.has(Flags::WATCHES_RECEIVE) {
            self.flags.add(Flags::WATCHES_RECEIVE);
            // A lasting watch costs a cancellation at the end, which connections for a single request avoid.
            let watches = self.watches.get();
            self.watches.set((watches + 1).min(2));
            self.driver
                .watch(self.key, OperationKind::Receive, self.fd(), watches > 0);
        }
    }

    /// Starts the receive watch that a patient receive has put off.
    pub(super) fn watch_now(&self) {
        self.flags.remove(Flags::WATCHES_LATER);
        if self.fd() >= 0 && !self.flags.has(Flags::READABLE) {
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
        if is_all && !self.flags.has(Flags::HAS_END) {
            self.flags.remove(Flags::READABLE);
        }
    }

    /// Whether a send may succeed now. If not, the task wakes when that changes.
    pub(super) fn may_send(&self, cx: &Context<'_>) -> bool {
        self.flags.add(Flags::USED);
        if self.flags.has(Flags::WRITABLE) {
            return true;
        }
        remember(&self.sender, cx);
        self.watch_room();
        false
    }

    /// Lets the ring report when there is room to send.
    pub(super) fn watch_room(&self) {
        if !self.flags.has(Flags::WATCHES_SEND) {
            self.flags.add(Flags::WATCHES_SEND);
            self.driver
                .watch(self.key, OperationKind::Send, self.fd(), false);
        }
    }

    /// Handles an event of the ring. Returns whether the socket is gone and its key can be freed.
    pub(super) fn on_event(&self, kind: OperationKind, events: i32, is_last: bool) -> bool {
        let ends = i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR);
        // If the watch itself failed, the next call finds out why.
        if kind == OperationKind::Send {
            self.flags.remove(Flags::WATCHES_SEND);
            self.flags.add(Flags::WRITABLE);
            self.go_on_sending();
            wake(&self.sender);
        } else {
            if is_last {
                self.flags.remove(Flags::WATCHES_RECEIVE);
            }
            self.flags.add(Flags::READABLE);
            if events >= 0 && events & ends != 0 {
                self.flags.add(Flags::HAS_END);
            }
            wake(&self.receiver);
        }
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.halves.get() == 0
            && !self.flags.has(Flags::WATCHES_RECEIVE)
            && !self.flags.has(Flags::WATCHES_SEND)
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
        if self.flags.has(Flags::WATCHES_RECEIVE) {
            self.driver.forget(self.key, OperationKind::Receive);
        }
        if self.flags.has(Flags::WATCHES_SEND) {
            self.driver.forget(self.key, OperationKind::Send);
        }
        let fd = self.fd.replace(-1);
        if fd >= 0 {
            if self.flags.has(Flags::ABORTING) {
                reset(fd);
            } else if self.flags.has(Flags::HOLDS_BACK) {
                // A close alone would discard the bytes if the peer has sent some that Weir has not read.
                shut(fd, libc::SHUT_WR);
            }
            // SAFETY: the descriptor belongs to this socket, and nothing uses it after this.
            unsafe { libc::close(fd) };
        }
        let wakers = (self.receiver.take(), self.sender.take());
        if self.is_over() {
            self.driver.sockets.remove(self.key);
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
