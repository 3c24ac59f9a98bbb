//! Whole cores under the simulator: a rig that runs them, and scripted clients and endpoints that know what they must
//! see.
//!
//! Clients and endpoints have their own HTTP code, so that no bug of Weir's hides itself.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::unwrap_used)]

pub mod auth;
pub mod client;
pub mod coding;
pub mod endpoint;
pub mod exchange;
pub mod http2;
pub mod message;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;

use weir::io::sim::{self, Sim, World};
use weir::obs::{CoreObs, CoreReport};
use weir::plan::{EndpointSets, ListenerId, Plan};
use weir::policy::Registry;
use weir::serving::{
    self, Command, CoreStart, EndpointBoard, Mailbox, MailboxSender, Receipts, SharedState,
};
use weir::tls::TicketKeys;
use weir::upstream::{EndpointStatus, UpstreamRegistry};
use weir_config::Config;

pub use endpoint::Ledger;

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Runs a test in `count` simulated worlds. Any panic fails it, even one that a core catches.
pub fn check(count: u64, test: impl Fn(&World)) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    sim::check(count, |world| {
        // Backoff jitter draws from `fastrand`.
        fastrand::seed(world.seed());
        PANICS.set(0);
        test(world);
        assert_eq!(PANICS.get(), 0, "a core caught a panic");
    });
}

/// Takes a report of one core.
type ReportReader = Box<dyn Fn() -> Option<CoreReport>>;

/// Running cores and their mailboxes.
pub struct Rig<'a> {
    pub world: &'a World,
    pub ledger: Ledger,
    readers: Vec<ReportReader>,
    mailboxes: Vec<MailboxSender<Sim>>,
    plan: RefCell<Arc<Plan>>,
    endpoints: RefCell<Arc<EndpointSets>>,
    board: Arc<EndpointBoard>,
    pub upstreams: Arc<UpstreamRegistry>,
    policies: RefCell<Registry>,
    /// What a test changes in each plan.
    change: fn(&World, &mut Plan),
}

impl<'a> Rig<'a> {
    /// Starts `cores` cores with a configuration.
    pub fn start(world: &'a World, cores: u32, config: &str) -> Self {
        Self::start_with(world, (0, cores), config, |_, _| {})
    }

    /// Like `start`, numbering the cores from `first`: a second process beside another.
    pub fn start_from(world: &'a World, first: u32, cores: u32, config: &str) -> Self {
        Self::start_with(world, (first, cores), config, |_, _| {})
    }

    /// Like `start_from`, with a change to the plan of each configuration.
    pub fn start_with(
        world: &'a World,
        (first, cores): (u32, u32),
        config: &str,
        change: fn(&World, &mut Plan),
    ) -> Self {
        let mut policies = Registry::default();
        policies.limits.set_cores(cores as usize);
        let (mut plan, endpoints) = compile(config, 1, &mut policies);
        change(world, &mut plan);
        let plan = Arc::new(plan);
        let (mailboxes, boxes): (Vec<_>, Vec<_>) = (first..first + cores)
            .map(|n| Mailbox::new(&world.core(n)).unwrap())
            .unzip();
        let shared = SharedState::new(mailboxes.clone());
        let mut readers: Vec<ReportReader> = Vec::new();
        for (mailbox, n) in boxes.into_iter().zip(first..) {
            let sockets = plan.listeners.iter().zip(0..).map(|(listener, id)| {
                let socket = world.listen(&listener.address);
                (ListenerId(id), socket)
            });
            let obs = CoreObs::detached(&plan, &endpoints);
            readers.push(Box::new(obs.report_reader()));
            let start = CoreStart {
                index: (n - first) as usize,
                plan: plan.clone(),
                endpoints: endpoints.clone(),
                obs,
                shared: shared.clone(),
                seed: world.seed() ^ u64::from(n),
                sockets: sockets.collect(),
                mailbox,
            };
            world.start(n, serving::run(world.core(n), start));
        }
        Self {
            world,
            ledger: Ledger::default(),
            readers,
            mailboxes,
            plan: RefCell::new(plan),
            endpoints: RefCell::new(endpoints),
            board: shared.board.clone(),
            upstreams: shared.upstreams.clone(),
            policies: RefCell::new(policies),
            change,
        }
    }

    /// Drains all cores. The world's `finish` then checks that nothing is left.
    pub fn drain(&self, grace: Duration) {
        for mail in &self.mailboxes {
            assert!(mail.send(Command::Drain { grace }).is_ok());
        }
    }

    /// Reloads the configuration as control does, with sockets for new listeners. The receipts tell when all cores use
    /// it.
    pub fn reload(&self, config: &str) -> Receipts {
        let (receipt, receipts) = Receipts::new();
        let old = self.plan.borrow().clone();
        let (mut new, endpoints) = compile(config, old.epoch + 1, &mut self.policies.borrow_mut());
        (self.change)(self.world, &mut new);
        let new = Arc::new(new);
        for mail in &self.mailboxes {
            let fresh = new.listeners.iter().zip(0..).filter(|(listener, _)| {
                let mut before = old.listeners.iter();
                !before.any(|other| other.address == listener.address)
            });
            let sockets =
                fresh.map(|(listener, id)| (ListenerId(id), self.world.listen(&listener.address)));
            let command = Command::Plan {
                plan: new.clone(),
                endpoints: endpoints.clone(),
                sockets: sockets.collect(),
                receipt: receipt.clone(),
            };
            assert!(mail.send(command).is_ok());
        }
        *self.plan.borrow_mut() = new;
        *self.endpoints.borrow_mut() = endpoints;
        receipts
    }

    /// Resolves names of a configuration to these addresses as control does: only endpoints change, and only on cores
    /// that run the plan of `epoch`. The receipts tell when all cores use them.
    pub fn resolve(&self, config: &str, epoch: u64, names: &[(&str, [u8; 4])]) -> Receipts {
        let (receipt, receipts) = Receipts::new();
        let old = self.endpoints.borrow().clone();
        let mut new = resolve(&parse(config), names);
        new.share_unchanged(&old);
        new.epoch = old.epoch + 1;
        let new = Arc::new(new);
        for mail in &self.mailboxes {
            let command = Command::Endpoints {
                endpoints: new.clone(),
                epoch,
                receipt: receipt.clone(),
            };
            assert!(mail.send(command).is_ok());
        }
        *self.endpoints.borrow_mut() = new;
        receipts
    }

    /// Like `resolve`, through the board alone, without a command to any core.
    pub fn post(&self, config: &str, names: &[(&str, [u8; 4])]) {
        let mut new = resolve(&parse(config), names);
        new.epoch = self.endpoints.borrow().epoch + 1;
        let new = Arc::new(new);
        self.board.post(self.epoch(), new.clone());
        *self.endpoints.borrow_mut() = new;
    }

    /// Posts the status of an endpoint as control does, and rings all cores.
    pub fn set_status(&self, upstream: &str, endpoint: &str, status: EndpointStatus) {
        let (upstream, endpoint) = (upstream.into(), endpoint.into());
        self.upstreams.set_status(&upstream, &endpoint, status);
        self.mailboxes.iter().for_each(MailboxSender::ring);
    }

    /// Takes all that cores have reported.
    pub fn reports(&self) -> Vec<CoreReport> {
        let all = self.readers.iter();
        all.flat_map(std::iter::from_fn).collect()
    }

    /// Fills every core's mailbox with commands that change nothing.
    pub fn fill_mailboxes(&self) {
        for mail in &self.mailboxes {
            let (receipt, _) = Receipts::new();
            let answer = || Command::Answer {
                _receipt: receipt.clone(),
            };
            while mail.send(answer()).is_ok() {}
        }
    }

    /// The epoch of the current plan.
    pub fn epoch(&self) -> u64 {
        self.plan.borrow().epoch
    }

    /// Runs until `count` is zero.
    pub fn run_until_zero(&self, count: &Rc<Cell<usize>>) {
        self.world.run_until(|| count.get() == 0);
    }
}

fn parse(config: &str) -> Config {
    let parsed = weir_config::parse("sim.toml", config);
    parsed
        .unwrap_or_else(|errors| panic!("{}", weir_config::to_text(&errors)))
        .0
}

/// Compiles the endpoints of a configuration. Names that `names` lacks have no address.
fn resolve(config: &Config, names: &[(&str, [u8; 4])]) -> EndpointSets {
    let look_up = |host: &str, port: u16| {
        let found = names.iter().filter(|(name, _)| *name == host);
        Ok(found.map(|(_, ip)| (*ip, port).into()).collect())
    };
    EndpointSets::compile(config, &look_up).unwrap()
}

fn compile(config: &str, epoch: u64, policies: &mut Registry) -> (Plan, Arc<EndpointSets>) {
    let config = parse(config);
    let mut plan = Plan::compile(&config).unwrap();
    let mut endpoints = resolve(&config, &[]);
    let (tls, _) = weir::tls::load(&config, Some(&TicketKeys::default()), "sim.toml")
        .unwrap_or_else(|errors| panic!("{}", weir_config::to_text(&errors)));
    plan.equip(&tls);
    plan.states.equip(policies);
    (plan.epoch, endpoints.epoch) = (epoch, epoch);
    (plan, Arc::new(endpoints))
}
