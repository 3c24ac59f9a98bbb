//! Whole cores under the simulator: a rig that runs them, scripted clients and endpoints that know what they must see.
//!
//! Clients and endpoints speak HTTP by means of their own, so that Weir is not measured against itself.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::unwrap_used)]

pub mod client;
pub mod endpoint;
pub mod http2;
pub mod message;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;

use weir::io::sim::{self, Sim, World};
use weir::obs::CoreObs;
use weir::plan::{EndpointSets, ListenerId, Plan};
use weir::serving::{
    self, Command, CoreStart, EndpointBoard, Mailbox, MailboxSender, Receipts, SharedState,
};
use weir::tls::TicketKeys;
use weir_config::Config;

pub use endpoint::Ledger;

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Runs a test in many worlds. A panic anywhere fails it, also one that a core has caught.
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
        // Backoff jitter comes from there.
        fastrand::seed(world.seed());
        PANICS.set(0);
        test(world);
        assert_eq!(PANICS.get(), 0, "something panicked and was caught");
    });
}

/// Running cores and the way to command them.
pub struct Rig<'a> {
    pub world: &'a World,
    pub ledger: Ledger,
    mails: Vec<MailboxSender<Sim>>,
    plan: RefCell<Arc<Plan>>,
    endpoints: RefCell<Arc<EndpointSets>>,
    board: Arc<EndpointBoard>,
}

impl<'a> Rig<'a> {
    /// Starts cores with a configuration.
    pub fn start(world: &'a World, cores: u32, config: &str) -> Self {
        Self::start_from(world, 0, cores, config)
    }

    /// The same with the cores from this one on: another process beside others.
    pub fn start_from(world: &'a World, first: u32, cores: u32, config: &str) -> Self {
        let (plan, endpoints) = compile(config, 1);
        let (mails, boxes): (Vec<_>, Vec<_>) = (first..first + cores)
            .map(|n| Mailbox::new(&world.core(n)).unwrap())
            .unzip();
        let shared = SharedState::new(mails.clone());
        for (mailbox, n) in boxes.into_iter().zip(first..) {
            let sockets = plan.listeners.iter().zip(0..).map(|(listener, id)| {
                let socket = world.listen(&listener.address);
                (ListenerId(id), socket)
            });
            let start = CoreStart {
                index: (n - first) as usize,
                plan: plan.clone(),
                endpoints: endpoints.clone(),
                obs: CoreObs::detached(&plan, &endpoints),
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
            mails,
            plan: RefCell::new(plan),
            endpoints: RefCell::new(endpoints),
            board: shared.board.clone(),
        }
    }

    /// Lets exchanges finish and then ends; `finish` of the world checks that nothing is left.
    pub fn drain(&self, grace: Duration) {
        for mail in &self.mails {
            assert!(mail.send(Command::Drain { grace }).is_ok());
        }
    }

    /// Changes to another configuration, as control does it: sockets for the listeners that are new. What is returned
    /// tells when all cores run it.
    pub fn reload(&self, config: &str) -> Receipts {
        let (receipt, receipts) = Receipts::new();
        let old = self.plan.borrow().clone();
        let (new, endpoints) = compile(config, old.epoch + 1);
        for mail in &self.mails {
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

    /// Has names of a configuration resolve to these addresses, as control does it: endpoints alone change, and only on
    /// cores that run the plan of `epoch`. What is returned tells when all cores use them.
    pub fn resolve(&self, config: &str, epoch: u64, names: &[(&str, [u8; 4])]) -> Receipts {
        let (receipt, receipts) = Receipts::new();
        let old = self.endpoints.borrow().clone();
        let mut new = resolve(&parse(config), names);
        new.share_unchanged(&old);
        new.epoch = old.epoch + 1;
        let new = Arc::new(new);
        for mail in &self.mails {
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

    /// The same by the board alone: no core gets a command.
    pub fn post(&self, config: &str, names: &[(&str, [u8; 4])]) {
        let mut new = resolve(&parse(config), names);
        new.epoch = self.endpoints.borrow().epoch + 1;
        let new = Arc::new(new);
        self.board.post(self.epoch(), new.clone());
        *self.endpoints.borrow_mut() = new;
    }

    /// The epoch of the plan that cores run.
    pub fn epoch(&self) -> u64 {
        self.plan.borrow().epoch
    }

    /// Runs until `count` has come down to nothing.
    pub fn run_down(&self, count: &Rc<Cell<usize>>) {
        self.world.run_until(|| count.get() == 0);
    }
}

fn parse(config: &str) -> Config {
    let parsed = weir_config::parse("sim.toml", config);
    parsed
        .unwrap_or_else(|errors| panic!("{}", weir_config::to_text(&errors)))
        .0
}

/// The endpoints of a configuration; a name that is not among `names` has no address.
fn resolve(config: &Config, names: &[(&str, [u8; 4])]) -> EndpointSets {
    let look_up = |host: &str, port: u16| {
        let found = names.iter().filter(|(name, _)| *name == host);
        Ok(found.map(|(_, ip)| (*ip, port).into()).collect())
    };
    EndpointSets::compile(config, &look_up).unwrap()
}

fn compile(config: &str, epoch: u64) -> (Arc<Plan>, Arc<EndpointSets>) {
    let config = parse(config);
    let mut plan = Plan::compile(&config).unwrap();
    let mut endpoints = resolve(&config, &[]);
    let (tls, _) = weir::tls::load(&config, Some(&TicketKeys::default()), "sim.toml")
        .unwrap_or_else(|errors| panic!("{}", weir_config::to_text(&errors)));
    plan.equip(&tls);
    (plan.epoch, endpoints.epoch) = (epoch, epoch);
    (Arc::new(plan), Arc::new(endpoints))
}
