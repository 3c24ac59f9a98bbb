//! Starts the cores and sends them commands.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use weir_config::Driver;

use super::mailbox::MailboxMessage;
use super::{Command, CoreServer, Mailbox, MailboxSender};
use crate::core::ConnectionCounts;
use crate::io::ring::{self, Ring};
use crate::io::uring::{self, Uring};
use crate::io::{ListenSocket, Net};
use crate::obs::CoreObs;
use crate::plan::{EndpointSets, ListenerId, Plan};
use crate::upstream::{Note, Registry};

/// What all cores share: limits of the whole process, and how to reach each other.
pub struct SharedState<N: Net> {
    /// Every core's mailbox, by its index.
    pub senders: Vec<MailboxSender<N>>,
    /// Clients' connections.
    pub(super) counts: Arc<ConnectionCounts>,
    /// Connections to endpoints, and the requests that wait for one.
    pub(super) upstreams: Arc<Registry>,
}

impl<N: Net> SharedState<N> {
    /// For as many cores as there are mailboxes.
    pub fn new(senders: Vec<MailboxSender<N>>) -> Arc<Self> {
        Arc::new(Self {
            counts: Arc::new(ConnectionCounts::new(senders.len())),
            senders,
            upstreams: Arc::default(),
        })
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.senders.len()
    }

    /// Sends notices about connections to endpoints to another core, which is the argument.
    pub(super) fn notice_sender(self: &Arc<Self>) -> Box<dyn Fn(usize, Note) -> Result<(), Note>> {
        let shared = self.clone();
        Box::new(move |core, note| {
            let Some(sender) = shared.senders.get(core) else {
                return Err(note);
            };
            let posted = sender.post(MailboxMessage::Note(note));
            posted.map_err(|message| match message {
                MailboxMessage::Note(note) => note,
                _ => unreachable!("a full mailbox returns the message"),
            })
        })
    }
}

/// What the cores start with.
pub struct CoreSpec {
    /// What drives their rings.
    pub driver: Driver,
    /// The processor that each core is pinned to, if any.
    pub cpus: Vec<Option<usize>>,
    /// The first plan.
    pub plan: Arc<Plan>,
    /// The endpoints of its upstreams.
    pub endpoints: Arc<EndpointSets>,
    /// Each core's listening sockets.
    pub sockets: Vec<Vec<(ListenerId, ListenSocket)>>,
    /// Each core's counters.
    pub obs: Vec<CoreObs>,
}

/// The running cores.
pub struct Cores {
    senders: Senders,
    threads: Vec<JoinHandle<()>>,
    features: String,
}

/// The cores' mailboxes: all run on one driver.
enum Senders {
    Ring(Vec<MailboxSender<Ring>>),
    Monoio(Vec<MailboxSender<Uring>>),
}

impl Cores {
    /// Whether the kernel grants a driver.
    ///
    /// # Errors
    /// It does not; as [`Cores::start`].
    pub fn probe(driver: Driver) -> io::Result<()> {
        match driver {
            Driver::Ring => ring::probe(),
            Driver::Monoio => uring::probe(),
            Driver::Auto => ring::probe().or_else(|_| uring::probe()),
        }
    }

    /// Starts one thread a core and returns when all of them listen.
    ///
    /// # Errors
    /// No io_uring, not the driver that was asked for, no threads, or out of file descriptors.
    pub fn start(spec: CoreSpec) -> io::Result<Self> {
        let is_granted = match spec.driver {
            Driver::Monoio => false,
            Driver::Ring => ring::probe().map(|()| true)?,
            Driver::Auto => ring::probe().is_ok(),
        };
        if is_granted {
            return Self::start_on(spec, Senders::Ring, |boot| {
                let features = "own driver, single_issuer defer_taskrun".to_owned();
                ring::run(|net| boot.serve(net, features))
            });
        }
        Self::start_on(spec, Senders::Monoio, |boot| {
            uring::run(|net, features| boot.serve(net, format!("monoio, {features}")))
        })
    }

    /// Starts the cores on one driver, each with what `run` makes of it.
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
            senders[index] = Some(sender);
            features = Some(got);
        }
        let senders: Vec<_> = senders.into_iter().flatten().collect();
        let shared = SharedState::new(senders.clone());
        for start in starts {
            start
                .send(shared.clone())
                .map_err(|_| io::Error::other("a core died while starting"))?;
        }
        let features = features.ok_or_else(|| io::Error::other("no cores to start"))?;
        Ok(Self {
            senders: senders_of(senders),
            threads,
            features,
        })
    }

    /// Which driver runs, and what the kernel granted its rings.
    pub fn features(&self) -> &str {
        &self.features
    }

    /// How many cores there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Sends a command to one core.
    ///
    /// # Errors
    /// Its mailbox is full: the command comes back, to be sent again later.
    pub fn send(
        &self,
        core: usize,
        command: Command<ListenSocket>,
    ) -> Result<(), Command<ListenSocket>> {
        match &self.senders {
            Senders::Ring(senders) => senders[core].send(command),
            Senders::Monoio(senders) => senders[core].send(command),
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

/// What a core says when it is up: how to reach it, and what its ring got.
type Ready<N> = io::Result<(MailboxSender<N>, String)>;

/// One core's thread on its way up.
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
            // Nobody hears it if the start has failed for another core already.
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
        // The others are still starting: there is nothing else to do yet than to wait for them.
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

/// What one core starts with.
pub struct CoreStart<N: Net> {
    /// The core's index.
    pub index: usize,
    /// The first plan.
    pub plan: Arc<Plan>,
    /// The endpoints of its upstreams.
    pub endpoints: Arc<EndpointSets>,
    /// The core's counters.
    pub obs: CoreObs,
    /// What it shares with the others.
    pub shared: Arc<SharedState<N>>,
    /// Differs by core and process.
    pub seed: u64,
    /// Its listening sockets.
    pub sockets: Vec<(ListenerId, N::Socket)>,
    /// Its mailbox.
    pub mailbox: Mailbox<N>,
}

/// Runs a core, in any world, until it has drained or stopped.
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
