//! Asks names and sources again while the process runs, and sends cores the endpoints.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use weir_config::Config;

use super::dns::DnsClient;
use super::resolver::{LogLine, Resolver, Wanted};
use crate::control::load::unfit_message;
use crate::control::phrases::summary;
use crate::control::reload::Reloader;
use crate::control::{Control, limits};
use crate::obs::process;
use crate::plan::EndpointSets;

/// What the last round wanted. It stays while neither the configuration nor the answers change.
struct LastWanted {
    config: Arc<Config>,
    version: u64,
    wanted: Wanted,
}

impl Control {
    /// Asks for names and sources again when it is time, until the process drains.
    pub(in crate::control) async fn watch_discovery(self: Rc<Self>, reloader: Rc<Reloader>) {
        let room = Rc::new(Semaphore::new(limits::LOOKUPS_AT_ONCE_MAX));
        let mut last: Option<LastWanted> = None;
        while !self.draining.get() {
            sleep(limits::NAMES_WATCH).await;
            let (config, used) = {
                let state = self.state.borrow();
                (state.config.clone(), state.found_version)
            };
            let version = self.resolver.version();
            if version != used {
                reloader.request_endpoints();
            }
            let is_current =
                |last: &&LastWanted| Arc::ptr_eq(&last.config, &config) && last.version == version;
            if last.as_ref().filter(is_current).is_none() {
                let wanted = self.resolver.wanted(&config);
                last = Some(LastWanted {
                    config: config.clone(),
                    version,
                    wanted,
                });
            }
            if let Some(last) = &last {
                ask_due(&self.resolver, &config, &last.wanted, &room);
            }
        }
    }

    /// Sends cores endpoints with what was found since the last ones. The [`Reloader`] calls it, never during a reload.
    pub(in crate::control) async fn refresh_endpoints(self: &Rc<Self>) {
        let _turn = self.change_lock.lock().await;
        let (config, resolver) = (self.state.borrow().config.clone(), self.resolver.clone());
        let compile = move || {
            let found = resolver.recall(&config);
            (found.version, found.endpoints(&config))
        };
        let Ok((version, endpoints)) = tokio::task::spawn_blocking(compile).await else {
            return;
        };
        self.state.borrow_mut().found_version = version;
        let mut endpoints = match endpoints {
            Ok(endpoints) => endpoints,
            Err(problems) => {
                for problem in problems {
                    process::error(format_args!(
                        "cannot use the endpoints that were found: {problem}"
                    ));
                }
                return;
            }
        };
        if self.draining.get() {
            return;
        }
        let (base, overrides) = {
            let state = self.state.borrow();
            (state.base_endpoints.clone(), state.overrides.clone())
        };
        endpoints.share_unchanged(&base);
        self.warn_of_unfit(&endpoints, &base);
        if endpoints.is_same(&base) {
            return;
        }
        self.use_endpoints(Arc::new(endpoints), overrides).await;
        let state = self.state.borrow();
        process::info(summary(&state.plan, &state.endpoints));
    }

    /// Warns of endpoints that sources have given since `base`, and that are left out.
    fn warn_of_unfit(&self, endpoints: &EndpointSets, base: &EndpointSets) {
        let state = self.state.borrow();
        let upstreams = state.config.upstreams.iter().zip(endpoints.iter());
        for ((upstream, set), before) in upstreams.zip(base.iter()) {
            for endpoint in &set.unfit {
                if !before.unfit.contains(endpoint) {
                    process::warn(unfit_message(&upstream.name, endpoint));
                }
            }
        }
    }
}

/// Asks the questions that are due, each in a task of its own.
fn ask_due(resolver: &Resolver, config: &Config, wanted: &Wanted, room: &Rc<Semaphore>) {
    let due = resolver.take_due(wanted, room.available_permits());
    if due.hosts.is_empty() && due.sources.is_empty() {
        return;
    }
    let dns = Rc::new(DnsClient::new(&config.dns));
    for (host, ticket) in due.hosts {
        let (resolver, dns, room) = (resolver.clone(), dns.clone(), room.clone());
        tokio::task::spawn_local(async move {
            let _place = room.acquire().await;
            let answer = timeout(limits::LOOKUP_PATIENCE, dns.addresses(&host)).await;
            let answer = answer.unwrap_or_else(|_| Err("the DNS servers do not answer".to_owned()));
            log(resolver.note_name(&host, answer));
            resolver.end_name(&host, ticket);
        });
    }
    for (name, kind, cursor, ticket) in due.sources {
        let (resolver, dns) = (resolver.clone(), dns.clone());
        tokio::task::spawn_local(async move {
            let answer = timeout(SOURCE_PATIENCE, resolver.ask_source(&kind, cursor, &dns)).await;
            if let Ok(answer) = answer {
                log(resolver.note_source(&name, answer));
            }
            resolver.end_source(&name, ticket);
        });
    }
}

/// How long a question to a source may take with the lookups of its hosts. Each step has a limit of its own, so this one
/// ends only a question that hangs because of a bug.
const SOURCE_PATIENCE: Duration = Duration::from_secs(120);

fn log(line: Option<LogLine>) {
    match line {
        Some(LogLine::Info(line)) => process::info(line),
        Some(LogLine::Warning(line)) => process::warn(line),
        None => {}
    }
}
