//! The control thread does everything slow or global. It loads and reloads the configuration, binds sockets, starts the
//! cores, obeys signals, and serves metrics and health. No request waits for it.
#![forbid(unsafe_code)]

mod access_log;
mod admin;
mod admin_pages;
mod admin_slots;
mod admin_token;
mod api;
mod certificates;
mod commands;
mod cpus;
pub mod demo;
mod discovery;
mod drain;
mod endpoint_metrics;
mod endpoint_overrides;
mod endpoint_sets;
mod endpoint_watch;
mod error_files;
mod fetch;
mod handover;
pub mod health;
mod inherited_sockets;
mod ip_lists;
mod issuer_keys;
mod key_files;
mod limits;
mod listen;
mod load;
mod memory_limit;
mod occupants;
mod phrases;
mod pid_file;
mod predecessor;
mod preflight;
mod process_user;
mod reload;
mod service_manager;
mod shared_pages;
mod signals;
mod start;
mod sticky_keys;
mod system;
mod upgrade;
mod user_access;
mod watchdog;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::timeout;

pub use admin_token::{AdminToken, read_token};
pub use api::{ExplainHook, ExplainRequest};
pub use discovery::{FoundEndpoints, Resolver};
pub use ip_lists::IpLists;
pub use load::{LoadError, LoadedConfig, MachineCheck, NameLookup, Source, load, load_untested};
pub(crate) use phrases::count;

use crate::io::Address;
use crate::obs::{Obs, process};
use crate::plan::{EndpointSets, Plan};
use crate::policy;
use crate::serving::Cores;
use crate::tls::TicketKeys;
use admin::Admin;
use certificates::Certificates;
use demo::DemoEndpoints;
use endpoint_overrides::EndpointOverrides;
use health::Health;
use ip_lists::WatchedIpLists;
use issuer_keys::IssuerKeys;
use key_files::KeyFiles;
pub use key_files::named_key_files;
use listen::OwnedFile;
use predecessor::Predecessor;
use service_manager::ServiceManager;
use shared_pages::SharedPages;
use signals::{ProcessSignal, Signals};

/// What a process is to do.
pub struct Options {
    /// Where its configuration comes from.
    pub source: Source,
    /// Endpoints to try Weir with, which this process serves.
    pub demo: Option<DemoEndpoints>,
    /// Explains requests, for the admin API.
    pub explain: ExplainHook,
    /// Called once everything listens.
    pub ready: Box<dyn FnOnce(&Started)>,
}

/// A process that serves.
pub struct Started {
    /// The addresses it listens on.
    pub addresses: Vec<String>,
    /// The number of cores.
    pub cores: usize,
    /// The driver and the features that the kernel granted it.
    pub features: String,
}

/// Why a process ended, other than by a signal.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is invalid.
    Config(LoadError),
    /// The process could not start, or broke.
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

/// Runs until a signal stops the process. SIGTERM and SIGINT drain after `drain_delay`; a second one skips the rest of
/// the delay, or of the drain. SIGHUP reloads the configuration and reopens logs. SIGUSR1 reopens logs.
/// SIGUSR2 replaces the process by a new one.
///
/// # Errors
/// Weir cannot start, or the cores break.
pub fn run(options: Options) -> Result<(), Failure> {
    process::log_panics();
    let _flush = FlushLog;
    let predecessor = Predecessor::from_environment().map_err(Failure::Run)?;
    let voice = predecessor.as_ref().and_then(Predecessor::voice);
    let outcome = run_after(options, predecessor);
    if let (Err(failure), Some(voice)) = (&outcome, voice) {
        handover::say_failed(&voice, &failure.to_string());
    }
    outcome
}

/// Runs in place of `predecessor`, if there is one.
fn run_after(options: Options, predecessor: Option<Predecessor>) -> Result<(), Failure> {
    let tickets = predecessor.as_ref().map(|old| old.tickets.clone());
    let (tickets, resolver) = (tickets.unwrap_or_default(), Resolver::default());
    let loaded = load(
        &options.source,
        NameLookup::Resolve(&resolver),
        MachineCheck::Skip,
        Some(&tickets),
    )
    .map_err(Failure::Config)?;
    loaded.log_warnings();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| Failure::Run(format!("cannot start the control thread: {error}")))?;
    let local = tokio::task::LocalSet::new();
    let outcome = local.block_on(
        &runtime,
        start::start(options, loaded, (tickets, resolver), predecessor),
    );
    // The process does not wait for a name lookup that a reload has left behind.
    runtime.shutdown_background();
    outcome.map_err(Failure::Run)
}

/// Flushes the process log when dropped, however the process ends.
struct FlushLog;

impl Drop for FlushLog {
    fn drop(&mut self) {
        process::flush();
    }
}

/// The running process as control sees it.
struct Control {
    source: Source,
    tickets: TicketKeys,
    resolver: Resolver,
    cores: Cores,
    obs: Obs,
    manager: ServiceManager,
    state: RefCell<State>,
    /// Serializes changes of the plan and the endpoints, and upgrades.
    change_lock: tokio::sync::Mutex<()>,
    /// Explains requests, for the admin API.
    explain: ExplainHook,
    refused_tokens: api::RefusalLog,
    draining: Cell<bool>,
    /// Another process has taken over, so this one ends.
    is_replaced: Cell<bool>,
    /// The program that an upgrade starts, if this process can be replaced.
    program: Option<PathBuf>,
    /// Addresses whose sockets the process inherited.
    inherited: Vec<Address>,
    started_ms: u64,
    metrics_pages: SharedPages,
    plan_pages: SharedPages,
}

/// The part of control that a reload may replace.
struct State {
    plan: Arc<Plan>,
    /// The endpoints of the file and its names.
    base_endpoints: Arc<EndpointSets>,
    /// What operators change of them.
    overrides: EndpointOverrides,
    /// The endpoints in use, which follow from both.
    endpoints: Arc<EndpointSets>,
    config: Arc<weir_config::Config>,
    /// The text of the running file without its secrets and comments; empty without a file.
    text: Arc<str>,
    /// The state of what the resolver knew when the endpoints were compiled.
    found_version: u64,
    admin: Option<Admin>,
    admin_token: Option<AdminToken>,
    files: Vec<OwnedFile>,
    pid_file: Option<OwnedFile>,
    reloads: ReloadStats,
    certificates: Certificates,
    ip_lists: WatchedIpLists,
    policies: policy::Registry,
    issuer_keys: IssuerKeys,
    key_files: KeyFiles,
    health: Health,
}

/// Outcomes of reloads.
#[derive(Default)]
struct ReloadStats {
    done: u64,
    failed: u64,
    last_error: Option<String>,
    last_ms: u64,
}

impl Control {
    /// Obeys signals until a drain is over.
    async fn obey_signals(self: Rc<Self>, signals: &mut Signals) -> Result<(), String> {
        let reloader = Rc::new(reload::Reloader::new(self.clone()));
        drop(tokio::task::spawn_local(
            self.clone().watch_discovery(reloader.clone()),
        ));
        loop {
            match timeout(limits::WATCH * 10, signals.next()).await {
                Ok(ProcessSignal::Stop(name)) => {
                    self.delay_drain(name, signals).await;
                    return self.drain(signals).await;
                }
                Ok(ProcessSignal::Reload) => reloader.request(),
                Ok(ProcessSignal::Upgrade) => {
                    let control = self.clone();
                    drop(tokio::task::spawn_local(async move {
                        if let upgrade::UpgradeOutcome::Impossible(why) = control.upgrade().await {
                            process::error(format_args!("SIGUSR2: {why}"));
                        }
                    }));
                }
                Err(_) if self.is_replaced.get() => return self.drain_replaced(signals).await,
                Ok(ProcessSignal::Reopen) => {
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

    /// The TCP addresses in the current configuration that this process listens on.
    fn tcp_addresses(&self) -> Vec<SocketAddr> {
        let config = &self.state.borrow().config;
        let listeners = config.listeners.iter().map(|listener| &listener.address);
        let tcp = |address: &weir_config::Address| match address {
            weir_config::Address::Tcp(ip) => Some(*ip),
            weir_config::Address::Unix(_) => None,
        };
        let admin = config.admin.as_ref().map(|admin| &admin.address);
        listeners.chain(admin).filter_map(tcp).collect()
    }
}
