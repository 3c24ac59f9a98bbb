//! The control thread: everything slow or global. It loads and reloads the configuration, binds sockets, starts the
//! cores, answers signals, and serves metrics and health. No request ever waits for it.
#![forbid(unsafe_code)]

mod access;
mod admin;
mod certificates;
mod cpus;
pub mod demo;
mod identity;
mod inherited;
mod limits;
mod listen;
mod load;
mod memory;
mod names;
mod notify;
mod occupants;
mod pages;
mod pid_file;
mod places;
mod preflight;
mod reload;
mod report;
mod system;
mod watchdog;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use weir_config::Timeouts;

pub use load::{LoadError, Loaded, Machine, Names, Source, load, load_untested};
pub use names::Resolver;

use crate::io::{Address, ListenSocket};
use crate::obs::{AccessLog, EndpointTroubles, LineStyle, Obs, Redactor, process};
use crate::plan::{EndpointSets, Plan};
use crate::serving::{Command, CoreSpec, Cores, Receipt, Receipts};
use crate::tls::TicketKeys;
use admin::Admin;
use certificates::Certificates;
use demo::Demo;
use identity::Identity;
use inherited::Inherited;
use listen::{Bound, OwnFile};
use names::Lookups;
use notify::Manager;
use pages::Pages;

/// What a process is to do.
pub struct Options {
    /// Its configuration.
    pub source: Source,
    /// Endpoints to play with, served by this process.
    pub demo: Option<Demo>,
    /// Called when everything listens.
    pub ready: Box<dyn FnOnce(&Started)>,
}

/// What has been started.
pub struct Started {
    /// Where it listens.
    pub addresses: Vec<String>,
    /// How many cores there are.
    pub cores: usize,
    /// What the kernel grants their rings.
    pub features: String,
}

/// Why a process ended other than by being told to.
#[derive(Debug)]
pub enum Failure {
    /// The configuration cannot be used.
    Config(LoadError),
    /// It could not start, or broke.
    Run(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Run(error) => writeln!(f, "error: {error}"),
        }
    }
}

/// Runs until a signal says to stop. SIGTERM and SIGINT drain, after `drain_delay`; a second one ends the delay, or the
/// drain. SIGHUP reloads and reopens logs; SIGUSR1 reopens logs.
///
/// # Errors
/// It cannot start, or the cores break.
pub fn run(options: Options) -> Result<(), Failure> {
    process::log_panics();
    let _flush = FlushLog;
    let (tickets, resolver) = (TicketKeys::default(), Resolver::default());
    let loaded = load(
        &options.source,
        Names::Resolve(&resolver),
        Machine::Leave,
        Some(&tickets),
    )
    .map_err(Failure::Config)?;
    say_warnings(&loaded);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| Failure::Run(format!("cannot start the control thread: {error}")))?;
    let local = tokio::task::LocalSet::new();
    let outcome = local.block_on(&runtime, start(options, loaded, tickets, resolver));
    // A name that is still being resolved for a reload holds nobody up.
    runtime.shutdown_background();
    outcome.map_err(Failure::Run)
}

/// Writes out the process log, however the process ends.
struct FlushLog;

impl Drop for FlushLog {
    fn drop(&mut self) {
        process::flush();
    }
}

/// The running process, as control sees it.
struct Control {
    source: Source,
    tickets: TicketKeys,
    resolver: Resolver,
    cores: Cores,
    obs: Obs,
    manager: Manager,
    state: RefCell<State>,
    draining: Cell<bool>,
    /// Addresses whose sockets the process was started with.
    inherited: Vec<Address>,
    started_ms: u64,
    metrics_pages: Pages,
    plan_pages: Pages,
}

/// What a reload may change.
struct State {
    plan: Arc<Plan>,
    endpoints: Arc<EndpointSets>,
    config: Arc<weir_config::Config>,
    lookups: Lookups,
    admin: Option<Admin>,
    files: Vec<OwnFile>,
    pid_file: Option<OwnFile>,
    reloads: Reloads,
    certificates: Certificates,
}

/// How reloads went.
#[derive(Default)]
struct Reloads {
    done: u64,
    failed: u64,
    last_error: Option<String>,
    last_ms: u64,
}

async fn start(
    options: Options,
    loaded: Loaded,
    tickets: TicketKeys,
    resolver: Resolver,
) -> Result<(), String> {
    let Options {
        source,
        demo,
        ready,
    } = options;
    let Loaded {
        config,
        mut plan,
        mut endpoints,
        tls,
        names,
        ..
    } = loaded;
    (plan.epoch, endpoints.epoch) = (1, 1);
    let mut signals = Signals::new()?;
    let manager = Manager::from_environment();
    let open_files = system::raise_open_files();
    system::raise_locked_memory();
    let choice = cpus::choose(&config.cores)?;
    let count = choice.cpus.len();
    system::fit(&mut plan, &endpoints, &config, count);
    let (plan, endpoints) = (Arc::new(plan), Arc::new(endpoints));
    let all: Vec<_> = (0..)
        .map(crate::plan::ListenerId)
        .take(plan.listeners.len())
        .collect();
    let mut inherited = Inherited::from_environment();
    let bound = listen::bind(&plan, &all, count, &[], &mut inherited)?;
    let admin = config.admin.as_ref();
    let admin = admin
        .map(|address| Admin::bind(address, &[], &mut inherited))
        .transpose()?;
    let inherited = inherited.taken();
    become_user(&config, &bound, admin.as_ref())?;
    if let Some(file) = &config.pid_file {
        pid_file::check(&file.path)?;
    }
    let access_log = open_log(config.access_log.clone()).await?;
    let (obs, sides) = Obs::start(count, (&plan, &endpoints), access_log)
        .map_err(|e| format!("cannot start the log: {e}"))?;
    let spec = CoreSpec {
        driver: config.driver,
        cpus: choice.cpus.clone(),
        plan: plan.clone(),
        endpoints: endpoints.clone(),
        sockets: bound.sockets,
        obs: sides,
    };
    let cores = Cores::start(spec).map_err(|error| system::explain_start(&error))?;
    if let Some(demo) = demo {
        demo.serve()
            .map_err(|error| format!("cannot serve the demo's endpoints: {error}"))?;
    }
    let started = Started {
        addresses: bound.addresses,
        cores: count,
        features: cores.features().to_owned(),
    };
    announce((&plan, &endpoints), &started, &choice, admin.as_ref());
    process::info(open_files);
    process::info(format_args!("limits: {}", plan.capacity));
    let remarks = system::remarks((&plan, &endpoints), &config, count);
    remarks.iter().for_each(process::warn);
    let state = State {
        plan,
        endpoints,
        config: Arc::new(config),
        lookups: Lookups::new(names),
        admin: None,
        files: bound.files,
        pid_file: None,
        reloads: Reloads::default(),
        certificates: Certificates::new(tls),
    };
    let started_ms = process::now_ms();
    let (state, draining) = (RefCell::new(state), Cell::new(false));
    let control = Rc::new(Control {
        source,
        tickets,
        resolver,
        cores,
        obs,
        manager,
        state,
        draining,
        inherited,
        started_ms,
        metrics_pages: Pages::default(),
        plan_pages: Pages::default(),
    });
    if let Some(mut admin) = admin {
        admin.serve(control.clone());
        control.state.borrow_mut().admin = Some(admin);
    }
    tokio::task::spawn_local(control.clone().watch_certificates());
    tokio::task::spawn_local(control.clone().watch_endpoints());
    control.go_on_duty().await?;
    ready(&started);
    let outcome = control.clone().live(&mut signals).await;
    control.finish();
    outcome
}

/// Gives up what root can do, once everything is bound. Files and rings that are made from here on are the user's.
fn become_user(
    config: &weir_config::Config,
    bound: &Bound,
    admin: Option<&Admin>,
) -> Result<(), String> {
    let identity = Identity::of(config).map_err(|(_, why)| why)?;
    let Some(identity) = identity.filter(|it| !it.is_current() || it.is_root()) else {
        return Ok(());
    };
    let admin_file = admin.and_then(Admin::file);
    for file in bound.files.iter().chain(admin_file) {
        identity.own(&file.path)?;
    }
    let admin_port = match config.admin {
        Some(weir_config::Address::Tcp(address)) => Some(address),
        _ => None,
    };
    let keeps_ports = identity::needs_ports(bound.ports.iter().chain(&admin_port));
    identity.assume(keeps_ports)?;
    process::info(identity.describe(keeps_ports));
    Ok(())
}

impl Control {
    /// Tells the world that everything listens and every core runs.
    async fn go_on_duty(self: &Rc<Self>) -> Result<(), String> {
        self.change(|receipt| Command::Answer { _receipt: receipt })
            .await;
        let mut state = self.state.borrow_mut();
        let path = state.config.pid_file.as_ref().map(|file| &file.path);
        state.pid_file = path.map(|path| pid_file::write(path)).transpose()?;
        self.manager.ready(summary(&state.plan, &state.endpoints));
        tokio::task::spawn_local(self.clone().feed_watchdog());
        Ok(())
    }

    /// Answers signals until a drain has ended.
    async fn live(self: Rc<Self>, signals: &mut Signals) -> Result<(), String> {
        let reloader = Rc::new(reload::Reloader::new(self.clone()));
        drop(tokio::task::spawn_local(
            self.clone().watch_names(reloader.clone()),
        ));
        loop {
            match timeout(limits::WATCH * 10, signals.next()).await {
                Ok(Sent::Stop(name)) => {
                    self.delay(name, signals).await;
                    return self.drain(signals).await;
                }
                Ok(Sent::Reload) => reloader.request(),
                Ok(Sent::Reopen) => {
                    process::info("SIGUSR1: reopening logs");
                    drop(tokio::task::spawn_local(self.clone().reopen_logs()));
                }
                Err(_) if self.obs.ended_core().is_some() => {
                    let core = self.obs.ended_core().unwrap_or_default();
                    process::error(format_args!("core {core} has died; draining the others"));
                    self.drain(signals).await?;
                    return Err(format!("core {core} has died, which is a bug of Weir's"));
                }
                Err(_) => {}
            }
        }
    }

    /// Says that it is about to end and serves on for `drain_delay`, so that load balancers notice before clients do.
    async fn delay(self: &Rc<Self>, name: &str, signals: &mut Signals) {
        self.draining.set(true);
        let Timeouts {
            drain_delay: delay,
            grace,
            ..
        } = self.state.borrow().config.timeouts;
        let at_most = delay + grace + limits::STOP * 2;
        self.manager.stopping("Draining", at_most);
        if delay.is_zero() {
            return process::info(format_args!("{name}: draining"));
        }
        process::info(format_args!(
            "{name}: health says 503 now; serving on for {}",
            seconds(delay)
        ));
        let end = Instant::now() + delay;
        self.tell_all(|| Command::AnnounceEnd, end).await;
        while let Ok(sent) = timeout_at(end, signals.next()).await {
            match sent {
                Sent::Stop(name) => {
                    return process::info(format_args!("{name} again: draining"));
                }
                other => self.obey_while_ending(&other),
            }
        }
        process::info("draining");
    }

    /// Answers a signal that does not hasten the end.
    fn obey_while_ending(self: &Rc<Self>, sent: &Sent) {
        match sent {
            Sent::Stop(_) => {}
            Sent::Reload => process::warn("SIGHUP: ending, so nothing is reloaded"),
            Sent::Reopen => process::info("SIGUSR1: reopening logs"),
        }
        drop(tokio::task::spawn_local(self.clone().reopen_logs()));
    }

    /// Opens log files by their names again; those that cannot be opened stay as they are.
    async fn reopen_logs(self: Rc<Self>) {
        let wanted = self.state.borrow().config.access_log.clone();
        let opened = open_log(wanted.clone()).await;
        if self.state.borrow().config.access_log != wanted {
            // A reload has opened another one meanwhile.
            return;
        }
        match opened {
            Ok(log) => self.obs.set_access_log(log),
            Err(error) => process::error(error),
        }
    }

    /// Stops accepting, waits for exchanges to finish, and ends the cores.
    async fn drain(self: &Rc<Self>, signals: &mut Signals) -> Result<(), String> {
        self.draining.set(true);
        let grace = self.state.borrow().plan.grace;
        let deadline = Instant::now() + grace;
        self.tell_all(|| Command::Drain { grace }, deadline).await;
        while !self.cores.has_ended() && Instant::now() < deadline {
            match timeout(limits::WATCH, signals.next()).await {
                Ok(Sent::Stop(name)) => {
                    process::warn(format_args!("{name} again: ending at once"));
                    break;
                }
                Ok(other) => self.obey_while_ending(&other),
                Err(_) => {}
            }
        }
        if self.cores.has_ended() {
            process::info("drained");
            return Ok(());
        }
        let (exchanges, connections) = self.obs.load();
        process::warn(format_args!(
            "cutting off {} with {} under way",
            count(connections as usize, "connection"),
            count(exchanges as usize, "exchange"),
        ));
        let deadline = Instant::now() + limits::STOP;
        self.tell_all(|| Command::Stop, deadline).await;
        while !self.cores.has_ended() {
            if Instant::now() >= deadline {
                return Err("the cores do not end; leaving without them".to_owned());
            }
            sleep(limits::WATCH).await;
        }
        Ok(())
    }

    /// Sends a command to every core.
    async fn tell_all(
        &self,
        mut command: impl FnMut() -> Command<ListenSocket>,
        deadline: Instant,
    ) {
        for core in 0..self.cores.count() {
            let _ = timeout(
                deadline.saturating_duration_since(Instant::now()),
                self.tell(core, command()),
            )
            .await;
        }
    }

    /// Sends a command to a core, however long its mailbox is full.
    async fn tell(&self, core: usize, mut command: Command<ListenSocket>) {
        let begun = Instant::now();
        let mut said = false;
        while let Err(back) = self.cores.send(core, command) {
            let late = self.draining.get() && matches!(back, Command::Plan { .. });
            if late || self.cores.has_ended() {
                return;
            }
            command = back;
            if !said && begun.elapsed() > limits::MAILBOX_PATIENCE {
                process::warn(format_args!("core {core} does not empty its mailbox"));
                said = true;
            }
            sleep(limits::MAILBOX_RETRY).await;
        }
    }

    /// Has all cores change, each by a command of its own, and waits until they have: what is said to have changed has
    /// changed then. Not for ever for one that is stuck.
    async fn change(&self, mut command: impl FnMut(Receipt) -> Command<ListenSocket>) {
        let (receipt, receipts) = Receipts::new();
        for core in 0..self.cores.count() {
            self.tell(core, command(receipt.clone())).await;
        }
        drop(receipt);
        wait_for_cores(receipts).await;
    }

    /// Has all cores use these endpoints, of the plan of `plan_epoch`. A core whose mailbox is full reads the board.
    async fn change_endpoints(&self, plan_epoch: u64, endpoints: &Arc<EndpointSets>) {
        self.cores.board().post(plan_epoch, endpoints.clone());
        let (receipt, receipts) = Receipts::new();
        for core in 0..self.cores.count() {
            let command = Command::Endpoints {
                endpoints: endpoints.clone(),
                epoch: plan_epoch,
                receipt: receipt.clone(),
            };
            drop(self.cores.send(core, command));
        }
        drop(receipt);
        wait_for_cores(receipts).await;
    }

    /// Logs which endpoints begin to fail, which answer again, and what cores report.
    async fn watch_endpoints(self: Rc<Self>) {
        let mut troubles = EndpointTroubles::default();
        loop {
            sleep(limits::TROUBLE_WATCH).await;
            self.log_reports();
            let now = std::time::Instant::now();
            for (level, text) in self.obs.look_for_trouble(&mut troubles, now) {
                process::say(level, text);
            }
        }
    }

    /// Logs what cores have reported.
    fn log_reports(&self) {
        for report in self.obs.take_reports() {
            process::say(report.level(), report);
        }
    }

    /// Writes the rest of the log and removes what was made.
    fn finish(&self) {
        self.log_reports();
        let mut state = self.state.borrow_mut();
        state.admin = None;
        state.pid_file = None;
        state.files.clear();
        self.obs.stop();
    }

    /// TCP addresses that this process listens on, as the running configuration has them.
    fn tcp_addresses(&self) -> Vec<SocketAddr> {
        let config = &self.state.borrow().config;
        let listeners = config.listeners.iter().map(|listener| &listener.address);
        let tcp = |address: &weir_config::Address| match address {
            weir_config::Address::Tcp(ip) => Some(*ip),
            weir_config::Address::Unix(_) => None,
        };
        listeners.chain(&config.admin).filter_map(tcp).collect()
    }
}

/// Waits until all cores have obeyed, or one is stuck.
async fn wait_for_cores(receipts: Receipts) {
    let obeyed = timeout(limits::OBEY_PATIENCE, receipts.all()).await;
    if obeyed.is_err() {
        process::warn("not every core runs what has changed: one does not read its mailbox");
    }
}

/// Signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

enum Sent {
    Stop(&'static str),
    Reload,
    Reopen,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let listen =
            |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user1: listen(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Sent {
        tokio::select! {
            _ = self.terminate.recv() => Sent::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Sent::Stop("SIGINT"),
            _ = self.hangup.recv() => Sent::Reload,
            _ = self.user1.recv() => Sent::Reopen,
        }
    }
}

/// Opens the access log. A file system that does not answer holds up a thread of its own.
async fn open_log(log: Option<weir_config::AccessLog>) -> Result<Option<AccessLog>, String> {
    let Some(log) = log else { return Ok(None) };
    let name = match &log.to {
        weir_config::LogTarget::Stdout => "standard output".to_owned(),
        weir_config::LogTarget::File(path) => path.display().to_string(),
    };
    let open = move || {
        let style = LineStyle::new(log.format, Redactor::new(log.redact.as_deref()));
        match log.to {
            weir_config::LogTarget::Stdout => AccessLog::stdout(style),
            weir_config::LogTarget::File(path) => AccessLog::file(path, style),
        }
    };
    let opened = timeout(limits::FILE_PATIENCE, tokio::task::spawn_blocking(open)).await;
    let why = match opened {
        Ok(Ok(Ok(log))) => return Ok(Some(log)),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => "opening it panicked".to_owned(),
        Err(_) => format!("no answer within {}", seconds(limits::FILE_PATIENCE)),
    };
    Err(format!("cannot open the access log {name}: {why}"))
}

fn say_warnings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        process::warn(warning.to_log());
    }
}

fn announce(
    (plan, endpoints): (&Plan, &EndpointSets),
    started: &Started,
    choice: &cpus::Choice,
    admin: Option<&Admin>,
) {
    let pinned: Vec<_> = choice.cpus.iter().flatten().map(usize::to_string).collect();
    let pinned = if pinned.is_empty() {
        "not pinned".to_owned()
    } else {
        format!("on {}", pinned.join(","))
    };
    let (version, features) = (env!("CARGO_PKG_VERSION"), &started.features);
    let cores = count(started.cores, "core");
    process::info(format_args!(
        "weir {version}: {cores} {pinned}; io_uring: {features}"
    ));
    choice.remark.iter().for_each(process::warn);
    process::info(summary(plan, endpoints));
    process::info(format_args!("listening on {}", few(&started.addresses)));
    if let Some(admin) = admin {
        process::info(format_args!("metrics and health on {}", admin.address()));
    }
}

/// A number of things: `1 core`, `2 cores`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A plan and its endpoints in a few words.
fn summary(plan: &Plan, endpoints: &EndpointSets) -> String {
    format!(
        "plan {}: {}, {}, {} with {}",
        plan.epoch,
        count(plan.listeners.len(), "listener"),
        count(plan.routes.len(), "route"),
        count(plan.upstreams.len(), "upstream"),
        count(endpoints.count(), "endpoint"),
    )
}

fn few(addresses: &[String]) -> String {
    let (named, rest) = addresses.split_at(addresses.len().min(limits::LISTENERS_NAMED_MAX));
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!(" and {} more", rest.len())
    };
    format!("{}{rest}", named.join(", "))
}

/// A whole number of seconds, for people.
fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}
