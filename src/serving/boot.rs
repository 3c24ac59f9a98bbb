//! Starts the cores and sends them commands.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use weir_config::Driver;

use super::mailbox::MailboxMessage;
use super::{Command, CoreServer, EndpointBoard, Mailbox, MailboxSender};
use crate::core::ConnectionCounts;
use crate::io::ring::{self, Ring};
use crate::io::uring::{self, Uring};
use crate::io::{ListenSocket, Net};
use crate::obs::CoreObs;
use crate::plan::{EndpointSets, ListenerId, Plan};
use crate::upstream::{SlotNotice, UpstreamRegistry};

/// What all cores share: limits of the whole process, and how to reach each other.
pub struct SharedState<N: Net> {
    /// Every core's mailbox, by its index.
    pub senders: Vec<MailboxSender<N>>,
    /// Clients' connections.
    pub(super) counts: Arc<ConnectionCounts>,
    /// Connections to endpoints, and the requests that wait for one.
    pub upstreams: Arc<UpstreamRegistry>,
    /// Where control posts endpoints.
    pub board: Arc<EndpointBoard>,
}

impl<N: Net> SharedState<N> {
    /// Makes the shared state of as many cores as there are mailboxes.
    pub fn new(senders: Vec<MailboxSender<N>>) -> Arc<Self> {
        let upstreams = Arc::new(UpstreamRegistry::new(senders.len()));
        Self::with_upstreams(senders, upstreams)
    }

    /// Like `new`, with a registry that has statuses of endpoints already.
    pub fn with_upstreams(
        senders: Vec<MailboxSender<N>>,
        upstreams: Arc<UpstreamRegistry>,
    ) -> Arc<Self> {
        Arc::new(Self {
            counts: Arc::new(ConnectionCounts::new(senders.len())),
            senders,
            upstreams,
            board: Arc::default(),
        })
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.senders.len()
    }

    /// Returns a function that sends a notice to the core with the given index. If that core's mailbox is full, the
    /// function returns the notice.
    pub(super) fn notice_sender(
        self: &Arc<Self>,
    ) -> Box<dyn Fn(usize, SlotNotice) -> Result<(), SlotNotice>> {
        let shared = self.clone();
        Box::new(move |core, note| {
            let Some(sender) = shared.senders.get(core) else {
                return Err(note);
            };
            let posted = sender.post(MailboxMessage::Notice(note));
            posted.map_err(|message| match message {
                MailboxMessage::Notice(note) => note,
                _ => unreachable!("a full mailbox returns the message"),
            })
        })
    }
}

/// The parameters of a start.
pub struct CoreSpec {
    /// The I/O driver.
    pub driver: Driver,
    /// The processor to pin each core to, if any.
    pub cpus: Vec<Option<usize>>,
    /// The first plan.
    pub plan: Arc<Plan>,
    /// The endpoints of its upstreams.
    pub endpoints: Arc<EndpointSets>,
    /// Each core's listening sockets.
    pub sockets: Vec<Vec<(ListenerId, ListenSocket)>>,
    /// Each core's counters.
    pub obs: Vec<CoreObs>,
    /// Where control posts the health of endpoints, made for as many cores.
    pub upstreams: Arc<UpstreamRegistry>,
}

/// The running cores.
pub struct Cores {
    senders: Senders,
    board: Arc<EndpointBoard>,
    upstreams: Arc<UpstreamRegistry>,
    threads: Vec<JoinHandle<()>>,
    features: String,
}

/// The cores' mailboxes. All cores run on one driver.
enum Senders {
    Ring(Vec<MailboxSender<Ring>>),
    Monoio(Vec<MailboxSender<Uring>>),
}

impl Cores {
    /// Checks that the kernel supports a driver.
    ///
    /// # Errors
    /// The kernel does not support the driver.
    pub fn probe(driver: Driver) -> io::Result<()> {
        Self::choose_driver(driver).map(drop)
    }

    /// The driver that cores run on if the configuration has this one.
    ///
    /// # Errors
    /// The kernel does not support the driver.
    pub fn choose_driver(driver: Driver) -> io::Result<Driver> {
        match driver {
            Driver::Auto | Driver::Ring => ring::probe().map(|_| Driver::Ring),
            Driver::Monoio => uring::probe().map(|()| Driver::Monoio),
        }
    }

    /// The driver that the cores run on.
    pub fn driver(&self) -> Driver {
        match self.senders {
            Senders::Ring(_) => Driver::Ring,
            Senders::Monoio(_) => Driver::Monoio,
        }
    }

    /// Starts one thread for each core, and returns once every core's mailbox takes commands.
    ///
    /// # Errors
    /// The kernel does not support the driver, a thread cannot be started, or descriptors have run out.
    pub fn start(spec: CoreSpec) -> io::Result<Self> {
        if Self::choose_driver(spec.driver)? == Driver::Ring {
            return Self::start_on(spec, Senders::Ring, |boot| {
                let flags = ring::probe()?;
                ring::run_with(flags, |net| boot.serve(net, format!("own driver, {flags}")))
            });
        }
        Self::start_on(spec, Senders::Monoio, |boot| {
            uring::run(|net, features| boot.serve(net, format!("monoio, {features}")))
        })
    }

    /// Starts the cores on one driver; `run` runs one of them.
    fn start_on<N: Net<Socket = ListenSocket>>(
        spec: CoreSpec,
        senders_of: fn(Vec<MailboxSender<N>>) -> Senders,
        run: fn(Boot<N>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (to_boot, from_cores) = mpsc::channel();
        let mut threads = Vec::new();
        let mut starts = Vec::new();
        for (index, ((cpu, sockets), obs)) in
            spec.cpus.iter().zip(spec.sockets).zip(spec.obs).enumerate()
        {
            let (to_core, start) = mpsc::channel();
            starts.push(to_core);
            let boot = Boot {
                index,
                cpu: *cpu,
                sockets,
                obs,
                plan: (spec.plan.clone(), spec.endpoints.clone()),
                start,
                ready: to_boot.clone(),
            };
            let name = format!("weir-core-{index}");
            threads.push(
                std::thread::Builder::new()
                    .name(name)
                    .spawn(move || boot.run(run))?,
            );
        }
        drop(to_boot);
        let mut senders: Vec<Option<MailboxSender<N>>> = threads.iter().map(|_| None).collect();
        let mut features = None;
        for _ in 0..threads.len() {
            let (index, ready) = from_cores
                .recv()
                .map_err(|_| io::Error::other("a core died while starting"))?;
            let (sender, got) = ready?;
            if let Some(slot) = senders.get_mut(index) {
                *slot = Some(sender);
            }
            features = Some(got);
        }
        let senders: Vec<_> = senders.into_iter().flatten().collect();
        let shared = SharedState::with_upstreams(senders.clone(), spec.upstreams);
        for start in starts {
            start
                .send(shared.clone())
                .map_err(|_| io::Error::other("a core died while starting"))?;
        }
        let features = features.ok_or_else(|| io::Error::other("no cores to start"))?;
        Ok(Self {
            senders: senders_of(senders),
            board: shared.board.clone(),
            upstreams: shared.upstreams.clone(),
            threads,
            features,
        })
    }

    /// The driver and the features that the kernel granted it.
    pub fn features(&self) -> &str {
        &self.features
    }

    /// How many cores there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Where control posts endpoints.
    pub fn board(&self) -> &EndpointBoard {
        &self.board
    }

    /// Where control posts the health of endpoints. [`Cores::ring_all`] lets the cores read it.
    pub fn upstreams(&self) -> &Arc<UpstreamRegistry> {
        &self.upstreams
    }

    /// Wakes every core, which then reads the health of endpoints. Rings that come before a core has woken are one.
    pub fn ring_all(&self) {
        match &self.senders {
            Senders::Ring(senders) => senders.iter().for_each(MailboxSender::ring),
            Senders::Monoio(senders) => senders.iter().for_each(MailboxSender::ring),
        }
    }

    /// Sends a command to one core.
    ///
    /// # Errors
    /// The mailbox is full. The caller gets the command back and may send it again later.
    pub fn send(
        &self,
        core: usize,
        command: Command<ListenSocket>,
    ) -> Result<(), Command<ListenSocket>> {
        match &self.senders {
            Senders::Ring(senders) => send_to(senders.get(core), command),
            Senders::Monoio(senders) => send_to(senders.get(core), command),
        }
    }

    /// Whether a core has ended.
    pub fn has_core_ended(&self, core: usize) -> bool {
        self.threads.get(core).is_none_or(JoinHandle::is_finished)
    }

    /// Whether every core has ended.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

fn send_to<N: Net>(
    sender: Option<&MailboxSender<N>>,
    command: Command<N::Socket>,
) -> Result<(), Command<N::Socket>> {
    match sender {
        Some(sender) => sender.send(command),
        None => Err(command),
    }
}

/// The report of a core that runs: its mailbox, and the features of its driver.
type Ready<N> = io::Result<(MailboxSender<N>, String)>;

/// One core's thread while it starts.
struct Boot<N: Net> {
    index: usize,
    cpu: Option<usize>,
    sockets: Vec<(ListenerId, N::Socket)>,
    obs: CoreObs,
    plan: (Arc<Plan>, Arc<EndpointSets>),
    start: mpsc::Receiver<Arc<SharedState<N>>>,
    ready: mpsc::Sender<(usize, Ready<N>)>,
}

impl<N: Net> Boot<N> {
    fn run(self, run: fn(Self) -> io::Result<()>) {
        if let Some(id) = self.cpu {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        let (index, ready) = (self.index, self.ready.clone());
        if let Err(error) = run(self) {
            // If the start has already failed because of another core, the receiver is gone.
            let _ = ready.send((index, Err(error)));
        }
    }

    async fn serve(self, net: N, features: String) {
        let mailbox = match Mailbox::new(&net) {
            Ok((sender, mailbox)) => {
                let _ = self.ready.send((self.index, Ok((sender, features))));
                mailbox
            }
            Err(error) => {
                let _ = self.ready.send((self.index, Err(error)));
                return;
            }
        };
        drop(self.ready);
        // Blocks the thread until all cores have started, because it has no other work before.
        let Ok(shared) = self.start.recv() else {
            return;
        };
        let (plan, endpoints) = self.plan;
        let start = CoreStart {
            index: self.index,
            plan,
            endpoints,
            obs: self.obs,
            shared,
            seed: fastrand::u64(..),
            sockets: self.sockets,
            mailbox,
        };
        run(net, start).await;
    }
}

/// The parameters of one core's start.
pub struct CoreStart<N: Net> {
    /// The core's index.
    pub index: usize,
    /// The first plan.
    pub plan: Arc<Plan>,
    /// The endpoints of its upstreams.
    pub endpoints: Arc<EndpointSets>,
    /// The core's counters.
    pub obs: CoreObs,
    /// The state that all cores share.
    pub shared: Arc<SharedState<N>>,
    /// Differs by core and process.
    pub seed: u64,
    /// Its listening sockets.
    pub sockets: Vec<(ListenerId, N::Socket)>,
    /// Its mailbox.
    pub mailbox: Mailbox<N>,
}

/// Runs a core, on any driver or in the simulator, until it has drained or stopped.
pub async fn run<N: Net>(net: N, start: CoreStart<N>) {
    let CoreStart {
        index,
        plan,
        endpoints,
        obs,
        shared,
        seed,
        sockets,
        mailbox,
    } = start;
    let server = CoreServer::new(net, index, (plan, endpoints), obs, shared, seed);
    server.open_listeners(sockets);
    server.run(mailbox).await;
}
