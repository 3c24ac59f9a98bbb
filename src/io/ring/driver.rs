//! The driver: the ring, what Weir asks of it, what it reports, and the loop around it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::types::{Fd, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::super::clock::Clock;
use super::super::datagram_batch::DatagramBatch;
use super::super::pipe::Pipes;
use super::super::{Instant, Pool};
use super::listener::ListenerState;
use super::owner_table::{OperationKey, OwnerTable};
use super::sleep_queue::SleepQueue;
use super::socket::RingSocket;
use super::tasks::{ROOT, Tasks};
use crate::limits::{
    LOOP_WAKES_MAX, RING_COMPLETIONS, RING_SUBMISSIONS, SEND_BATCH_MAX, SILENCE_MS, TABLE_PLACES,
};

/// What an operation waits for. The ring only reports that a descriptor is ready or that a time has come, so Weir never
/// lends memory to the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OperationKind {
    /// Bytes, an end or an error to receive.
    Receive = 1,
    /// Room to send.
    Send = 2,
    /// A connection to accept.
    Accept = 3,
    /// A time.
    Time = 4,
}

/// How often the end waits for last completions. Each wait brings at least one, and cancelled operations complete soon.
const TURNS_TO_END_MAX: usize = 100_000;

/// How many late watches a core keeps room for that waits with none.
const LATER_WATCHES_KEPT: usize = 64;

/// The event loop of one core.
pub(super) struct Driver {
    pub(super) pool: Pool,
    pub(super) pipes: Rc<Pipes>,
    /// Room for received datagrams, once a socket has needed it.
    pub(super) datagrams: Cell<Option<Box<DatagramBatch>>>,
    pub(super) tasks: Rc<Tasks>,
    pub(super) sleeps: SleepQueue,
    /// Counts turns of the loop.
    pub(super) turn: Cell<u32>,
    pub(super) clock: Clock,
    ring: IoUring,
    /// Entries that found the submission queue full.
    waiting: RefCell<Vec<squeue::Entry>>,
    pub(super) sockets: OwnerTable<RingSocket>,
    pub(super) listeners: OwnerTable<ListenerState>,
    /// Operations on descriptors whose last completion has not come.
    in_flight: Cell<usize>,
    /// Sockets that have something to send. Sending runs tens of kilobytes of the kernel's code, which push the code of
    /// the tasks out of the caches. In a batch, the kernel's code stays there from one send to the next, and the tasks'
    /// code from one task to the next.
    batch: RefCell<Vec<Rc<RingSocket>>>,
    /// Tasks that have used up their share of this turn and continue in the next.
    later: RefCell<Vec<Waker>>,
    /// Receive watches that are started later, with the time for each, the earliest first. Most are gone by then.
    later_watches: RefCell<VecDeque<(Instant, OperationKey)>>,
    /// The kernel reads this when a timeout is submitted.
    timespec: Cell<Timespec>,
}

/// The flags of a ring. Each kernel since Linux 5.19 grants one of these sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFlags {
    /// The kernel makes completions when the core asks for them (Linux 6.1).
    Deferred,
    /// The kernel makes completions during any system call of the core, and may assume that one thread submits (6.0).
    Cooperative,
    /// The same without that assumption (5.19).
    CooperativeShared,
}

impl RingFlags {
    /// All sets, the best first.
    pub const ALL: [Self; 3] = [Self::Deferred, Self::Cooperative, Self::CooperativeShared];
}

impl fmt::Display for RingFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deferred => "single_issuer defer_taskrun",
            Self::Cooperative => "single_issuer coop_taskrun",
            Self::CooperativeShared => "coop_taskrun",
        })
    }
}

/// Creates a ring with these flags.
pub(super) fn set_up(flags: RingFlags, submissions: u32) -> io::Result<IoUring> {
    let mut ring = IoUring::builder();
    ring.setup_taskrun_flag().setup_cqsize(RING_COMPLETIONS);
    match flags {
        RingFlags::Deferred => ring.setup_single_issuer().setup_defer_taskrun(),
        RingFlags::Cooperative => ring.setup_single_issuer().setup_coop_taskrun(),
        RingFlags::CooperativeShared => ring.setup_coop_taskrun(),
    };
    ring.build(submissions)
}

impl Driver {
    pub(super) fn new(flags: RingFlags) -> io::Result<Rc<Self>> {
        let driver = Self {
            pool: Pool::new(),
            pipes: Rc::default(),
            datagrams: Cell::new(None),
            tasks: Tasks::new(),
            sleeps: SleepQueue::default(),
            turn: Cell::new(0),
            clock: Clock::start(),
            ring: set_up(flags, RING_SUBMISSIONS)?,
            waiting: RefCell::default(),
            sockets: OwnerTable::new(TABLE_PLACES),
            listeners: OwnerTable::new(0),
            in_flight: Cell::new(0),
            batch: RefCell::default(),
            later: RefCell::default(),
            later_watches: RefCell::default(),
            timespec: Cell::new(Timespec::new()),
        };
        Ok(Rc::new(driver))
    }

    /// Runs the loop until `root` completes.
    pub(super) fn run<T>(
        self: &Rc<Self>,
        mut root: Pin<Box<impl Future<Output = T>>>,
    ) -> io::Result<T> {
        loop {
            // Tasks that wake meanwhile run as well, within a bound: a task that wakes itself forever must not keep the
            // others from their I/O.
            for _ in 0..self.tasks.queued() + LOOP_WAKES_MAX {
                let Some((index, waker)) = self.tasks.next() else {
                    break;
                };
                if index != ROOT {
                    self.tasks.run(index, &waker);
                } else if let Poll::Ready(done) =
                    root.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    self.send_batch();
                    return Ok(done);
                }
                if self.batch.borrow().len() >= SEND_BATCH_MAX {
                    self.send_batch();
                }
            }
            self.send_batch();
            self.turn()?;
        }
    }

    /// Whether sends of several tasks come together. With one task, a batch gains nothing.
    pub(super) fn fills_batch(&self) -> bool {
        self.tasks.queued() > 0 || !self.batch.borrow().is_empty()
    }

    /// Sends the socket's queue before the next turn, behind those of other sockets.
    pub(super) fn add_to_batch(&self, socket: Rc<RingSocket>) {
        self.batch.borrow_mut().push(socket);
    }

    fn send_batch(&self) {
        for socket in self.batch.borrow_mut().drain(..) {
            socket.send_in_batch();
        }
    }

    /// Runs one turn: submits new entries, waits if there is nothing else to do, and handles completions.
    fn turn(&self) -> io::Result<()> {
        let has_work = self.tasks.queued() > 0 || !self.later.borrow().is_empty();
        self.start_later_watches();
        self.arm_time();
        self.enter(usize::from(!has_work))?;
        self.turn.set(self.turn.get().wrapping_add(1));
        self.clock.tick();
        self.reap();
        if self.sleeps.fire(self.clock.now()) {
            self.clock.tick_wall();
        }
        self.later.take().into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Submits, and waits for `wanted` completions.
    fn enter(&self, wanted: usize) -> io::Result<()> {
        loop {
            self.refill();
            let is_more = !self.waiting.borrow().is_empty();
            let wanted = if is_more { 0 } else { wanted };
            if wanted == 0 && self.is_calm() {
                return Ok(());
            }
            match self.ring.submit_and_wait(wanted) {
                Ok(_) if !is_more => return Ok(()),
                Ok(_) => {}
                // A signal arrived, or the kernel wants completions handled first.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)
                    ) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the kernel has nothing to do and nothing to report.
    fn is_calm(&self) -> bool {
        // SAFETY: as in `try_push`.
        let queue = unsafe { self.ring.submission_shared() };
        queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
    }

    /// Moves entries that found the submission queue full into it.
    fn refill(&self) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return;
        }
        let moved = waiting.iter().take_while(|entry| self.try_push(entry));
        let moved = moved.count();
        waiting.drain(..moved);
    }

    fn try_push(&self, entry: &squeue::Entry) -> bool {
        // SAFETY: one thread uses the ring, and the queue handle lives for this line only, so there are never two. The
        // entries of this module name descriptors and no memory except `self.timespec`, which lives as long as the
        // ring.
        unsafe { self.ring.submission_shared().push(entry).is_ok() }
    }

    fn push(&self, entry: squeue::Entry) {
        if !self.waiting.borrow().is_empty() || !self.try_push(&entry) {
            self.waiting.borrow_mut().push(entry);
        }
    }

    /// Handles all completions that have arrived.
    fn reap(&self) {
        loop {
            // SAFETY: as with the submission queue: one thread, one handle at a time.
            let next = unsafe { self.ring.completion_shared().next() };
            let Some(entry) = next else { return };
            self.complete(&entry);
        }
    }

    fn complete(&self, entry: &cqueue::Entry) {
        let name = entry.user_data();
        let (result, is_last) = (entry.result(), !cqueue::more(entry.flags()));
        let kind = match name >> 56 {
            1 => OperationKind::Receive,
            2 => OperationKind::Send,
            3 => OperationKind::Accept,
            4 => return self.sleeps.timeout_fired(),
            // A cancellation that came too late.
            _ => return,
        };
        if is_last {
            self.in_flight.set(self.in_flight.get() - 1);
        }
        let key = OperationKey::of(name);
        if kind == OperationKind::Accept {
            let listener = self.listeners.get(key);
            if listener.is_some_and(|listener| listener.on_event()) {
                self.listeners.remove(key);
            }
            return;
        }
        let socket = self.sockets.get(key);
        if socket.is_some_and(|socket| socket.on_event(kind, result, is_last)) {
            self.sockets.remove(key);
        }
    }

    /// Makes the kernel report when `fd` becomes ready: once, or every time if `is_lasting`.
    pub(super) fn watch(&self, key: OperationKey, kind: OperationKind, fd: i32, is_lasting: bool) {
        let events = match kind {
            OperationKind::Send => libc::POLLOUT,
            _ => libc::POLLIN | libc::POLLRDHUP,
        };
        let poll = opcode::PollAdd::new(Fd(fd), events as u32).multi(is_lasting);
        self.in_flight.set(self.in_flight.get() + 1);
        self.push(poll.build().user_data(key.name(kind)));
    }

    /// Starts a receive watch within [`SILENCE_MS`], but not in the first half of that time. Watches start together, so
    /// each such time needs one timeout at most.
    pub(super) fn watch_later(&self, key: OperationKey) {
        let period = SILENCE_MS / 2 * 1_000_000;
        let at = Instant((self.clock.now().0 / period + 2) * period);
        self.later_watches.borrow_mut().push_back((at, key));
    }

    /// Starts the watches whose time has come, on those sockets that still exist.
    fn start_later_watches(&self) {
        let mut watches = self.later_watches.borrow_mut();
        while let Some(&(at, key)) = watches.front()
            && at <= self.clock.now()
        {
            watches.pop_front();
            if let Some(socket) = self.sockets.get(key) {
                socket.watch_now();
            }
        }
        if watches.is_empty() {
            watches.shrink_to(LATER_WATCHES_KEPT);
        }
    }

    /// Cancels a watch. Its last completion is still to come.
    pub(super) fn forget(&self, key: OperationKey, kind: OperationKind) {
        let cancel = opcode::AsyncCancel::new(key.name(kind)).build();
        self.push(cancel.flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Wakes the task in the next turn.
    pub(super) fn wake_later(&self, cx: &Context<'_>) {
        self.later.borrow_mut().push(cx.waker().clone());
    }

    /// Submits a timeout for the next sleep or later watch, unless an earlier one is already armed.
    fn arm_time(&self) {
        let watch = self.later_watches.borrow().front().map(|&(at, _)| at);
        let Some(wait) = self.sleeps.next_timeout(self.clock.now(), watch) else {
            return;
        };
        self.timespec.set(Timespec::from(wait));
        let time = opcode::Timeout::new(self.timespec.as_ptr());
        self.push(
            time.build()
                .user_data(OperationKey::default().name(OperationKind::Time)),
        );
    }

    /// Submits `count` operations that do nothing.
    #[cfg(test)]
    pub(super) fn flood(&self, count: usize) {
        (0..count).for_each(|_| self.push(opcode::Nop::new().build()));
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Ends all tasks, then waits for the operations that they leave in flight.
    pub(super) fn end(&self) {
        self.tasks.clear();
        self.sleeps.clear();
        // A panic leaves sockets in the batch, and they keep the driver alive.
        self.batch.take();
        // Handles that outlive the loop may have operations in flight too.
        let all = opcode::AsyncCancel2::new(io_uring::types::CancelBuilder::any()).build();
        self.push(all);
        for _ in 0..TURNS_TO_END_MAX {
            if self.in_flight.get() == 0 || self.enter(1).is_err() {
                break;
            }
            self.reap();
        }
    }
}
