//! One core: a pinned thread, and what every layer above needs of it.
//!
//! [`Core`] is the one struct that all tasks of a core share. It is passed along explicitly and never leaves its
//! thread. It knows no plan, no upstream and no exchange: those belong to the layers above.

mod admission;
mod calls;
mod clients;
mod connection_counts;
mod core_listener;
mod date_cache;
mod deadline_queue;
mod guard;
mod memory;
mod share;
mod timers;

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

pub use admission::Admission;
pub use calls::{CallPermit, Calls, MirroredBytes};
pub use clients::{ClientCounters, Clients};
pub use connection_counts::ConnectionCounts;
pub use core_listener::CoreListener;
pub use date_cache::DateText;
pub use guard::{guarded, poll_guarded, report_panic};
pub use share::Share;
pub use timers::{Timer, Timers};

use crate::io::{Charge, Instant, Net};
use crate::limits::{
    ACTIVE_CONNECTION_BYTES, HANDSHAKE_LOG_INTERVAL_MS, HANDSHAKE_STEPS_MAX, WORK_STEPS_MAX,
};
use crate::obs::{CoreObs, CoreReport, LogLevel, RequestId};
use crate::plan::Capacity;
use crate::work_queue::WorkQueue;
use date_cache::DateCache;
use memory::Memory;

/// What one core owns.
pub struct Core<N: Net> {
    /// The core's I/O: sockets, clock, blocks of memory, tasks.
    pub net: N,
    /// Deadlines of all connections.
    pub timers: Rc<Timers>,
    /// Counters, access log and process log.
    pub obs: Rc<RefCell<CoreObs>>,
    /// Decides which TLS handshake takes its next costly step.
    pub handshake_queue: Rc<WorkQueue>,
    /// Decides which exchange takes its next step of other costly work.
    pub work_queue: Rc<WorkQueue>,
    /// How much the running task may still do in this poll.
    pub share: Share,
    /// The sub-requests that run now.
    pub calls: Rc<Calls>,
    /// Connections of all cores.
    pub counts: Arc<ConnectionCounts>,
    /// This core's index among them.
    pub index: usize,
    /// When a failed handshake with a client was last logged, and one with an endpoint. Failures that clients provoke
    /// must not hide those of endpoints.
    client_handshake_logged: Cell<Option<Instant>>,
    endpoint_handshake_reported: Cell<Option<Instant>>,
    ids: Cell<(u64, u64)>,
    date: DateCache,
    memory: Memory,
    /// How many connections all cores together may have.
    connections_max: Cell<u32>,
    ending: Cell<bool>,
    draining: Cell<bool>,
    stopping: Cell<bool>,
    connections: Cell<usize>,
    active: Cell<usize>,
    waiting_for_end: Cell<Option<Waker>>,
    /// Accepts that wait until there are fewer connections.
    waiting_for_room: RefCell<Vec<Waker>>,
}

impl<N: Net> Core<N> {
    /// Makes a core; `seed` differs by core and process. `ring` rings the core's own doorbell, behind which
    /// [`Core::grant_work`] is called.
    pub fn new(
        net: N,
        (index, counts): (usize, Arc<ConnectionCounts>),
        obs: CoreObs,
        seed: u64,
        ring: impl Fn() + Clone + 'static,
    ) -> Rc<Self> {
        Rc::new(Self {
            net,
            timers: Rc::default(),
            obs: Rc::new(RefCell::new(obs)),
            handshake_queue: WorkQueue::new(HANDSHAKE_STEPS_MAX, ring.clone()),
            work_queue: WorkQueue::new(WORK_STEPS_MAX, ring),
            share: Share::default(),
            calls: Rc::default(),
            counts,
            index,
            client_handshake_logged: Cell::new(None),
            endpoint_handshake_reported: Cell::new(None),
            ids: Cell::new((seed, 0)),
            date: DateCache::default(),
            memory: Memory::default(),
            connections_max: Cell::new(u32::MAX),
            ending: Cell::new(false),
            draining: Cell::new(false),
            stopping: Cell::new(false),
            connections: Cell::new(0),
            active: Cell::new(0),
            waiting_for_end: Cell::new(None),
            waiting_for_room: RefCell::default(),
        })
    }

    /// Applies a plan's limits of memory and pipes.
    pub fn set_capacity(&self, capacity: &Capacity) {
        self.net.set_pipes_max(capacity.pipes_per_core_max);
        self.bound_memory(capacity.memory_per_core_max);
    }

    /// Limits connections of clients, all cores together.
    pub fn set_connections_max(&self, connections: u32) {
        self.connections_max.set(connections);
    }

    /// Lets the next tasks do costly work, because the core has run everything else.
    pub fn grant_work(&self) {
        self.handshake_queue.grant_next();
        self.work_queue.grant_next();
    }

    /// An identifier that no other exchange has.
    pub fn next_id(&self) -> RequestId {
        let (process, n) = self.ids.get();
        self.ids.set((process, n + 1));
        RequestId(process, n)
    }

    /// The current value of the field Date.
    pub fn date(&self) -> DateText {
        self.date.at(self.net.wall_ms())
    }

    /// Logs why a client's handshake failed, at most once per [`HANDSHAKE_LOG_INTERVAL_MS`]: anyone can make handshakes fail.
    pub fn log_client_handshake(&self, text: impl FnOnce() -> String) {
        if self.begin_interval(&self.client_handshake_logged) {
            self.obs.borrow().say(LogLevel::Info, &text());
        }
    }

    /// Reports to control why TLS with an endpoint failed, at most once per [`HANDSHAKE_LOG_INTERVAL_MS`].
    pub fn report_endpoint_tls(&self, endpoint: impl Display, cause: impl Display) {
        if self.begin_interval(&self.endpoint_handshake_reported) {
            self.obs.borrow().report(CoreReport::EndpointTlsFailed {
                endpoint: endpoint.to_string(),
                cause: cause.to_string(),
            });
        }
    }

    /// Whether [`HANDSHAKE_LOG_INTERVAL_MS`] are over since `last`. If they are, sets `last` to now.
    fn begin_interval(&self, last: &Cell<Option<Instant>>) -> bool {
        let now = self.net.now();
        let pause = Duration::from_millis(HANDSHAKE_LOG_INTERVAL_MS);
        let is_due = last.get().is_none_or(|last| now.since(last) >= pause);
        if is_due {
            last.set(Some(now));
        }
        is_due
    }

    /// Whether answers over HTTP/1.1 must announce the end of their connection.
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// From now on, answers over HTTP/1.1 announce the end of their connection.
    pub fn announce_end(&self) {
        self.ending.set(true);
    }

    /// Whether connections must end after their current exchange.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// From now on, connections end after their current exchange.
    pub fn drain(&self) {
        self.ending.set(true);
        self.draining.set(true);
        self.timers.wake_all();
        self.wake_end();
    }

    /// Whether the grace period is over, so that connections must end now.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Ends connections now.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.timers.wake_all();
    }

    /// Connections of this core.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    fn set_connections(&self, connections: usize) {
        let before = self.connections.replace(connections);
        self.counts
            .add(self.index, connections as i32 - before as i32);
    }

    /// Wakes the task when the core begins to drain, and whenever its last connection has ended.
    pub fn wait_for_end(&self, cx: &Context<'_>) {
        self.waiting_for_end.set(Some(cx.waker().clone()));
    }

    /// Wakes the task that waits for the core's end.
    pub fn wake_end(&self) {
        if let Some(waker) = self.waiting_for_end.take() {
            waker.wake();
        }
    }

    /// Whether this core may accept another connection: the core has memory, and all cores together have fewer
    /// connections than the plan allows.
    pub fn has_room(&self) -> bool {
        self.has_memory() && self.counts.total() < u64::from(self.connections_max.get())
    }

    /// Wakes the task once the core may accept another connection.
    pub fn wait_for_room(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting_for_room.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    /// Wakes the accepts that wait for room, if there is room. A connection that ends on another core makes room too.
    pub fn offer_room(&self) {
        if !self.waiting_for_room.borrow().is_empty() && self.has_room() {
            self.wake_accepts();
        }
    }

    /// Wakes the accepts that wait for room.
    pub fn wake_accepts(&self) {
        let waiting = self.waiting_for_room.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Counts a connection or stream as active until the returned value is dropped.
    pub fn activate(self: &Rc<Self>) -> ActiveConnection<N> {
        self.active.set(self.active.get() + 1);
        ActiveConnection {
            core: self.clone(),
            _charge: self.net.pool().charge(ACTIVE_CONNECTION_BYTES),
        }
    }

    /// Active connections and streams: those that are not idle.
    pub fn active(&self) -> usize {
        self.active.get()
    }
}

/// Counts one active connection or stream while it lives.
pub struct ActiveConnection<N: Net> {
    core: Rc<Core<N>>,
    _charge: Charge,
}

impl<N: Net> Drop for ActiveConnection<N> {
    fn drop(&mut self) {
        self.core.active.set(self.core.active.get() - 1);
    }
}

/// The instant `limit` after `now`; `NEVER` without a limit.
pub fn after(now: Instant, limit: Option<Duration>) -> Instant {
    limit.map_or(Instant::NEVER, |limit| now + limit)
}
