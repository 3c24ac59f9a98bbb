//! Starting the cores and talking to them from the outside.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use weir_config::Driver;

use super::mailbox::Letter;
use super::{Clients, Command, Core, Mail, Mailbox};
use crate::io::ring::{self, Ring};
use crate::io::uring::{self, Uring};
use crate::io::{Address, ListenSocket, Net};
use crate::obs::CoreObs;
use crate::plan::{ListenerId, Plan};
use crate::upstream::{Note, Registry};

/// What all cores share: the limits of the whole box, and the way to each other.
pub struct Shared<N: Net> {
    /// Every core's mailbox, by its index.
    pub mails: Vec<Mail<N>>,
    /// Every core's connections. Written by that core alone.
    pub(super) loads: Vec<AtomicU32>,
    /// Connections that were handed to a core which has not taken them over yet.
    pub(super) in_transit: AtomicU32,
    counts: Mutex<HashMap<Address, Arc<DoorCount>>>,
    /// Connections to endpoints, and who waits for one.
    pub(super) upstreams: Arc<Registry>,
}

/// The connections of one listener over all cores. Touched when one begins or ends.
#[derive(Default)]
pub(super) struct DoorCount {
    pub(super) connections: AtomicU32,
    pub(super) clients: Clients,
}

impl<N: Net> Shared<N> {
    /// For as many cores as there are mailboxes.
    pub fn new(mails: Vec<Mail<N>>) -> Arc<Self> {
        let loads = mails.iter().map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self {
            mails,
            loads,
            in_transit: AtomicU32::new(0),
            counts: Mutex::default(),
            upstreams: Arc::default(),
        })
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.mails.len()
    }

    /// What sends notes about places at endpoints from core to core.
    pub(super) fn poster(self: &Arc<Self>) -> Box<dyn Fn(usize, Note) -> Result<(), Note>> {
        let shared = self.clone();
        Box::new(move |core, note| {
            let Some(mail) = shared.mails.get(core) else {
                return Err(note);
            };
            mail.post(Letter::Note(note))
                .map_err(|letter| match letter {
                    Letter::Note(note) => note,
                    _ => unreachable!("what comes back is what was sent"),
                })
        })
    }

    /// The count of a listener, the same for every core. Locks: for opening listeners only.
    pub(super) fn count(&self, address: &Address) -> Arc<DoorCount> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry(address.clone()).or_default().clone()
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
    /// Each core's listening sockets.
    pub sockets: Vec<Vec<(ListenerId, ListenSocket)>>,
    /// Each core's counters.
    pub obs: Vec<CoreObs>,
}

/// The running cores.
pub struct Cores {
    mails: Mails,
    threads: Vec<JoinHandle<()>>,
    features: String,
}

/// The cores' mailboxes: all run on one driver.
enum Mails {
    Ring(Vec<Mail<Ring>>),
    Monoio(Vec<Mail<Uring>>),
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
            return Self::start_on(spec, Mails::Ring, |boot| {
                let features = "own driver, single_issuer defer_taskrun".to_owned();
                ring::run(|net| boot.serve(net, features))
            });
        }
        Self::start_on(spec, Mails::Monoio, |boot| {
            uring::run(|net, features| boot.serve(net, format!("monoio, {features}")))
        })
    }

    /// Starts the cores on one driver, each with what `run` makes of it.
    fn start_on<N: Net<Socket = ListenSocket>>(
        spec: CoreSpec,
        mails_of: fn(Vec<Mail<N>>) -> Mails,
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
                plan: spec.plan.clone(),
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
        let mut mails: Vec<Option<Mail<N>>> = threads.iter().map(|_| None).collect();
        let mut features = None;
        for _ in 0..threads.len() {
            let (index, ready) = from_cores
                .recv()
                .map_err(|_| io::Error::other("a core died while starting"))?;
            let (mail, got) = ready?;
            mails[index] = Some(mail);
            features = Some(got);
        }
        let mails: Vec<_> = mails.into_iter().flatten().collect();
        let shared = Shared::new(mails.clone());
        for start in starts {
            start
                .send(shared.clone())
                .map_err(|_| io::Error::other("a core died while starting"))?;
        }
        let features = features.ok_or_else(|| io::Error::other("no cores to start"))?;
        Ok(Self {
            mails: mails_of(mails),
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
        match &self.mails {
            Mails::Ring(mails) => mails[core].send(command),
            Mails::Monoio(mails) => mails[core].send(command),
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
type Ready<N> = io::Result<(Mail<N>, String)>;

/// One core's thread on its way up.
struct Boot<N: Net> {
    index: usize,
    cpu: Option<usize>,
    sockets: Vec<(ListenerId, N::Socket)>,
    obs: CoreObs,
    plan: Arc<Plan>,
    start: mpsc::Receiver<Arc<Shared<N>>>,
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
            Ok((mail, mailbox)) => {
                let _ = self.ready.send((self.index, Ok((mail, features))));
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
        let seed = fastrand::u64(..);
        run(
            net,
            self.index,
            self.plan,
            self.obs,
            shared,
            seed,
            self.sockets,
            mailbox,
        )
        .await;
    }
}

/// Runs a core in any world until it has been drained or stopped.
#[allow(clippy::too_many_arguments)]
pub async fn run<N: Net>(
    net: N,
    index: usize,
    plan: Arc<Plan>,
    obs: CoreObs,
    shared: Arc<Shared<N>>,
    seed: u64,
    sockets: Vec<(ListenerId, N::Socket)>,
    mailbox: Mailbox<N>,
) {
    net.set_pipes_max(plan.capacity.pipes_per_core_max);
    let core = Core::new(net, index, plan, obs, shared, seed);
    core.open_doors(sockets);
    core.run(mailbox).await;
}
