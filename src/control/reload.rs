//! Reloads the configuration of a running process.
//!
//! Everything that can fail comes first: reading, parsing, compiling, the file's own tests, binding new sockets,
//! opening logs. Only then does anything change. A reload that fails leaves no trace but its message.

use std::cell::Cell;
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout;
use weir_config::{Account, Config, NamedFile};

use super::admin::Admin;
use super::admin_token::AdminToken;
use super::discovery::FoundEndpoints;
use super::endpoint_overrides::EndpointOverrides;
use super::inherited_sockets::InheritedSockets;
use super::ip_lists::IpLists;
use super::key_files::KeyFiles;
use super::listen::{self, BoundSockets, OwnedFile};
use super::load::{LoadError, LoadedConfig, MachineCheck, NameLookup, Source, load};
use super::phrases::{count, few, seconds, summary};
use super::{Control, access_log, issuer_keys, limits, system};
use crate::io::Address;
use crate::obs::{AccessLog, process};
use crate::plan::{EndpointSets, ListenerDiff, Plan};
use crate::serving::Command;
use crate::tls;

/// Runs reloads one after the other. Requests during a reload are one more reload.
pub(super) struct Reloader {
    control: Rc<Control>,
    is_running: Rc<Cell<bool>>,
    is_wanted: Rc<Cell<bool>>,
    /// Names were found, so cores need new endpoints.
    has_new_endpoints: Rc<Cell<bool>>,
}

impl Reloader {
    pub(super) fn new(control: Rc<Control>) -> Self {
        Self {
            control,
            is_running: Rc::default(),
            is_wanted: Rc::default(),
            has_new_endpoints: Rc::default(),
        }
    }

    /// Reloads now, or after the current reload.
    pub(super) fn request(&self) {
        self.is_wanted.set(true);
        self.begin();
    }

    /// Sends cores the endpoints that were found now, or after the current reload.
    pub(super) fn request_endpoints(&self) {
        self.has_new_endpoints.set(true);
        self.begin();
    }

    fn begin(&self) {
        if self.is_running.replace(true) {
            return;
        }
        let (control, is_running) = (self.control.clone(), self.is_running.clone());
        let (is_wanted, has_new_endpoints) =
            (self.is_wanted.clone(), self.has_new_endpoints.clone());
        tokio::task::spawn_local(async move {
            loop {
                if is_wanted.replace(false) {
                    drop(control.reload().await);
                } else if has_new_endpoints.replace(false) {
                    control.refresh_endpoints().await;
                } else {
                    break;
                }
            }
            is_running.set(false);
        });
    }
}

/// How a reload ended.
pub(super) enum ReloadOutcome {
    /// It took effect. The text says how.
    Done(String),
    /// The configuration is from the command line.
    NoFile,
    /// The process began to drain meanwhile.
    Draining,
    /// It changed nothing.
    Failed(ReloadFailure),
}

/// Why a reload failed.
pub(super) enum ReloadFailure {
    /// The file has mistakes.
    Config(LoadError),
    /// Anything else, such as an address in use.
    Other(String),
}

impl From<String> for ReloadFailure {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

impl fmt::Display for ReloadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// Everything that a reload puts into effect.
struct PreparedReload {
    plan: Arc<Plan>,
    base_endpoints: Arc<EndpointSets>,
    overrides: EndpointOverrides,
    endpoints: Arc<EndpointSets>,
    config: Config,
    text: Arc<str>,
    found: FoundEndpoints,
    tls: tls::LoadedTls,
    ip_lists: IpLists,
    key_files: KeyFiles,
    admin_token: Option<AdminToken>,
    bound: BoundSockets,
    admin: Change<Admin>,
    access_log: Option<AccessLog>,
    /// Addresses of listeners that the new plan does not have.
    gone: Vec<Address>,
}

/// Keeps a part, or replaces it by another or by none.
enum Change<T> {
    Keep,
    To(Option<T>),
}

impl Control {
    /// Reloads once no other change is under way, and tells the service manager the outcome, because the manager waits for
    /// the end of every reload.
    pub(super) async fn reload(self: &Rc<Self>) -> ReloadOutcome {
        let _turn = self.change_lock.lock().await;
        self.manager.reloading();
        let outcome = self.try_reload().await;
        if !self.draining.get() {
            let status = match &outcome {
                ReloadOutcome::Done(done) => done.clone(),
                ReloadOutcome::NoFile => "no file to reload".to_owned(),
                ReloadOutcome::Draining => String::new(),
                ReloadOutcome::Failed(failure) => self.describe_failed(failure),
            };
            self.manager.ready(status);
        }
        outcome
    }

    /// A failed reload in a few words.
    fn describe_failed(&self, failure: &ReloadFailure) -> String {
        let error = failure.to_string();
        let first = error.lines().find(|line| line.starts_with("error"));
        let first = first.unwrap_or(&error);
        let state = self.state.borrow();
        format!(
            "reload failed: {first}; still running {}",
            summary(&state.plan, &state.endpoints)
        )
    }

    async fn try_reload(self: &Rc<Self>) -> ReloadOutcome {
        if !matches!(self.source, Source::File(_)) {
            process::warn("SIGHUP: there is no file to reload; reopening logs");
            self.clone().reopen_logs().await;
            return ReloadOutcome::NoFile;
        }
        let begun = Instant::now();
        let outcome = match self.prepare().await {
            Ok(_) if self.draining.get() => return ReloadOutcome::Draining,
            Ok(ready) => {
                self.swap(ready).await;
                Ok(())
            }
            Err(error) => {
                self.clone().reopen_logs().await;
                Err(error)
            }
        };
        let mut state = self.state.borrow_mut();
        state.reloads.last_ms = process::now_ms();
        match outcome {
            Ok(()) => {
                state.reloads.done += 1;
                state.reloads.last_error = None;
                let done = format!(
                    "reloaded in {}: {}",
                    seconds(begun.elapsed()),
                    summary(&state.plan, &state.endpoints)
                );
                process::info(&done);
                ReloadOutcome::Done(done)
            }
            Err(failure) => {
                state.reloads.failed += 1;
                let error = failure.to_string();
                process::error(format_args!(
                    "reload failed, nothing has changed:\n{}",
                    error.trim_end()
                ));
                state.reloads.last_error = Some(error);
                ReloadOutcome::Failed(failure)
            }
        }
    }

    /// Does everything that can fail.
    async fn prepare(&self) -> Result<PreparedReload, ReloadFailure> {
        let (source, tickets) = (self.source.clone(), self.tickets.clone());
        let (inherited, resolver) = (self.inherited.clone(), self.resolver.clone());
        // Resolving names may take seconds. If a lookup never ends, its thread stays behind.
        let load = tokio::task::spawn_blocking(move || {
            load(
                &source,
                NameLookup::Resolve(&resolver),
                MachineCheck::Reload(&inherited),
                Some(&tickets),
            )
        });
        let loaded = timeout(limits::RELOAD_PATIENCE, load).await;
        let loaded = loaded.map_err(|_| {
            let patience = seconds(limits::RELOAD_PATIENCE);
            format!("the file could not be read and its names resolved within {patience}")
        })?;
        let loaded = loaded.map_err(|_| "the configuration's compiler has panicked".to_owned())?;
        let loaded = loaded.map_err(ReloadFailure::Config)?;
        loaded.log_warnings();
        let LoadedConfig {
            config,
            text,
            mut plan,
            endpoints: base,
            tls,
            ip_lists,
            found,
            key_files,
            admin_token,
            ..
        } = loaded;
        // Also if the file names the same log as before, because someone may have moved it away.
        let access_log = access_log::open(config.access_log.clone()).await?;
        let taken = self.tcp_addresses();
        plan.states.equip(&mut self.state.borrow_mut().policies);
        let fetched = issuer_keys::prefetch(plan.states.key_boards().cloned().collect()).await;
        self.state.borrow_mut().issuer_keys.note_all(fetched);
        let state = self.state.borrow();
        plan.epoch = state.plan.epoch + 1;
        let overrides = state.overrides.after_reload(&config, &base);
        let mut endpoints = overrides.apply(&config, &base);
        endpoints.epoch = state.endpoints.epoch + 1;
        system::fit(&mut plan, &endpoints, &config, self.cores.count());
        let diff = ListenerDiff::between(&state.plan, &plan);
        let mut none = InheritedSockets::default();
        let bound = listen::bind(&plan, &diff.added, self.cores.count(), &taken, &mut none)?;
        let address = config.admin.as_ref().map(|admin| &admin.address);
        let admin = if address == state.config.admin.as_ref().map(|admin| &admin.address) {
            Change::Keep
        } else {
            let bind = |address| Admin::bind(address, &taken, &mut none);
            Change::To(address.map(bind).transpose()?)
        };
        warn_of_next_start(&state.config, &config, &diff);
        let gone = diff
            .removed
            .iter()
            .filter_map(|id| state.plan.listener(*id));
        let gone = gone.map(|listener| listener.address.clone()).collect();
        Ok(PreparedReload {
            plan: Arc::new(plan),
            base_endpoints: Arc::new(base),
            overrides,
            endpoints: Arc::new(endpoints),
            config,
            text: text.into(),
            found,
            tls,
            ip_lists,
            key_files,
            admin_token,
            bound,
            admin,
            access_log,
            gone,
        })
    }

    /// Puts a reload into effect. Nothing here can fail.
    async fn swap(self: &Rc<Self>, ready: PreparedReload) {
        let PreparedReload {
            plan,
            base_endpoints,
            overrides,
            endpoints,
            config,
            text,
            found,
            tls,
            ip_lists,
            mut key_files,
            admin_token,
            bound,
            admin,
            access_log,
            gone,
        } = ready;
        {
            let state = &mut *self.state.borrow_mut();
            key_files.post(&state.policies, &mut state.issuer_keys);
            state.key_files = key_files;
        }
        // Cores need names and counters before their first exchange under the new plan.
        self.obs.prepare(&plan, &endpoints);
        self.obs.set_access_log(access_log);
        let mut sockets = bound.sockets.into_iter();
        let command = |receipt| Command::Plan {
            plan: plan.clone(),
            endpoints: endpoints.clone(),
            sockets: sockets.next().unwrap_or_default(),
            receipt,
        };
        let registry = self.cores.upstreams();
        {
            let state = &mut *self.state.borrow_mut();
            let tls_of = |number: usize| plan.upstreams.get(number)?.tls.clone();
            let old = (&*state.plan, &*state.endpoints);
            let new = (&*plan, &*endpoints);
            state.health.begin_checks(registry, new, old, tls_of);
        }
        self.change(command).await;
        if !bound.addresses.is_empty() {
            process::info(format_args!(
                "reload: listening on {} too",
                few(&bound.addresses)
            ));
        }
        let state = &mut *self.state.borrow_mut();
        state.health.end_checks(registry, &plan, &endpoints);
        state
            .files
            .retain(|file| !gone.iter().any(|address| is_file(address, file)));
        state.files.extend(bound.files);
        state.plan = plan;
        state.endpoints = endpoints;
        let dropped = state.overrides.count().saturating_sub(overrides.count());
        if dropped > 0 {
            process::info(format_args!(
                "reload: dropped the changes to {} that were not to persist",
                count(dropped, "endpoint")
            ));
        }
        state.base_endpoints = base_endpoints;
        state.overrides = overrides;
        self.resolver.forget_others(&config);
        state.config = Arc::new(config);
        state.text = text;
        state.admin_token = admin_token;
        state.found_version = found.version;
        state.certificates.replace(tls);
        state.ip_lists.replace(ip_lists);
        if let Change::To(mut admin) = admin {
            if let Some(admin) = &mut admin {
                admin.serve(self.clone());
            }
            state.admin = admin;
        }
    }
}

/// Warns of changed keys that take effect at the next start.
fn warn_of_next_start(old: &Config, new: &Config, diff: &ListenerDiff) {
    let keys = [
        ("cores", new.cores == old.cores),
        ("driver", new.driver == old.driver),
        ("user", name(&new.user) == name(&old.user)),
        ("group", name(&new.group) == name(&old.group)),
        ("pid_file", path(&new.pid_file) == path(&old.pid_file)),
    ];
    for (key, _) in keys.iter().filter(|(_, is_same)| !is_same) {
        process::warn(format_args!(
            "reload: `{key}` takes effect at the next start"
        ));
    }
    if diff.kept.iter().any(|kept| kept.socket_changed) {
        process::warn(
            "reload: `backlog` and `mode` of a listener that stays take effect at the next start",
        );
    }
}

fn name(account: &Option<Account>) -> Option<&str> {
    account.as_ref().map(|account| account.name.as_str())
}

fn path(file: &Option<NamedFile>) -> Option<&Path> {
    file.as_ref().map(|file| file.path.as_path())
}

fn is_file(address: &Address, file: &OwnedFile) -> bool {
    matches!(address, Address::Unix(path) if **path == file.path)
}
