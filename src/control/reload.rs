//! Changing the configuration of a running process.
//!
//! Everything that can fail comes first: reading, parsing, compiling, the file's own tests, binding new sockets,
//! opening logs. Only then does anything change. A reload that fails leaves no trace but its message.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout;
use weir_config::{Account, NamedFile};

use super::admin::Admin;
use super::inherited::Inherited;
use super::listen::{self, Bound, OwnFile};
use super::load::{Loaded, Machine, Names, Source, load};
use super::names::{self, Answers, Lookups};
use super::{Control, few, limits, open_log, say_warnings, seconds, summary, system};
use crate::io::Address;
use crate::obs::{AccessLog, process};
use crate::plan::{EndpointSets, ListenerDiff, Plan};
use crate::serving::Command;
use crate::tls;

/// Reloads one after the other: requests that come meanwhile are one more reload.
pub(super) struct Reloader {
    control: Rc<Control>,
    running: Rc<Cell<bool>>,
    wanted: Rc<Cell<bool>>,
    /// Names were found that are to be taken in.
    has_names: Rc<Cell<bool>>,
}

impl Reloader {
    pub(super) fn new(control: Rc<Control>) -> Self {
        Self {
            control,
            running: Rc::default(),
            wanted: Rc::default(),
            has_names: Rc::default(),
        }
    }

    /// Asks for a reload, now or after the one that is running.
    pub(super) fn request(&self) {
        self.wanted.set(true);
        self.begin();
    }

    /// Asks for what was found of names to be taken in, now or after a reload that is running.
    pub(super) fn request_names(&self) {
        self.has_names.set(true);
        self.begin();
    }

    fn begin(&self) {
        if self.running.replace(true) {
            return;
        }
        let (control, running) = (self.control.clone(), self.running.clone());
        let (wanted, has_names) = (self.wanted.clone(), self.has_names.clone());
        tokio::task::spawn_local(async move {
            loop {
                if wanted.replace(false) {
                    control.reload().await;
                } else if has_names.replace(false) {
                    control.take_names().await;
                } else {
                    break;
                }
            }
            running.set(false);
        });
    }
}

/// Everything that a reload needs, ready to be swapped in.
struct Ready {
    plan: Arc<Plan>,
    endpoints: Arc<EndpointSets>,
    config: weir_config::Config,
    names: Answers,
    tls: tls::LoadedTls,
    bound: Bound,
    admin: Change<Admin>,
    access_log: Option<AccessLog>,
    gone: Vec<Address>,
}

/// A part that stays as it is, or is replaced by another or by none.
enum Change<T> {
    Keep,
    To(Option<T>),
}

impl Control {
    /// Reloads, and tells the service manager how that went: it waits for the end of each that it has asked for.
    async fn reload(self: &Rc<Self>) {
        self.manager.reloading();
        let outcome = self.read_again().await;
        if !self.draining.get() {
            self.manager.ready(outcome);
        }
    }

    /// Does so; says how it went, in a few words.
    async fn read_again(self: &Rc<Self>) -> String {
        if !matches!(self.source, Source::File(_)) {
            process::warn("SIGHUP: there is no file to reload; reopening logs");
            self.clone().reopen_logs().await;
            return "no file to reload".to_owned();
        }
        let begun = Instant::now();
        let outcome = match self.prepare().await {
            Ok(_) if self.draining.get() => return String::new(),
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
                done
            }
            Err(error) => {
                state.reloads.failed += 1;
                process::error(format_args!(
                    "reload failed, nothing has changed:\n{}",
                    error.trim_end()
                ));
                let first = error.lines().find(|line| line.starts_with("error"));
                let first = first.unwrap_or(&error);
                let status = format!(
                    "reload failed: {first}; still running {}",
                    summary(&state.plan, &state.endpoints)
                );
                state.reloads.last_error = Some(error);
                status
            }
        }
    }

    /// Does all that can fail.
    async fn prepare(&self) -> Result<Ready, String> {
        let (source, tickets) = (self.source.clone(), self.tickets.clone());
        let (inherited, resolver) = (self.inherited.clone(), self.resolver.clone());
        // Names are resolved on the way, which may take seconds. A thread that never ends is left behind.
        let load = tokio::task::spawn_blocking(move || {
            load(
                &source,
                Names::Resolve(&resolver),
                Machine::AskToReload(&inherited),
                Some(&tickets),
            )
        });
        let loaded = timeout(limits::RELOAD_PATIENCE, load).await;
        let loaded = loaded.map_err(|_| {
            let patience = seconds(limits::RELOAD_PATIENCE);
            format!("the file could not be read and its names resolved within {patience}")
        })?;
        let loaded = loaded.map_err(|_| "the configuration's compiler has panicked".to_owned())?;
        let loaded = loaded.map_err(|error| error.to_string())?;
        say_warnings(&loaded);
        let Loaded {
            config,
            mut plan,
            mut endpoints,
            tls,
            names,
            ..
        } = loaded;
        // Opened even where the file says the same as before: that log may have been moved away, and a start would
        // open it too.
        let access_log = open_log(config.access_log.clone()).await?;
        let taken = self.tcp_addresses();
        let state = self.state.borrow();
        plan.epoch = state.plan.epoch + 1;
        endpoints.epoch = state.endpoints.epoch + 1;
        system::fit(&mut plan, &endpoints, &config, self.cores.count());
        let diff = ListenerDiff::between(&state.plan, &plan);
        let mut none = Inherited::default();
        let bound = listen::bind(&plan, &diff.added, self.cores.count(), &taken, &mut none)?;
        let admin = if config.admin == state.config.admin {
            Change::Keep
        } else {
            let bind = |address| Admin::bind(address, &taken, &mut none);
            Change::To(config.admin.as_ref().map(bind).transpose()?)
        };
        if config.cores != state.config.cores {
            process::warn("reload: `cores` takes effect at the next start");
        }
        let next_start = [
            ("driver", config.driver == state.config.driver),
            ("user", name(&config.user) == name(&state.config.user)),
            ("group", name(&config.group) == name(&state.config.group)),
            (
                "pid_file",
                path(&config.pid_file) == path(&state.config.pid_file),
            ),
        ];
        for (key, _) in next_start.iter().filter(|(_, is_same)| !is_same) {
            process::warn(format_args!(
                "reload: `{key}` takes effect at the next start"
            ));
        }
        if diff.kept.iter().any(|kept| kept.socket_changed) {
            process::warn(
                "reload: `backlog` and `mode` of a listener that stays take effect at the next start",
            );
        }
        let gone = diff
            .removed
            .iter()
            .filter_map(|id| state.plan.listener(*id));
        let gone = gone.map(|listener| listener.address.clone()).collect();
        Ok(Ready {
            plan: Arc::new(plan),
            endpoints: Arc::new(endpoints),
            config,
            names,
            tls,
            bound,
            admin,
            access_log,
            gone,
        })
    }

    /// Puts it into effect. Nothing here can fail.
    async fn swap(self: &Rc<Self>, ready: Ready) {
        let Ready {
            plan,
            endpoints,
            config,
            names,
            tls,
            bound,
            admin,
            access_log,
            gone,
        } = ready;
        // Names and counters are there before the first exchange that needs them.
        self.obs.prepare(&plan, &endpoints);
        self.obs.set_access_log(access_log);
        let mut sockets = bound.sockets.into_iter();
        let command = |receipt| Command::Plan {
            plan: plan.clone(),
            endpoints: endpoints.clone(),
            sockets: sockets.next().unwrap_or_default(),
            receipt,
        };
        self.change(command).await;
        if !bound.addresses.is_empty() {
            process::info(format_args!(
                "reload: listening on {} too",
                few(&bound.addresses)
            ));
        }
        let mut state = self.state.borrow_mut();
        state
            .files
            .retain(|file| !gone.iter().any(|address| is_file(address, file)));
        state.files.extend(bound.files);
        state.plan = plan;
        state.endpoints = endpoints;
        self.resolver.forget_others(&names::hosts(&config));
        state.config = Arc::new(config);
        state.lookups = Lookups::new(names);
        state.certificates.replace(tls);
        if let Change::To(mut admin) = admin {
            if let Some(admin) = &mut admin {
                admin.serve(self.clone());
            }
            state.admin = admin;
        }
    }
}

fn name(account: &Option<Account>) -> Option<&str> {
    account.as_ref().map(|account| account.name.as_str())
}

fn path(file: &Option<NamedFile>) -> Option<&Path> {
    file.as_ref().map(|file| file.path.as_path())
}

fn is_file(address: &Address, file: &OwnFile) -> bool {
    matches!(address, Address::Unix(path) if **path == file.path)
}
