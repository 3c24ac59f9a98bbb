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
use crate::plan::{EndpointSets, ListenerId, Plan};
use crate::policy::State;
use crate::tls;
use crate::upstream::CoreUpstreams;

/// One core that serves clients.
pub struct CoreServer<N: Net> {
    /// The part of the core that every layer uses.
    pub core: Rc<Core<N>>,
    /// The state that all cores share, with their mailboxes.
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
        (plan, endpoints): (Arc<Plan>, Arc<EndpointSets>),
        obs: CoreObs,
        shared: Arc<SharedState<N>>,
        seed: u64,
    ) -> Rc<Self> {
        let own = shared.senders.get(index).cloned();
        let core = Core::new(net, (index, shared.counts.clone()), obs, seed, move || {
            own.iter().for_each(MailboxSender::ring);
        });
        core.set_capacity(&plan.capacity);
        core.set_connections_max(plan.client_connections_max(&endpoints));
        let upstreams = CoreUpstreams::new(
            index,
            shared.upstreams.clone(),
            core.obs.clone(),
            shared.notice_sender(),
        );
        Rc::new(Self {
            plan: RefCell::new(Rc::new(CorePlan::new(
                plan, endpoints, None, seed, &upstreams,
            ))),
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
        // What policies keep goes with the core.
        self.core.count_kept(0);
    }

    /// Fires timers and checks the memory limit, every tick for as long as the core lives.
    async fn keep_time(self: Rc<Self>) {
        let core = &self.core;
        loop {
            let tick = core.net.now() + Duration::from_millis(TIMER_TICK_MS);
            core.net.sleep_until(tick).await;
            core.timers.fire(core.net.now());
            self.upstreams.tick(core.net.now());
            self.upstreams.check_waiting(core.net.now());
            core.count_kept(State::kept_bytes(&self.plan().states));
            core.shed_memory();
            // A connection that has ended on another core leaves room for an accept here.
            core.offer_room();
        }
    }

    /// Closes idle connections that have expired, returns spare memory and reads the board, about once a second.
    async fn keep_house(self: Rc<Self>) {
        let core = &self.core;
        loop {
            let then = core.net.now() + Duration::from_millis(HOUSEKEEPING_MS);
            core.net.sleep_until(then).await;
            self.upstreams.close_expired(core.net.now());
            core.net.pool().trim();
            self.plan().states.iter().for_each(|state| state.trim());
            self.read_board();
            core.obs
                .borrow()
                .pool_used(core.net.pool().live_bytes() as u64);
        }
    }

    /// Executes a command from control.
    pub(super) fn execute(self: &Rc<Self>, command: Command<N::Socket>) {
        match command {
            Command::Plan {
                plan,
                endpoints,
                sockets,
                receipt,
            } => self.change_plan(plan, endpoints, sockets, &receipt),
            Command::Endpoints {
                endpoints, epoch, ..
            } => self.change_endpoints(endpoints, epoch),
            Command::Tls { tls, epoch, .. } => self.change_tls(&tls, epoch),
            Command::Answer { .. } => {}
            Command::ShareListeners { to } => self.share_listeners(&to),
            Command::LeaveListeners { .. } => self.leave_listeners(),
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
        endpoints: Arc<EndpointSets>,
        sockets: Vec<(ListenerId, N::Socket)>,
        receipt: &Receipt,
    ) {
        let (old, upstreams) = (self.plan(), &self.upstreams);
        let new = CorePlan::new(plan, endpoints, Some(&old), self.seed, upstreams);
        let new = self.replace_plan(old, new);
        self.core.set_capacity(&new.plan.capacity);
        self.renumber_listeners(&new.plan, receipt);
        self.open_listeners(sockets);
    }

    /// Takes the endpoints from the board, if the command with them did not reach this core.
    fn read_board(&self) {
        let epoch = self.plan.borrow().endpoints.epoch;
        if let Some(posted) = self.shared.board.newer_than(epoch) {
            self.change_endpoints(posted.endpoints, posted.plan_epoch);
        }
    }

    /// Replaces the endpoint sets by newer ones of the same plan. Current exchanges keep theirs. An upstream whose set
    /// is the same stays as it is.
    fn change_endpoints(&self, endpoints: Arc<EndpointSets>, plan_epoch: u64) {
        let old = self.plan();
        if old.plan.epoch == plan_epoch && old.endpoints.epoch < endpoints.epoch {
            let new = old.with_endpoints(endpoints, self.seed);
            self.replace_plan(old, new);
        }
    }

    /// Makes `new` the current plan, and retires the upstreams and endpoints that only `old` has.
    fn replace_plan(&self, old: Rc<CorePlan<N>>, new: CorePlan<N>) -> Rc<CorePlan<N>> {
        old.retire_missing(&new);
        let (plan, endpoints) = (&new.plan, &new.endpoints);
        self.core.obs.borrow_mut().plan_changed(plan, endpoints);
        let connections_max = plan.client_connections_max(endpoints);
        self.core.set_connections_max(connections_max);
        let new = Rc::new(new);
        *self.plan.borrow_mut() = new.clone();
        drop(old);
        self.upstreams.forget_unused();
        new
    }

    /// Replaces certificates and keys. Open connections keep theirs.
    fn change_tls(&self, tls: &tls::LoadedTls, epoch: u64) {
        let plan = self.plan();
        if plan.plan.epoch != epoch {
            return;
        }
        self.equip_listeners(tls);
        for (upstream, client) in plan.upstreams.iter().zip(&tls.clients) {
            upstream.set_client_tls(client.as_deref());
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
