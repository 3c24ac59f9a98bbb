//! The world as tests see it: a test makes it from a seed, runs it, and checks at the end that nothing was left behind.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Duration;

use super::exec::{TaskId, TaskWaker};
use super::faults::{Faults, Reach};
use super::kernel::SharedKernel;
use super::net::{Sim, SimSocket};
use super::peer::Peer;
use super::rng::Rng;
use super::trace::{Actor, What};
use crate::io::{Address, Instant, Net, Pool};
use crate::limits::SHARE_STEPS;

/// A run fails after this many scheduler steps, unless the test sets another limit.
const STEPS_MAX: u64 = 5_000_000;

/// A run fails after this much virtual time.
const RUN_MAX: Duration = Duration::from_secs(3600);

/// How much virtual time cores get to end after a test.
const END_MAX: Duration = Duration::from_secs(600);

/// How often in a row a task may wake itself. On a real core nothing else would run meanwhile.
const SPINS_MAX: u32 = 100;

/// How many receives and sends a task may start in one turn. A full share of a body's pieces, each received and sent
/// alone, comes closest to this.
const BEGUN_MAX: u32 = 2 * SHARE_STEPS + 64;

/// How often a task may read the clock in one turn.
const LOOKS_MAX: u32 = 1_000_000;

/// Runs a test in `count` worlds with seeds from 0, and ends each with [`World::finish`].
///
/// `WEIR_SEED=n` runs one seed; `WEIR_SEEDS=n` replaces `count`.
///
/// # Panics
/// If the test panics. The report names the seed and shows the last events.
pub fn check(count: u64, test: impl Fn(&World)) {
    for seed in seeds(count) {
        let world = World::new(seed);
        let run = catch_unwind(AssertUnwindSafe(|| {
            test(&world);
            world.finish();
        }));
        if let Err(panic) = run {
            eprintln!("{}", world.report());
            resume_unwind(panic);
        }
    }
}

/// The seeds to run: `0..count`, unless `WEIR_SEED` or `WEIR_SEEDS` says otherwise.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    match number("WEIR_SEED") {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..number("WEIR_SEEDS").unwrap_or(count),
    }
}

/// Parses an address such as `10.0.0.1:80` or `unix:/path`.
///
/// # Panics
/// If `text` is not an address.
pub fn at(text: &str) -> Address {
    match (text.strip_prefix("unix:"), text.parse()) {
        (Some(path), _) => Address::Unix(Arc::new(path.into())),
        (None, Ok(address)) => Address::Ip(address),
        (None, Err(_)) => panic!("{text:?} is no address"),
    }
}

/// A world: its cores, scripts, connections, clock and random numbers.
pub struct World {
    world: Rc<WorldState>,
}

pub(super) struct WorldState {
    seed: u64,
    pub(super) shared: Arc<SharedKernel>,
    tasks: RefCell<BTreeMap<TaskId, SimTask>>,
    last_task: Cell<TaskId>,
    last_script: Cell<u32>,
    cores: RefCell<BTreeMap<u32, Sim>>,
    steps: Cell<u64>,
    steps_max: Cell<u64>,
    /// How often the running turn has read the clock.
    looks: Cell<u32>,
    /// The task that woke itself, and how often in a row it did.
    spinning: Cell<Option<(TaskId, u32)>>,
    script_listeners: RefCell<Vec<u64>>,
    /// Turns of all cores' tasks, and the most receives and sends that one turn has started.
    turns: Cell<u64>,
    most_begun: Cell<u32>,
}

struct SimTask {
    actor: Actor,
    /// The core ends with this task.
    main: bool,
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Arc<TaskWaker>,
}

impl World {
    /// Makes a world with faults drawn from the seed: see [`Faults::drawn`].
    pub fn new(seed: u64) -> Self {
        Self {
            world: Rc::new(WorldState {
                seed,
                shared: Arc::new(SharedKernel::new(seed)),
                tasks: RefCell::default(),
                last_task: Cell::new(0),
                last_script: Cell::new(0),
                cores: RefCell::default(),
                steps: Cell::new(0),
                steps_max: Cell::new(STEPS_MAX),
                looks: Cell::new(0),
                spinning: Cell::new(None),
                script_listeners: RefCell::default(),
                turns: Cell::new(0),
                most_begun: Cell::new(0),
            }),
        }
    }

    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// The handle of core `n`. Every call returns the same one.
    pub fn core(&self, n: u32) -> Sim {
        let mut cores = self.world.cores.borrow_mut();
        let ip = IpAddr::V4(Ipv4Addr::new(10, 255, 0, 1));
        let core = cores.entry(n);
        core.or_insert_with(|| Sim::new(&self.world, Actor::Core(n), ip))
            .clone()
    }

    /// A handle for a script: a client, an endpoint or a test. Scripts live in the world under the same rules as cores.
    pub fn client(&self) -> Sim {
        self.client_at(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))
    }

    /// A handle for a script whose connections come from `ip`.
    pub fn client_at(&self, ip: IpAddr) -> Sim {
        let n = self.world.last_script.get() + 1;
        self.world.last_script.set(n);
        Sim::new(&self.world, Actor::Script(n), ip)
    }

    /// Runs a core with `main` as its root task. When `main` completes, the core has ended, and the world drops its
    /// remaining tasks.
    pub fn start(&self, core: u32, main: impl Future<Output = ()> + 'static) {
        self.core(core);
        self.world.start(Actor::Core(core), true, main);
    }

    /// Binds a listening socket, as control does before it hands the socket to a core. Several sockets may share an
    /// address; each connect picks one of them at random.
    pub fn listen(&self, address: &Address) -> SimSocket {
        SimSocket::bind(&self.world.shared, address.clone())
    }

    /// Binds like [`World::listen`], for scripts that cannot borrow the world.
    pub fn binder(&self) -> impl Fn(&Address) -> SimSocket + 'static {
        let shared = self.world.shared.clone();
        move |address| SimSocket::bind(&shared, address.clone())
    }

    pub fn is_listening(&self, address: &Address) -> bool {
        self.world
            .shared
            .with(|kernel| kernel.is_listening(address))
    }

    /// Starts a scripted server. Every connection to `address` runs `serve`, until the world ends or [`Endpoint::stop`]
    /// is called.
    pub fn endpoint<F>(
        &self,
        address: &Address,
        serve: impl Fn(Peer<Sim>) -> F + 'static,
    ) -> Endpoint
    where
        F: Future<Output = ()> + 'static,
    {
        let socket = self.listen(address);
        let id = socket.id();
        self.world.script_listeners.borrow_mut().push(id);
        let net = self.client();
        let accepted = Rc::new(Cell::new(0));
        let endpoint = Endpoint {
            world: self.world.clone(),
            id,
            accepted: accepted.clone(),
        };
        let acceptor = net.clone();
        net.spawn(async move {
            let Ok(listener) = acceptor.listen(socket) else {
                return;
            };
            while let Ok(connection) = acceptor.accept(&listener).await {
                accepted.set(accepted.get() + 1);
                acceptor.spawn(serve(Peer::new(&acceptor, connection)));
            }
        });
        endpoint
    }

    /// Starts a script.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.client().spawn(task);
    }

    /// Changes the faults of connections made from now on. Tests call this before they run the world.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        self.world.shared.with(|kernel| change(&mut kernel.faults));
    }

    /// Changes the faults of connections to one address, starting from the world's faults.
    pub fn set_faults_at(&self, address: &Address, change: impl FnOnce(&mut Faults)) {
        self.world.shared.with(|kernel| {
            let faults = kernel.faults.clone();
            change(kernel.faults_at.entry(address.clone()).or_insert(faults));
        });
    }

    /// Sets what happens to connects to an address from now on.
    pub fn set_reach(&self, address: &Address, reach: Reach) {
        self.world
            .shared
            .with(|kernel| kernel.reach.insert(address.clone(), reach));
    }

    /// Makes the first of several sockets of an address get this share of the connects, beside its share of the others:
    /// a kernel's choice by hash is uneven if few clients have many connections.
    pub fn favour_first_socket(&self, permille: u32) {
        self.world
            .shared
            .with(|kernel| kernel.favoured_permille = permille);
    }

    /// Sets how many connections a listener's queue holds.
    pub fn set_backlog(&self, connections: usize) {
        self.world
            .shared
            .with(|kernel| kernel.backlog = connections);
    }

    /// Sets how many scheduler steps the whole test may take.
    pub fn set_steps_max(&self, steps: u64) {
        self.world.steps_max.set(steps);
    }

    /// Random numbers for the test's own choices. Using them does not change the world's.
    pub fn rng(&self, purpose: u64) -> Rng {
        Rng::new(self.world.seed ^ purpose.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// Runs the world until `main`, a script like all others, completes.
    ///
    /// # Panics
    /// If no event is left before that, or an hour of virtual time or too many steps have passed.
    pub fn run<T: 'static>(&self, main: impl Future<Output = T> + 'static) -> T {
        let slot = Rc::new(RefCell::new(None));
        let result = slot.clone();
        self.spawn(async move {
            let done = main.await;
            *result.borrow_mut() = Some(done);
        });
        self.run_until(|| slot.borrow().is_some());
        slot.take()
            .unwrap_or_else(|| self.world.fail("the run ended without a result"))
    }

    /// Runs the world until `met` returns true.
    ///
    /// # Panics
    /// The same as [`World::run`].
    pub fn run_until(&self, mut met: impl FnMut() -> bool) {
        let deadline = self.now() + RUN_MAX;
        while !met() {
            if !self.world.step() {
                self.world.fail(
                    "nothing can happen any more: a wake was lost, or all tasks wait for each other",
                );
            }
            if self.now() > deadline {
                self.world
                    .fail("the run is not over after an hour of virtual time");
            }
        }
    }

    /// Runs the world for some virtual time.
    pub fn run_for(&self, time: Duration) {
        let net = self.client();
        let until = self.now() + time;
        self.run(async move { net.sleep_until(until).await });
    }

    /// How many tasks of a core have not ended.
    pub fn live_tasks(&self, core: u32) -> usize {
        self.world.live_tasks(Actor::Core(core))
    }

    /// How many connections a core holds open on either side, except those of doorbells.
    pub fn open_connections(&self, core: u32) -> usize {
        self.world
            .shared
            .with(|kernel| kernel.open_connections(Actor::Core(core)))
    }

    /// How many connections a core has accepted or taken over and holds open.
    pub fn accepted_connections(&self, core: u32) -> usize {
        self.world
            .shared
            .with(|kernel| kernel.accepted_connections(Actor::Core(core)))
    }

    /// How many turns the cores' tasks have had.
    pub fn turns(&self) -> u64 {
        self.world.turns.get()
    }

    /// The most receives and sends that a core's task has started in one turn.
    pub fn most_begun(&self) -> u32 {
        self.world.most_begun.get()
    }

    /// How many events of input and output there have been, those of scripts too: connections, receives, sends,
    /// doorbells.
    pub fn events(&self) -> u64 {
        self.world.shared.with(|kernel| kernel.env.trace.events())
    }

    /// A hash of everything that has happened; equal for equal runs.
    pub fn fingerprint(&self) -> u64 {
        self.world
            .shared
            .with(|kernel| kernel.env.trace.fingerprint())
    }

    /// Ends the world: scripted endpoints stop listening, and cores get ten virtual minutes to end.
    ///
    /// # Panics
    /// If a core's task has not ended, or a core holds a connection, a block or a charge. What scripts hold is no leak.
    pub fn finish(&self) {
        let world = &self.world;
        let listeners = mem::take(&mut *world.script_listeners.borrow_mut());
        for id in listeners {
            world
                .shared
                .with(|kernel| kernel.close_listener(id, Actor::Script(0)));
        }
        let cores: Vec<(u32, Pool)> = {
            let cores = world.cores.borrow();
            cores
                .iter()
                .map(|(&n, core)| (n, core.pool().clone()))
                .collect()
        };
        let deadline = world.now() + END_MAX;
        let live = || cores.iter().any(|&(n, _)| self.live_tasks(n) > 0);
        while live() && world.now() <= deadline && world.step() {}
        for (n, pool) in &cores {
            let tasks = self.live_tasks(*n);
            let connections = self.open_connections(*n);
            let bytes = pool.taken_bytes();
            if tasks > 0 || connections > 0 || bytes > 0 {
                world.fail(&format!(
                    "core {n} left behind {tasks} tasks, {connections} connections and {bytes} bytes of memory"
                ));
            }
        }
    }

    /// The seed, the command to repeat it, and the last events.
    pub fn report(&self) -> String {
        self.world.report()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Tasks hold handles of the world that holds them. Dropping one may start another.
        loop {
            let tasks = mem::take(&mut *self.world.tasks.borrow_mut());
            if tasks.is_empty() {
                break;
            }
        }
        let cores = mem::take(&mut *self.world.cores.borrow_mut());
        drop(cores);
    }
}

/// The handle of a scripted server.
pub struct Endpoint {
    world: Rc<WorldState>,
    id: u64,
    accepted: Rc<Cell<usize>>,
}

impl Endpoint {
    /// How many connections the server has accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.get()
    }

    /// Stops listening: connects are refused from now on. Existing connections continue.
    pub fn stop(&self) {
        self.world
            .shared
            .with(|kernel| kernel.close_listener(self.id, Actor::Script(0)));
    }
}

impl WorldState {
    /// The time as a program under test reads it. Time does not pass within a turn, so a loop that waits for it would
    /// never end.
    pub(super) fn look_at_clock(&self) -> Instant {
        self.looks.set(self.looks.get() + 1);
        assert!(
            self.looks.get() < LOOKS_MAX,
            "a turn does not end: does a loop wait for time to pass?"
        );
        self.now()
    }

    fn now(&self) -> Instant {
        Instant(self.shared.with(|kernel| kernel.env.now))
    }

    pub(super) fn spawn(&self, actor: Actor, future: impl Future<Output = ()> + 'static) {
        self.start(actor, false, future);
    }

    fn start(&self, actor: Actor, main: bool, future: impl Future<Output = ()> + 'static) {
        let id = self.last_task.get() + 1;
        self.last_task.set(id);
        let shared = self.shared.clone();
        let waker = Arc::new(TaskWaker {
            task: id,
            actor,
            shared,
            queued: AtomicBool::new(false),
        });
        self.shared
            .with(|kernel| kernel.env.note(actor, What::Spawned, id, 0));
        self.shared.hub.as_kernel(|| waker.waker().wake());
        self.tasks.borrow_mut().insert(
            id,
            SimTask {
                actor,
                main,
                future: Box::pin(future),
                waker,
            },
        );
    }

    fn live_tasks(&self, actor: Actor) -> usize {
        self.tasks
            .borrow()
            .values()
            .filter(|task| task.actor == actor)
            .count()
    }

    /// Runs one step: a completion or a task's turn. Returns false when none is left.
    fn step(&self) -> bool {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > self.steps_max.get() {
            self.fail("too many steps");
        }
        if let Some((task, _)) = self.spinning.get() {
            self.turn(task);
            return true;
        }
        let ready = self.shared.hub.ready();
        let (event, which) = self.shared.with(|kernel| {
            let env = &mut kernel.env;
            if ready == 0
                && let Some(at) = env.events.next_at()
            {
                env.now = env.now.max(at);
            }
            let events_first = ready == 0 || env.rng.chance(500);
            let which = env.rng.below(ready);
            (
                if events_first {
                    kernel.take_due()
                } else {
                    None
                },
                which,
            )
        });
        if let Some(event) = event {
            self.shared.with(|kernel| kernel.apply(event));
            return true;
        }
        let Some(task) = self.shared.hub.take_ready(which) else {
            return false;
        };
        self.turn(task);
        true
    }

    /// Runs a task's turn, which takes up to two virtual microseconds.
    fn turn(&self, id: TaskId) {
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else {
            self.spinning.set(None);
            return;
        };
        let (actor, main, hub) = (task.actor, task.main, &self.shared.hub);
        task.waker.queued.store(false, Ordering::Relaxed);
        hub.begin(id, actor);
        self.looks.set(0);
        let waker = task.waker.waker();
        let turn = catch_unwind(AssertUnwindSafe(|| {
            let done = task
                .future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready();
            if done { None } else { Some(task) }
        }));
        let again = hub.end();
        let begun = self.shared.with(|kernel| {
            kernel.env.now += kernel.env.rng.below(2_000) as u64;
            if matches!(turn, Ok(None)) {
                kernel.env.note(actor, What::Ended, id, 0);
            }
            mem::take(&mut kernel.env.begun)
        });
        let is_core = matches!(actor, Actor::Core(_));
        self.turns.set(self.turns.get() + u64::from(is_core));
        if is_core {
            self.most_begun.set(self.most_begun.get().max(begun));
        }
        if turn.is_ok() && is_core && begun > BEGUN_MAX {
            self.fail(&format!(
                "a task of {actor} started {begun} receives and sends in one turn while all others waited"
            ));
        }
        match turn {
            Ok(None) => {
                self.spinning.set(None);
                if main {
                    self.drop_tasks(actor);
                }
            }
            Ok(Some(task)) => {
                self.tasks.borrow_mut().insert(id, task);
                self.spun(id, actor, again);
            }
            Err(panic) => self.fail_with(actor, panic),
        }
        if let Some(wrong) = hub.take_wrong() {
            self.fail(&wrong);
        }
    }

    /// Drops all tasks of an actor, and the tasks that they start meanwhile.
    fn drop_tasks(&self, actor: Actor) {
        loop {
            let tasks = {
                let mut all = self.tasks.borrow_mut();
                let (gone, kept) = mem::take(&mut *all)
                    .into_iter()
                    .partition::<BTreeMap<_, _>, _>(|(_, task)| task.actor == actor);
                *all = kept;
                gone
            };
            if tasks.is_empty() {
                return;
            }
        }
    }

    /// Runs a task that wakes itself next, because on a real core it would keep everything else from running.
    fn spun(&self, id: TaskId, actor: Actor, again: bool) {
        let before = self.spinning.get().map_or(0, |(_, spins)| spins);
        self.spinning.set(again.then_some((id, before + 1)));
        if before >= SPINS_MAX {
            self.fail(&format!(
                "a task of {actor} keeps waking itself, and nothing else can run"
            ));
        }
    }

    fn fail_with(&self, actor: Actor, panic: Box<dyn Any + Send>) -> ! {
        eprintln!("a task of {actor} panicked (seed {})", self.seed);
        resume_unwind(panic)
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what} (seed {})", self.seed)
    }

    fn report(&self) -> String {
        let live: Vec<String> = {
            let tasks = self.tasks.borrow();
            let mut live: BTreeMap<Actor, usize> = BTreeMap::new();
            tasks
                .values()
                .for_each(|task| *live.entry(task.actor).or_default() += 1);
            live.iter()
                .map(|(actor, n)| format!("{actor}: {n}"))
                .collect()
        };
        let (seed, steps) = (self.seed, self.steps.get());
        self.shared.with(|kernel| {
            format!(
                "seed {seed} failed after {steps} steps at {} us; WEIR_SEED={seed} repeats it\n\
                 live tasks: {}\n{:?}\nlast events:\n{}",
                kernel.env.now / 1000,
                live.join(", "),
                kernel.faults,
                kernel.env.trace,
            )
        })
    }
}
