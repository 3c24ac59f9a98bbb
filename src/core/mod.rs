//! One core: a pinned thread and all that it owns.
//!
//! [`Core`] is the one struct that tasks of a core share; it is passed explicitly and never leaves its thread. Other
//! threads reach it through its [`Mailbox`] only.

mod accept;
mod boot;
mod clients;
mod date;
mod mailbox;
mod share;
mod timers;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub use boot::{CoreSpec, Cores, Shared, run};
pub use clients::Clients;
pub use date::DateText;
pub use mailbox::{Command, Mail, Mailbox, Receipt, Receipts};
pub use share::Share;
pub use timers::{Timer, Timers};

use crate::io::{Charge, Instant, Net};
use crate::limits::{
    CONVERSATION_BYTES, HANDSHAKE_TOLD_MS, HOUSEKEEPING_MS, POOL_SHARE, TIMER_TICK_MS,
};
use crate::obs::{CoreObs, LogLevel, RequestId};
use crate::plan::{ListenerId, Plan};
use crate::tls::{self, HandshakeQueue};
use crate::upstream::{Places, Reaper, Upstream};
pub use accept::{Door, Pass};
use date::DateCache;

/// What one core owns.
pub struct Core<N: Net> {
    /// The world.
    pub net: N,
    /// Deadlines of all connections.
    pub timers: Rc<Timers>,
    /// Closes idle upstream connections.
    pub reaper: Rc<Reaper<N>>,
    /// Its places at endpoints, and who waits for one.
    places: Rc<Places<N>>,
    /// Counters and the access log.
    pub obs: Rc<RefCell<CoreObs>>,
    /// Whose turn it is to make a step of a handshake.
    pub handshake_queue: Rc<HandshakeQueue>,
    /// What the task that runs may still do before others have their turn.
    pub share: Share,
    /// What all cores share: limits of the whole box.
    pub shared: Arc<Shared<N>>,
    /// This core's place among them.
    pub index: usize,
    /// When a failed handshake with a client, and with an endpoint, was last put into the process log: what the
    /// world tries at the front hides nothing of what fails behind.
    told_of_clients: Cell<Option<Instant>>,
    told_of_endpoints: Cell<Option<Instant>>,
    plan: RefCell<Rc<CorePlan<N>>>,
    doors: RefCell<Vec<Rc<Door<N>>>>,
    ids: Cell<(u64, u64)>,
    date: DateCache,
    /// Memory that connections may take.
    memory_max: Cell<usize>,
    /// More than half of it is taken.
    tight: Cell<bool>,
    /// More than this, and that changes.
    tight_mark: Cell<usize>,
    /// Who goes on when there is memory again.
    waiting_for_memory: RefCell<Vec<Waker>>,
    /// Answers say that connections end after them.
    ending: Cell<bool>,
    draining: Cell<bool>,
    stopping: Cell<bool>,
    connections: Cell<usize>,
    conversations: Cell<usize>,
    waiting_for_end: Cell<Option<Waker>>,
    /// Accepts that wait until there are fewer connections.
    waiting_for_room: RefCell<Vec<Waker>>,
}

/// The plan with this core's side of it. Exchanges hold on to the one they began with.
pub struct CorePlan<N: Net> {
    /// The plan that all cores run.
    pub plan: Arc<Plan>,
    /// This core's upstreams, by `UpstreamId`.
    pub upstreams: Vec<Rc<Upstream<N>>>,
}

impl<N: Net> Core<N> {
    /// Makes a core; `seed` differs per core and process.
    pub fn new(
        net: N,
        index: usize,
        plan: Arc<Plan>,
        obs: CoreObs,
        shared: Arc<Shared<N>>,
        seed: u64,
    ) -> Rc<Self> {
        let obs = Rc::new(RefCell::new(obs));
        let mail = shared.mails.get(index).cloned();
        let places = Places::new(
            (index, shared.cores()),
            shared.upstreams.clone(),
            obs.clone(),
            shared.poster(),
        );
        Rc::new(Self {
            handshake_queue: HandshakeQueue::new(move || mail.iter().for_each(Mail::ring)),
            timers: Rc::default(),
            reaper: Rc::default(),
            share: Share::default(),
            told_of_clients: Cell::new(None),
            told_of_endpoints: Cell::new(None),
            plan: RefCell::new(Rc::new(CorePlan::new(plan, None, seed, &places))),
            places,
            obs,
            doors: RefCell::default(),
            ids: Cell::new((seed, 0)),
            date: DateCache::default(),
            memory_max: Cell::new(0),
            tight: Cell::new(false),
            tight_mark: Cell::new(0),
            waiting_for_memory: RefCell::default(),
            ending: Cell::new(false),
            draining: Cell::new(false),
            stopping: Cell::new(false),
            connections: Cell::new(0),
            conversations: Cell::new(0),
            waiting_for_end: Cell::new(None),
            waiting_for_room: RefCell::default(),
            net,
            shared,
            index,
        })
    }

    /// The plan for an exchange that begins now.
    pub fn plan(&self) -> Rc<CorePlan<N>> {
        self.plan.borrow().clone()
    }

    /// An identifier for an exchange, unlike any other's.
    pub fn next_id(&self) -> RequestId {
        let (process, n) = self.ids.get();
        self.ids.set((process, n + 1));
        RequestId(process, n)
    }

    /// The field Date of an answer that begins now.
    pub fn date(&self) -> DateText {
        self.date.at(self.net.wall_ms())
    }

    /// Says in the process log why a handshake failed; only now and then, as anybody can have handshakes fail.
    pub fn tell_handshake(&self, level: LogLevel, text: impl FnOnce() -> String) {
        let now = self.net.now();
        let pause = Duration::from_millis(HANDSHAKE_TOLD_MS);
        let told = match level {
            LogLevel::Info => &self.told_of_clients,
            _ => &self.told_of_endpoints,
        };
        if told.get().is_none_or(|last| now.since(last) >= pause) {
            told.set(Some(now));
            self.obs.borrow().say(level, &text());
        }
    }

    /// Whether answers over HTTP/1.1 are to say that their connection ends.
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Whether connections are to end after the exchange that they are in.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether the grace period is over: connections are to end now.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Runs the core until it has been told to stop or drain and its last connection has ended.
    ///
    /// # Errors
    /// The mailbox's doorbell cannot be made.
    pub async fn run(self: Rc<Self>, mailbox: Mailbox<N>) {
        self.bound_memory();
        self.net.spawn(self.clone().keep_time());
        self.net.spawn(self.reaper.clone().run());
        self.net.spawn(self.clone().keep_house());
        self.net.spawn(mailbox.serve(self.clone()));
        poll_fn(|cx| {
            if self.draining.get() && self.connections.get() == 0 && self.doors.borrow().is_empty()
            {
                return Poll::Ready(());
            }
            self.waiting_for_end.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Serves timers, and looks after memory, for as long as the core lives.
    async fn keep_time(self: Rc<Self>) {
        loop {
            let tick = self.net.now() + Duration::from_millis(TIMER_TICK_MS);
            self.net.sleep_until(tick).await;
            self.timers.fire(self.net.now());
            self.places.look(self.net.now());
            self.keep_within_memory();
            // Those that end on other cores make room as well.
            self.offer_room();
        }
    }

    /// Takes over what the plan says of memory.
    fn bound_memory(&self) {
        let max = self.plan.borrow().plan.capacity.memory_per_core_max;
        self.memory_max.set(max);
        self.tight_mark
            .set(if self.tight.get() { max / 4 } else { max / 2 });
        self.net.pool().bound(max);
        self.net.pool().keep(max / POOL_SHARE);
    }

    /// Whether more may be taken in. What is on its way to be dropped or answered needs no leave.
    #[inline]
    pub fn has_memory(&self) -> bool {
        self.net.pool().has_room()
    }

    /// Whether more may be taken in; if not, the task is woken when it may.
    #[inline]
    pub fn may_take_memory(&self, cx: &Context<'_>) -> bool {
        self.has_memory() || {
            self.wait_for_memory(cx);
            false
        }
    }

    /// Has the task woken when more may be taken in.
    pub fn wait_for_memory(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting_for_memory.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    /// Notices when memory becomes short, after each poll of a task: from then on connections say what they hold.
    #[inline]
    pub fn look_at_memory(&self) {
        if !self.tight.get() && self.net.pool().taken_bytes() > self.tight_mark.get() {
            self.tight.set(true);
            self.tight_mark.set(self.memory_max.get() / 4);
            self.timers.wake_all();
        }
    }

    /// Has the connections that hold most end when all take more memory than they may. Nothing more is taken in
    /// meanwhile, so that it need not be at once.
    fn keep_within_memory(&self) {
        self.look_at_memory();
        let (max, taken) = (self.memory_max.get(), self.net.pool().taken_bytes());
        // It ends later than it begins: else a load around one mark would wake everybody again and again.
        if self.tight.get() && taken <= self.tight_mark.get() {
            self.tight.set(false);
            self.tight_mark.set(max / 2);
            self.timers.forget_held();
        }
        if taken >= max && self.tight.get() {
            let told = self.timers.shed(taken, max / 4 * 3);
            self.obs.borrow().shed(told);
        } else {
            let waiting = self.waiting_for_memory.take();
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether connections are to say what they hold.
    #[inline]
    pub fn is_tight(&self) -> bool {
        self.tight.get()
    }

    /// What is done about once a second.
    async fn keep_house(self: Rc<Self>) {
        loop {
            let then = self.net.now() + Duration::from_millis(HOUSEKEEPING_MS);
            self.net.sleep_until(then).await;
            self.reaper.close_old(self.net.now());
            self.net.pool().trim();
            self.obs
                .borrow()
                .pool_used(self.net.pool().live_bytes() as u64);
        }
    }

    fn obey(self: &Rc<Self>, command: Command<N::Socket>) {
        match command {
            Command::Plan {
                plan,
                sockets,
                receipt,
            } => self.change_plan(plan, sockets, &receipt),
            Command::Tls { tls, epoch, .. } => self.change_tls(&tls, epoch),
            Command::Answer { .. } => {}
            Command::AnnounceEnd => self.ending.set(true),
            Command::Drain { grace } => self.drain(grace),
            Command::Stop => {
                self.drain(Duration::ZERO);
                self.stop();
            }
        }
    }

    /// Swaps the plan. Exchanges under way keep theirs; listeners that stay are not touched.
    fn change_plan(
        self: &Rc<Self>,
        plan: Arc<Plan>,
        sockets: Vec<(ListenerId, N::Socket)>,
        receipt: &Receipt,
    ) {
        let old = self.plan();
        let seed = self.ids.get().0;
        let new = Rc::new(CorePlan::new(plan, Some(&old), seed, &self.places));
        for upstream in &old.upstreams {
            upstream.retire_missing(
                new.upstreams
                    .iter()
                    .find(|u| u.name == upstream.name)
                    .map(Rc::as_ref),
            );
        }
        self.net.set_pipes_max(new.plan.capacity.pipes_per_core_max);
        self.obs.borrow_mut().plan_changed(&new.plan);
        *self.plan.borrow_mut() = new.clone();
        self.bound_memory();
        drop(old);
        self.places.forget_unused();
        self.renumber_doors(&new.plan, receipt);
        self.open_doors(sockets);
    }

    /// Swaps certificates and keys. Connections that are open keep theirs.
    fn change_tls(&self, tls: &tls::LoadedTls, epoch: u64) {
        let plan = self.plan();
        if plan.plan.epoch != epoch {
            return;
        }
        self.equip_doors(tls);
        for (upstream, client) in plan.upstreams.iter().zip(&tls.clients) {
            upstream.equip(client.as_deref());
        }
    }

    fn drain(self: &Rc<Self>, grace: Duration) {
        self.ending.set(true);
        self.draining.set(true);
        self.close_doors();
        self.timers.wake_all();
        self.wake_waiter();
        let core = self.clone();
        self.net.spawn(async move {
            core.net.sleep_until(core.net.now() + grace).await;
            core.stop();
        });
    }

    fn stop(&self) {
        self.stopping.set(true);
        self.timers.wake_all();
    }

    fn wake_waiter(&self) {
        if let Some(waker) = self.waiting_for_end.take() {
            waker.wake();
        }
    }

    /// Counts a conversation for as long as what is returned lives.
    pub fn conversation(self: &Rc<Self>) -> Conversation<N> {
        self.conversations.set(self.conversations.get() + 1);
        Conversation {
            core: self.clone(),
            _taken: self.net.pool().charge(CONVERSATION_BYTES),
        }
    }

    /// Conversations under way: connections that are not at rest.
    pub fn conversations(&self) -> usize {
        self.conversations.get()
    }
}

impl<N: Net> CorePlan<N> {
    fn new(plan: Arc<Plan>, old: Option<&Self>, seed: u64, places: &Rc<Places<N>>) -> Self {
        let upstreams = plan.upstreams.iter().enumerate().map(|(i, upstream)| {
            let old = old.and_then(|old| old.upstreams.iter().find(|u| u.name == upstream.name));
            let id = crate::plan::UpstreamId(i as u32);
            let old = old.map(Rc::as_ref);
            Rc::new(Upstream::new(id, upstream, old, seed, places))
        });
        Self {
            upstreams: upstreams.collect(),
            plan,
        }
    }
}

/// One conversation, counted.
pub struct Conversation<N: Net> {
    core: Rc<Core<N>>,
    _taken: Charge,
}

impl<N: Net> Drop for Conversation<N> {
    fn drop(&mut self) {
        self.core
            .conversations
            .set(self.core.conversations.get() - 1);
    }
}

/// A deadline in milliseconds from `now`; `NEVER` if there is none.
pub fn after(now: Instant, limit: Option<Duration>) -> Instant {
    limit.map_or(Instant::NEVER, |limit| now + limit)
}
