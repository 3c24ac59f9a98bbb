//! One core that serves: its plan, its listeners, its mailbox.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::accept::OpenListener;
use super::boot::SharedState;
use super::mailbox::{Command, Mailbox, MailboxSender, Receipt};
use crate::core::Core;
use crate::exchange::CorePlan;
use crate::io::Net;
use crate::limits::{HOUSEKEEPING_MS, TIMER_TICK_MS};
use crate::obs::CoreObs;
use crate::plan::{ListenerId, Plan};
use crate::tls;
use crate::upstream::CoreUpstreams;

/// One core that serves clients.
pub struct CoreServer<N: Net> {
    /// What every layer needs of the core.
    pub core: Rc<Core<N>>,
    /// How this core reaches the others.
    pub(super) shared: Arc<SharedState<N>>,
    pub(super) listeners: RefCell<Vec<OpenListener<N>>>,
    /// This core's connections to endpoints.
    pub(super) upstreams: Rc<CoreUpstreams<N>>,
    plan: RefCell<Rc<CorePlan<N>>>,
    seed: u64,
}

impl<N: Net> CoreServer<N> {
    /// Makes a core that serves. `seed` differs by core and process.
    pub(super) fn new(
        net: N,
        index: usize,
        plan: Arc<Plan>,
        obs: CoreObs,
        shared: Arc<SharedState<N>>,
        seed: u64,
    ) -> Rc<Self> {
        let own = shared.senders.get(index).cloned();
        let core = Core::new(net, (index, shared.counts.clone()), obs, seed, move || {
            own.iter().for_each(MailboxSender::ring);
        });
        core.set_capacity(&plan.capacity);
        let upstreams = CoreUpstreams::new(
            (index, shared.cores()),
            shared.upstreams.clone(),
            core.obs.clone(),
            shared.notice_sender(),
        );
        Rc::new(Self {
            plan: RefCell::new(Rc::new(CorePlan::new(plan, None, seed, &upstreams))),
            core,
            shared,
            listeners: RefCell::default(),
            upstreams,
            seed,
        })
    }

    /// The current plan: a new exchange takes it and keeps it to its end.
    pub fn plan(&self) -> Rc<CorePlan<N>> {
        self.plan.borrow().clone()
    }

    /// Runs the core until it drains and its last connection and listener are gone.
    pub(super) async fn run(self: Rc<Self>, mailbox: Mailbox<N>) {
        let net = &self.core.net;
        net.spawn(self.clone().keep_time());
        net.spawn(self.upstreams.clone().watch_idle());
        net.spawn(self.clone().keep_house());
        net.spawn(mailbox.serve(self.clone()));
        poll_fn(|cx| {
            let core = &self.core;
            if core.is_draining() && core.connections() == 0 && self.listeners.borrow().is_empty() {
                return Poll::Ready(());
            }
            core.wait_for_end(cx);
            Poll::Pending
        })
        .await;
    }

    /// Fires timers and watches memory, every tick for as long as the core lives.
    async fn keep_time(self: Rc<Self>) {
        let core = &self.core;
        loop {
            let tick = core.net.now() + Duration::from_millis(TIMER_TICK_MS);
            core.net.sleep_until(tick).await;
            core.timers.fire(core.net.now());
            self.upstreams.look(core.net.now());
            core.keep_within_memory();
            // Connections that end on other cores make room here too.
            core.offer_room();
        }
    }

    /// Closes old idle connections and gives spare memory back, about once a second.
    async fn keep_house(self: Rc<Self>) {
        let core = &self.core;
        loop {
            let then = core.net.now() + Duration::from_millis(HOUSEKEEPING_MS);
            core.net.sleep_until(then).await;
            self.upstreams.close_old(core.net.now());
            core.net.pool().trim();
            core.obs
                .borrow()
                .pool_used(core.net.pool().live_bytes() as u64);
        }
    }

    /// Does what control commands.
    pub(super) fn obey(self: &Rc<Self>, command: Command<N::Socket>) {
        match command {
            Command::Plan {
                plan,
                sockets,
                receipt,
            } => self.change_plan(plan, sockets, &receipt),
            Command::Tls { tls, epoch, .. } => self.change_tls(&tls, epoch),
            Command::Answer { .. } => {}
            Command::AnnounceEnd => self.core.announce_end(),
            Command::Drain { grace } => self.drain(grace),
            Command::Stop => {
                self.drain(Duration::ZERO);
                self.core.stop();
            }
        }
    }

    /// Replaces the plan. Current exchanges keep theirs; listeners that stay remain open.
    fn change_plan(
        self: &Rc<Self>,
        plan: Arc<Plan>,
        sockets: Vec<(ListenerId, N::Socket)>,
        receipt: &Receipt,
    ) {
        let old = self.plan();
        let new = Rc::new(CorePlan::new(plan, Some(&old), self.seed, &self.upstreams));
        old.retire_missing(&new);
        self.core.obs.borrow_mut().plan_changed(&new.plan);
        *self.plan.borrow_mut() = new.clone();
        self.core.set_capacity(&new.plan.capacity);
        drop(old);
        self.upstreams.forget_unused();
        self.renumber_listeners(&new.plan, receipt);
        self.open_listeners(sockets);
    }

    /// Replaces certificates and keys. Open connections keep theirs.
    fn change_tls(&self, tls: &tls::LoadedTls, epoch: u64) {
        let plan = self.plan();
        if plan.plan.epoch != epoch {
            return;
        }
        self.equip_listeners(tls);
        for (upstream, client) in plan.upstreams.iter().zip(&tls.clients) {
            upstream.equip(client.as_deref());
        }
    }

    /// Closes all listeners and lets connections end after their current exchange, within `grace`.
    fn drain(self: &Rc<Self>, grace: Duration) {
        self.core.drain();
        self.close_listeners();
        let core = self.core.clone();
        self.core.net.spawn(async move {
            core.net.sleep_until(core.net.now() + grace).await;
            core.stop();
        });
    }
}
