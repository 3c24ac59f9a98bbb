//! Starts the process: sockets, user, logs, cores, in that order.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use weir_config::Config;

use super::admin::Admin;
use super::certificates::Certificates;
use super::demo::DemoEndpoints;
use super::discovery::Resolver;
use super::endpoint_overrides::EndpointOverrides;
use super::health::Health;
use super::inherited_sockets::InheritedSockets;
use super::ip_lists::WatchedIpLists;
use super::issuer_keys::{self, IssuerKeys};
use super::key_files::KeyFiles;
use super::listen::{self, BoundSockets, OwnedFile};
use super::load::LoadedConfig;
use super::phrases::{count, few, summary};
use super::predecessor::Predecessor;
use super::process_user::{self, ProcessUser};
use super::service_manager::ServiceManager;
use super::shared_pages::SharedPages;
use super::signals::Signals;
use super::{
    Control, Options, ReloadStats, Started, State, access_log, cpus, pid_file, system, upgrade,
};
use crate::io::Address;
use crate::obs::{Obs, process};
use crate::plan::{EndpointSets, ListenerId, Plan};
use crate::policy;
use crate::serving::{Command, CoreSpec, Cores};
use crate::tls::TicketKeys;
use crate::upstream::UpstreamRegistry;

/// Starts the process and runs it until it has drained.
///
/// # Errors
/// Weir cannot start, or the cores break.
pub(super) async fn start(
    options: Options,
    loaded: LoadedConfig,
    (tickets, resolver): (TicketKeys, Resolver),
    mut predecessor: Option<Predecessor>,
) -> Result<(), String> {
    let Options {
        source,
        demo,
        explain,
        ready,
    } = options;
    let (config, mut key_files) = (loaded.config, loaded.key_files);
    let (mut plan, endpoints) = first_epoch(loaded.plan, loaded.endpoints);
    let program = program(demo.as_ref());
    let mut signals = Signals::new()?;
    let manager = ServiceManager::from_environment();
    let open_files = raise_limits();
    let choice = cpus::choose(&config.cores)?;
    let cores = choice.cpus.len();
    let policies = connect_policies(&mut plan, cores);
    system::fit(&mut plan, &endpoints, &config, cores);
    let (plan, base_endpoints) = (Arc::new(plan), Arc::new(endpoints));
    let (overrides, endpoints) = handed_endpoints(predecessor.as_ref(), &config, &base_endpoints);
    let (health, registry) = first_health(&plan, &endpoints, cores, predecessor.as_ref()).await;
    let StartSockets {
        bound,
        admin,
        inherited,
    } = StartSockets::bind(&config, &plan, cores, predecessor.as_mut())?;
    become_user(&config, &bound, admin.as_ref())?;
    let issuer_keys = first_keys(&mut key_files, &policies, &plan).await;
    check_pid_file(&config, predecessor.as_ref())?;
    let access_log = access_log::open(config.access_log.clone()).await?;
    let (obs, sides) = Obs::start(cores, (&plan, &endpoints), access_log)
        .map_err(|error| format!("cannot start the log thread: {error}"))?;
    let spec = CoreSpec {
        driver: config.driver,
        cpus: choice.cpus.clone(),
        plan: plan.clone(),
        endpoints: endpoints.clone(),
        sockets: bound.sockets,
        obs: sides,
        upstreams: registry,
    };
    let cores = Cores::start(spec).map_err(|error| system::explain_start(&error))?;
    serve_demo(demo)?;
    let started = Started {
        addresses: bound.addresses,
        cores: cores.count(),
        features: cores.features().to_owned(),
    };
    log_start((&plan, &endpoints), &started, &choice, admin.as_ref());
    process::info(open_files);
    system::warn_of_shortages((&plan, &endpoints), &config, started.cores);
    let state = State {
        plan,
        base_endpoints,
        overrides,
        endpoints,
        config: Arc::new(config),
        text: loaded.text.into(),
        found_version: loaded.found.version,
        admin: None,
        admin_token: loaded.admin_token,
        files: bound.files,
        pid_file: None,
        reloads: ReloadStats::default(),
        certificates: Certificates::new(loaded.tls),
        ip_lists: WatchedIpLists::new(loaded.ip_lists),
        policies,
        issuer_keys,
        key_files,
        health,
    };
    let control = Rc::new(Control {
        source,
        tickets,
        resolver,
        cores,
        obs,
        manager,
        state: RefCell::new(state),
        change_lock: tokio::sync::Mutex::default(),
        explain,
        refused_tokens: Default::default(),
        draining: Cell::new(false),
        is_replaced: Cell::new(false),
        program,
        inherited,
        started_ms: process::now_ms(),
        metrics_pages: SharedPages::default(),
        plan_pages: SharedPages::default(),
    });
    if let Some(mut admin) = admin {
        admin.serve(control.clone());
        control.state.borrow_mut().admin = Some(admin);
    }
    control.begin_watches();
    control.announce(predecessor).await?;
    ready(&started);
    let outcome = control.clone().obey_signals(&mut signals).await;
    control.finish();
    outcome
}

/// The program that an upgrade starts. `None` for a demo, because its endpoints would end.
fn program(demo: Option<&DemoEndpoints>) -> Option<PathBuf> {
    demo.is_none().then(upgrade::own_program).flatten()
}

/// Checks the endpoints before clients can connect, and posts the verdicts.
async fn first_health(
    plan: &Plan,
    endpoints: &EndpointSets,
    cores: usize,
    predecessor: Option<&Predecessor>,
) -> (Health, Arc<UpstreamRegistry>) {
    let known = predecessor.map_or(&[][..], |old| &old.verdicts);
    let mut health = Health::start(plan, endpoints, known).await;
    let registry = Arc::new(UpstreamRegistry::new(cores));
    health.post_first(&registry);
    (health, registry)
}

/// Raises the limits of the process. Returns what the log says about open files.
fn raise_limits() -> String {
    let open_files = system::raise_open_files();
    system::raise_locked_memory();
    open_files
}

fn first_epoch(mut plan: Plan, mut endpoints: EndpointSets) -> (Plan, EndpointSets) {
    (plan.epoch, endpoints.epoch) = (1, 1);
    (plan, endpoints)
}

fn serve_demo(demo: Option<DemoEndpoints>) -> Result<(), String> {
    demo.map_or(Ok(()), DemoEndpoints::serve)
        .map_err(|error| format!("cannot serve the demo's endpoints: {error}"))
}

/// Checks that the pid file can be written.
fn check_pid_file(config: &Config, predecessor: Option<&Predecessor>) -> Result<(), String> {
    let file = config.pid_file.as_ref();
    file.map_or(Ok(()), |file| {
        pid_file::check(&file.path, predecessor.map(|old| old.pid)).map(|_| ())
    })
}

/// Makes what all cores share for policies.
fn connect_policies(plan: &mut Plan, cores: usize) -> policy::Registry {
    let mut policies = policy::Registry::default();
    policies.limits.set_cores(cores);
    plan.states.equip(&mut policies);
    policies
}

/// Gets the keys of issuers: those in files, and as many of the others as answer soon.
async fn first_keys(files: &mut KeyFiles, policies: &policy::Registry, plan: &Plan) -> IssuerKeys {
    let mut keys = IssuerKeys::default();
    files.post(policies, &mut keys);
    let boards = plan.states.key_boards().cloned().collect();
    keys.note_all(issuer_keys::prefetch(boards).await);
    keys
}

impl Control {
    /// Begins to watch what changes without a reload.
    fn begin_watches(self: &Rc<Self>) {
        tokio::task::spawn_local(self.clone().watch_certificates());
        tokio::task::spawn_local(self.clone().watch_ip_lists());
        tokio::task::spawn_local(self.clone().watch_endpoints());
        tokio::task::spawn_local(self.clone().watch_health());
        tokio::task::spawn_local(self.clone().watch_keys());
    }
}

/// The changes that the process which this one replaces had made, and the endpoints with them. `base` has those of the
/// file.
fn handed_endpoints(
    predecessor: Option<&Predecessor>,
    config: &Config,
    base: &Arc<EndpointSets>,
) -> (EndpointOverrides, Arc<EndpointSets>) {
    let Some(old) = predecessor else {
        return (EndpointOverrides::default(), base.clone());
    };
    let overrides = old.overrides.after_reload(config, base);
    let mut endpoints = overrides.apply(config, base);
    endpoints.epoch = base.epoch;
    (overrides, Arc::new(endpoints))
}

/// All sockets of a start.
struct StartSockets {
    bound: BoundSockets,
    admin: Option<Admin>,
    /// Addresses whose sockets the process inherited.
    inherited: Vec<Address>,
}

impl StartSockets {
    fn bind(
        config: &Config,
        plan: &Plan,
        cores: usize,
        predecessor: Option<&mut Predecessor>,
    ) -> Result<Self, String> {
        let all: Vec<_> = (0..).map(ListenerId).take(plan.listeners.len()).collect();
        let mut inherited = match predecessor {
            Some(old) => {
                old.check_driver(
                    Cores::choose_driver(config.driver)
                        .map_err(|error| system::explain_start(&error))?,
                )?;
                InheritedSockets::from_predecessor(old.take_sockets())?
            }
            None => InheritedSockets::from_environment(),
        };
        let taken = inherited.handed_ports();
        let bound = listen::bind(plan, &all, cores, &taken, &mut inherited)?;
        let mut bind_admin = |address| Admin::bind(address, &taken, &mut inherited);
        let admin = config.admin.as_ref().map(|admin| &admin.address);
        let admin = admin.map(&mut bind_admin).transpose()?;
        Ok(Self {
            bound,
            admin,
            inherited: inherited.taken(),
        })
    }
}

/// Drops root's rights once all sockets are bound. The user owns files and rings that the process makes from here on.
fn become_user(config: &Config, bound: &BoundSockets, admin: Option<&Admin>) -> Result<(), String> {
    let user = ProcessUser::of(config).map_err(|(_, why)| why)?;
    let Some(user) = user.filter(|user| !user.is_current() || user.is_root()) else {
        return Ok(());
    };
    let admin_file = admin.and_then(Admin::file);
    for file in bound.files.iter().chain(admin_file) {
        user.own(&file.path)?;
    }
    let admin_port = match config.admin.as_ref().map(|admin| &admin.address) {
        Some(weir_config::Address::Tcp(address)) => Some(*address),
        _ => None,
    };
    let keeps_ports = process_user::needs_ports(bound.ports.iter().chain(&admin_port));
    user.assume(keeps_ports)?;
    process::info(user.describe(keeps_ports));
    Ok(())
}

impl Control {
    /// Tells the service manager that everything listens and every core runs.
    async fn announce(self: &Rc<Self>, predecessor: Option<Predecessor>) -> Result<(), String> {
        self.change(|receipt| Command::Answer { _receipt: receipt })
            .await;
        if let Some(old) = &predecessor {
            old.replace().await?;
            process::info(format_args!(
                "upgrade: serves in place of process {}",
                old.pid
            ));
        }
        let old = predecessor.map(|old| old.pid);
        let mut state = self.state.borrow_mut();
        let admin_file = state.admin.as_ref().and_then(Admin::file);
        state
            .files
            .iter()
            .chain(admin_file)
            .for_each(OwnedFile::own);
        let path = state.config.pid_file.as_ref().map(|file| &file.path);
        state.pid_file = path.map(|path| pid_file::write(path, old)).transpose()?;
        self.manager.ready(summary(&state.plan, &state.endpoints));
        tokio::task::spawn_local(self.clone().feed_watchdog());
        Ok(())
    }
}

fn log_start(
    (plan, endpoints): (&Plan, &EndpointSets),
    started: &Started,
    choice: &cpus::CpuChoice,
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
    process::info(format_args!("limits: {}", plan.capacity));
}
