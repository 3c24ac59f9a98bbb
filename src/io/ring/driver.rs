//! The ring itself: what is asked of it, what it tells, and the loop between.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::types::{Fd, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::super::pipe::Pipes;
use super::super::{Instant, Pool};
use super::listener::ListenerState;
use super::sleep_queue::SleepQueue;
use super::socket::RingSocket;
use super::tasks::{ROOT, Tasks};
use crate::limits::{RING_COMPLETIONS, RING_SUBMISSIONS, TURN_WAKES_MAX};

/// What an operation is about. All that the ring is asked for is to tell when a descriptor is ready, and the time: no
/// memory of ours is ever lent to the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OperationKind {
    /// There is something to be received.
    Receive = 1,
    /// There is room to send.
    Send = 2,
    /// There is somebody to be accepted.
    Accept = 3,
    /// A time has come.
    Time = 4,
}

/// A place in the table of what operations belong to. It is part of each operation's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OperationKey {
    index: u32,
    generation: u32,
}

const GENERATION_BITS: u32 = 24;

/// Waits for last completions at the end. Each brings one at least; cancelled operations do not take long.
const TURNS_TO_END_MAX: usize = 100_000;

impl OperationKey {
    fn name(self, kind: OperationKind) -> u64 {
        (kind as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn of(name: u64) -> Self {
        Self {
            index: name as u32,
            generation: (name >> 32) as u32 & ((1 << GENERATION_BITS) - 1),
        }
    }
}

/// Who owns operations. Kept for as long as one is in flight, whatever becomes of its handles.
#[derive(Clone)]
pub(super) enum OperationOwner {
    Socket(Rc<RingSocket>),
    Listener(Rc<ListenerState>),
}

/// Owners by the key that their operations carry. A key is not used again before the last of them has completed, and
/// then with another generation.
#[derive(Default)]
struct OwnerTable {
    slots: RefCell<Vec<(u32, Option<OperationOwner>)>>,
    free: RefCell<Vec<u32>>,
}

impl OwnerTable {
    fn add(&self, owner: impl FnOnce(OperationKey) -> OperationOwner) -> OperationOwner {
        let index = self.free.borrow_mut().pop();
        let mut slots = self.slots.borrow_mut();
        let index = index.unwrap_or_else(|| {
            slots.push((0, None));
            (slots.len() - 1) as u32
        });
        let (generation, place) = &mut slots[index as usize];
        let owner = owner(OperationKey {
            index,
            generation: *generation,
        });
        *place = Some(owner.clone());
        owner
    }

    fn get(&self, key: OperationKey) -> Option<OperationOwner> {
        match self.slots.borrow().get(key.index as usize) {
            Some((generation, owner)) if *generation == key.generation => owner.clone(),
            _ => None,
        }
    }

    fn remove(&self, key: OperationKey) {
        let mut slots = self.slots.borrow_mut();
        let Some((generation, owner)) = slots.get_mut(key.index as usize) else {
            return;
        };
        if *generation != key.generation {
            return;
        }
        *generation = (*generation + 1) % (1 << GENERATION_BITS);
        let owner = owner.take();
        drop(slots);
        self.free.borrow_mut().push(key.index);
        drop(owner);
    }
}

/// One core's world.
pub(super) struct Driver {
    pub(super) pool: Pool,
    pub(super) pipes: Rc<Pipes>,
    pub(super) tasks: Rc<Tasks>,
    pub(super) timers: SleepQueue,
    /// Counts turns of the loop.
    pub(super) turn: Cell<u32>,
    /// The time as of the last turn.
    pub(super) now: Cell<Instant>,
    ring: IoUring,
    /// What found no room in the submission queue.
    waiting: RefCell<Vec<squeue::Entry>>,
    owners: OwnerTable,
    /// Operations on descriptors whose last completion has not come.
    in_flight: Cell<usize>,
    /// Who has had enough for this turn and goes on in the next.
    later: RefCell<Vec<Waker>>,
    /// Read by the kernel when a time is submitted.
    timespec: Cell<Timespec>,
    start: std::time::Instant,
    /// Milliseconds from the Unix epoch to `start`, set anew with every sleep that ends.
    epoch_ms: Cell<u64>,
}

/// Sets a ring up as this driver needs it.
pub(super) fn set_up(submissions: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_cqsize(RING_COMPLETIONS)
        .build(submissions)
}

impl Driver {
    /// A world on the calling thread.
    pub(super) fn new() -> io::Result<Rc<Self>> {
        let driver = Self {
            pool: Pool::new(),
            pipes: Rc::default(),
            tasks: Tasks::new(),
            timers: SleepQueue::default(),
            turn: Cell::new(0),
            now: Cell::new(Instant::default()),
            ring: set_up(RING_SUBMISSIONS)?,
            waiting: RefCell::default(),
            owners: OwnerTable::default(),
            in_flight: Cell::new(0),
            later: RefCell::default(),
            timespec: Cell::new(Timespec::new()),
            start: std::time::Instant::now(),
            epoch_ms: Cell::new(0),
        };
        driver.tick_wall();
        Ok(Rc::new(driver))
    }

    /// Runs until `root` is done.
    pub(super) fn run<T>(
        self: &Rc<Self>,
        mut root: Pin<Box<impl Future<Output = T>>>,
    ) -> io::Result<T> {
        loop {
            // Tasks that are woken meanwhile run as well, but a task that wakes itself without end does not keep the
            // others from their news.
            for _ in 0..self.tasks.queued() + TURN_WAKES_MAX {
                let Some((index, waker)) = self.tasks.next() else {
                    break;
                };
                if index != ROOT {
                    self.tasks.run(index, &waker);
                } else if let Poll::Ready(done) =
                    root.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    return Ok(done);
                }
            }
            self.turn()?;
        }
    }

    /// Tells the kernel what is new, waits if there is nothing else to do, and takes in what it tells.
    fn turn(&self) -> io::Result<()> {
        let has_work = self.tasks.queued() > 0 || !self.later.borrow().is_empty();
        self.arm_time();
        self.enter(usize::from(!has_work))?;
        self.turn.set(self.turn.get().wrapping_add(1));
        self.tick();
        self.reap();
        if self.timers.fire(self.now.get()) {
            self.tick_wall();
        }
        self.later.take().into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Submits, and waits until so many completions are there.
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
                // A signal, or completions that have to be taken in first.
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

    /// Whether the kernel has nothing to do or to tell at present.
    fn is_calm(&self) -> bool {
        // SAFETY: as in `try_push`.
        let queue = unsafe { self.ring.submission_shared() };
        queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
    }

    /// Moves what has waited for room into the submission queue.
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
        // SAFETY: one thread, and the queue lives for this line only, so there are never two. The entries of this
        // module name descriptors, and memory that is `self.timespec` at most, which lives as long as the ring.
        unsafe { self.ring.submission_shared().push(entry).is_ok() }
    }

    fn push(&self, entry: squeue::Entry) {
        if !self.waiting.borrow().is_empty() || !self.try_push(&entry) {
            self.waiting.borrow_mut().push(entry);
        }
    }

    /// Takes in every completion that is there.
    fn reap(&self) {
        loop {
            // SAFETY: as with the submission queue: one thread, one at a time.
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
            4 => return self.timers.came(),
            // A cancellation that came too late.
            _ => return,
        };
        if is_last {
            self.in_flight.set(self.in_flight.get() - 1);
        }
        let key = OperationKey::of(name);
        let is_over = match self.owners.get(key) {
            Some(OperationOwner::Socket(socket)) => socket.told(kind, result, is_last),
            Some(OperationOwner::Listener(state)) => state.told(),
            None => false,
        };
        if is_over {
            self.owners.remove(key);
        }
    }

    /// Has the kernel tell when `fd` is ready: once, or every time that it becomes so again.
    pub(super) fn watch(&self, key: OperationKey, kind: OperationKind, fd: i32, is_lasting: bool) {
        let events = match kind {
            OperationKind::Send => libc::POLLOUT,
            _ => libc::POLLIN | libc::POLLRDHUP,
        };
        let poll = opcode::PollAdd::new(Fd(fd), events as u32).multi(is_lasting);
        self.in_flight.set(self.in_flight.get() + 1);
        self.push(poll.build().user_data(key.name(kind)));
    }

    /// Ends a watch. Its last completion is still to come.
    pub(super) fn forget(&self, key: OperationKey, kind: OperationKind) {
        let cancel = opcode::AsyncCancel::new(key.name(kind)).build();
        self.push(cancel.flags(squeue::Flags::SKIP_SUCCESS));
    }

    pub(super) fn add(&self, owner: impl FnOnce(OperationKey) -> OperationOwner) -> OperationOwner {
        self.owners.add(owner)
    }

    /// Gives a key back. No operation carries it any more.
    pub(super) fn remove(&self, key: OperationKey) {
        self.owners.remove(key);
    }

    /// Wakes the task in the next turn.
    pub(super) fn wake_later(&self, cx: &Context<'_>) {
        self.later.borrow_mut().push(cx.waker().clone());
    }

    /// Lets the kernel know of the next time to wake up, unless it knows of an earlier one.
    fn arm_time(&self) {
        let Some(wait) = self.timers.wanted(self.now.get()) else {
            return;
        };
        self.timespec.set(Timespec::from(wait));
        let time = opcode::Timeout::new(self.timespec.as_ptr());
        self.push(
            time.build()
                .user_data(OperationKey::default().name(OperationKind::Time)),
        );
    }

    /// Reads the clock.
    fn tick(&self) {
        self.now
            .set(Instant(self.start.elapsed().as_nanos() as u64));
    }

    /// Follows the wall clock, which may be set.
    fn tick_wall(&self) {
        self.tick();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |wall| wall.as_millis() as u64);
        self.epoch_ms
            .set(wall_ms.saturating_sub(self.now.get().0 / 1_000_000));
    }

    pub(super) fn wall_ms(&self) -> u64 {
        self.epoch_ms.get() + self.now.get().0 / 1_000_000
    }

    /// How many places the table has, taken or not.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.owners.slots.borrow().len()
    }

    /// Asks the kernel for so many things that come to nothing.
    #[cfg(test)]
    pub(super) fn flood(&self, count: usize) {
        (0..count).for_each(|_| self.push(opcode::Nop::new().build()));
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Ends everything: tasks, then what they have left in flight.
    pub(super) fn end(&self) {
        self.tasks.clear();
        self.timers.clear();
        // What a handle that outlives the loop still has in flight ends too.
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
