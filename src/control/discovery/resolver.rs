//! Finds the endpoints of a configuration: looks up host names, asks sources of endpoints, and keeps the last good
//! answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;
use weir_config::{Config, Endpoint, EndpointAddress, SourceKind};

use super::dns::{DnsClient, FoundAddresses};
use super::found::{FoundEndpoints, FoundName, FoundSource};
use super::question::{self, Cursor, Found, SourceAnswer};
use super::records::{Record, Success};
use crate::control::limits;
use crate::control::phrases::{count, seconds};

/// Looks up names, asks sources, and keeps their last good answers. Clones share the answers.
#[derive(Clone, Default)]
pub struct Resolver {
    memory: Arc<Mutex<Memory>>,
}

/// The answers so far. Callers lock it for a moment only, never while they wait for an answer.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) names: BTreeMap<String, Record<Vec<IpAddr>>>,
    pub(super) sources: BTreeMap<String, SourceRecord>,
    /// Moves when a good answer differs from the one before.
    version: u64,
    /// The last ticket of a question.
    ticket: u64,
}

/// The answers of one source.
pub(super) struct SourceRecord {
    pub(super) record: Record<Arc<[Endpoint]>>,
    cursor: Cursor,
}

/// The names and sources that a configuration asks about.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Host names of endpoints, those in answers of sources included.
    pub(super) hosts: BTreeSet<String>,
    /// Sources by their names.
    pub(super) sources: BTreeMap<String, SourceKind>,
}

/// What Weir asks about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Host(String),
    Source(String),
}

impl Wanted {
    fn questions(&self) -> BTreeSet<Question> {
        let hosts = self.hosts.iter().cloned().map(Question::Host);
        let sources = self.sources.keys().cloned().map(Question::Source);
        hosts.chain(sources).collect()
    }
}

/// Questions that are due now.
#[derive(Default)]
pub(super) struct DueQuestions {
    pub(super) hosts: Vec<(String, u64)>,
    pub(super) sources: Vec<(String, SourceKind, Cursor, u64)>,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LogLine {
    Info(String),
    Warning(String),
}

impl Resolver {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A thread that panicked cannot have left it broken, because every step leaves it whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `read` with the answers so far.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Memory) -> T) -> T {
        read(&self.memory())
    }

    /// The version of the answers. It moves when endpoints may change.
    pub(in crate::control) fn version(&self) -> u64 {
        self.memory().version
    }

    /// Looks up all names and asks all sources of a configuration at once. Blocks for [`limits::NAMES_PATIENCE`] at most:
    /// what is silent for longer counts as failed. Must not run on a thread that drives tasks.
    pub(in crate::control) fn look_up(&self, config: &Config) -> FoundEndpoints {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                LocalSet::new().block_on(&runtime, self.ask_all(config));
                // A file system that does not answer keeps its thread, and nothing waits for the thread.
                runtime.shutdown_background();
            }
            Err(error) => {
                let why = format!("nothing can be looked up: {error}");
                let wanted = self.memory().wanted(config);
                let unanswered = wanted.questions();
                self.memory().fail(&unanswered, &why);
            }
        }
        self.recall(config)
    }

    async fn ask_all(&self, config: &Config) {
        let dns = Rc::new(DnsClient::new(&config.dns));
        let wanted = self.memory().wanted(config);
        let mut unanswered = wanted.questions();
        let room = Rc::new(Semaphore::new(limits::LOOKUPS_AT_ONCE_MAX));
        let mut questions = JoinSet::new();
        for (name, kind) in wanted.sources {
            let (resolver, dns, room) = (self.clone(), dns.clone(), room.clone());
            questions.spawn_local(async move {
                let _place = room.acquire().await;
                let answer = resolver.ask_source(&kind, Cursor::default(), &dns).await;
                resolver.note_source(&name, answer);
                Question::Source(name)
            });
        }
        for host in wanted.hosts {
            let (resolver, dns, room) = (self.clone(), dns.clone(), room.clone());
            questions.spawn_local(async move {
                let _place = room.acquire().await;
                let answer = dns.addresses(&host).await;
                resolver.note_name(&host, answer);
                Question::Host(host)
            });
        }
        let all = async {
            while let Some(answered) = questions.join_next().await {
                answered.iter().for_each(|it| _ = unanswered.remove(it));
            }
        };
        let _ = timeout(limits::NAMES_PATIENCE, all).await;
        let silent = format!("no answer within {}", seconds(limits::NAMES_PATIENCE));
        self.memory().fail(&unanswered, &silent);
    }

    /// Asks a source, and looks up the hosts in its answer that nothing is known of, so that new endpoints have addresses
    /// when they replace others.
    pub(super) async fn ask_source(
        &self,
        kind: &SourceKind,
        cursor: Cursor,
        dns: &DnsClient,
    ) -> SourceAnswer {
        let mut answer = question::ask(kind, cursor, dns).await;
        let Ok(Found::Endpoints(endpoints)) = &answer.outcome else {
            return answer;
        };
        let hosts: BTreeSet<_> = endpoints.iter().filter_map(host).collect();
        let is_new = |host: &&str| !self.memory().names.contains_key(*host);
        let new: Vec<_> = hosts.iter().copied().filter(is_new).collect();
        for some in new.chunks(limits::LOOKUPS_AT_ONCE_MAX) {
            let lookups = some.iter().map(|host| async {
                let answer = dns.addresses(host).await;
                self.note_name(host, answer);
            });
            join_all(lookups).await;
        }
        let has_address = |endpoint: &Endpoint| {
            let names = &self.memory().names;
            let known = |host| names.get(host).is_some_and(|record| record.good.is_some());
            host(endpoint).is_none_or(known)
        };
        if !endpoints.iter().any(has_address) {
            answer.outcome = Err("none of the names in it has an address".to_owned());
        }
        answer
    }

    /// Notes what a lookup gave. Returns what to log.
    pub(super) fn note_name(
        &self,
        host: &str,
        answer: Result<FoundAddresses, String>,
    ) -> Option<LogLine> {
        self.memory().note_name(host, answer, Instant::now())
    }

    /// Notes what a source answered. Returns what to log.
    pub(super) fn note_source(&self, name: &str, answer: SourceAnswer) -> Option<LogLine> {
        self.memory().note_source(name, answer, Instant::now())
    }

    /// Notes that a lookup is over.
    pub(super) fn end_name(&self, host: &str, ticket: u64) {
        if let Some(record) = self.memory().names.get_mut(host) {
            record.end(ticket);
        }
    }

    /// Notes that a question to a source is over.
    pub(super) fn end_source(&self, name: &str, ticket: u64) {
        if let Some(source) = self.memory().sources.get_mut(name) {
            source.record.end(ticket);
        }
    }

    /// The names and sources that a configuration asks about.
    pub(super) fn wanted(&self, config: &Config) -> Wanted {
        self.memory().wanted(config)
    }

    /// The questions that are due, at most `room`. They count as asked.
    pub(super) fn take_due(&self, wanted: &Wanted, room: usize) -> DueQuestions {
        self.memory().take_due(wanted, room, Instant::now())
    }

    /// What is known of a configuration's endpoints. Asks nothing.
    pub(in crate::control) fn recall(&self, config: &Config) -> FoundEndpoints {
        self.memory().recall(config)
    }

    /// Forgets all names and sources that the configuration does not have.
    pub(in crate::control) fn forget_others(&self, config: &Config) {
        let mut memory = self.memory();
        let sources = memory.wanted(config).sources;
        memory.sources.retain(|name, _| sources.contains_key(name));
        let hosts = memory.wanted(config).hosts;
        memory.names.retain(|host, _| hosts.contains(host));
    }
}

impl Memory {
    fn wanted(&self, config: &Config) -> Wanted {
        let mut wanted = Wanted::default();
        for upstream in &config.upstreams {
            let hosts = upstream.endpoints.iter().filter_map(host);
            wanted.hosts.extend(hosts.map(str::to_owned));
            for source in &upstream.sources {
                let name = source.kind.to_string();
                let known = self.sources.get(&name);
                let found = known.and_then(|known| known.record.good.as_ref());
                let hosts = found.into_iter().flat_map(|found| found.iter());
                let hosts = hosts.filter_map(host).map(str::to_owned);
                wanted.hosts.extend(hosts);
                wanted.sources.insert(name, source.kind.clone());
            }
        }
        wanted
    }

    fn take_due(&mut self, wanted: &Wanted, room: usize, now: Instant) -> DueQuestions {
        let mut due = DueQuestions::default();
        for (name, kind) in &wanted.sources {
            let known = self.sources.get(name);
            if known.is_none_or(|known| known.record.is_due(now)) {
                self.ticket += 1;
                let ticket = self.ticket;
                let known = self.source(name, now);
                known.record.begin(ticket);
                let cursor = known.cursor;
                due.sources
                    .push((name.clone(), kind.clone(), cursor, ticket));
            }
        }
        for host in &wanted.hosts {
            if due.hosts.len() >= room {
                break;
            }
            let known = self.names.get(host);
            if known.is_none_or(|known| known.is_due(now)) {
                self.ticket += 1;
                let ticket = self.ticket;
                self.name(host, now).begin(ticket);
                due.hosts.push((host.clone(), ticket));
            }
        }
        due
    }

    fn name(&mut self, host: &str, now: Instant) -> &mut Record<Vec<IpAddr>> {
        let known = self.names.entry(host.to_owned());
        known.or_insert_with(|| Record::new(now))
    }

    fn source(&mut self, name: &str, now: Instant) -> &mut SourceRecord {
        let known = self.sources.entry(name.to_owned());
        known.or_insert_with(|| SourceRecord {
            record: Record::new(now),
            cursor: Cursor::default(),
        })
    }

    fn note_name(
        &mut self,
        host: &str,
        answer: Result<FoundAddresses, String>,
        now: Instant,
    ) -> Option<LogLine> {
        let record = self.name(host, now);
        let before = record.good.clone().unwrap_or_default();
        match answer {
            Ok(found) => {
                let mut addresses = found.addresses;
                // A family that could not be asked for keeps what it had.
                let missing = found.missing;
                let kept = |ip: &&IpAddr| missing.is_some_and(|family| family.has(**ip));
                addresses.extend(before.iter().filter(kept));
                let success = record.succeed(addresses.clone(), found.ttl, now);
                self.version += u64::from(success.is_new);
                let shown = list(&addresses);
                match success {
                    Success {
                        failed_for: Some(took),
                        ..
                    } => Some(LogLine::Info(format!(
                        "found {host} after {}: {shown}",
                        seconds(took)
                    ))),
                    Success { is_new: true, .. } if !before.is_empty() => Some(LogLine::Info(
                        format!("{host} has changed from {} to {shown}", list(&before)),
                    )),
                    _ => None,
                }
            }
            Err(why) => {
                let warning = match before.is_empty() {
                    true => format!("{host} is not found: {why}"),
                    false => format!("{host} is not found now: {why}; it keeps {}", list(&before)),
                };
                let is_logged = record.fail(why, None, now);
                is_logged.then_some(LogLine::Warning(warning))
            }
        }
    }

    fn note_source(&mut self, name: &str, answer: SourceAnswer, now: Instant) -> Option<LogLine> {
        let source = self.source(name, now);
        source.cursor = answer.cursor;
        let record = &mut source.record;
        let before = record.good.clone();
        let kept = before.as_ref().map_or(0, |before| before.len());
        match answer.outcome {
            Ok(Found::Endpoints(found)) => {
                let found: Arc<[Endpoint]> = found.into();
                let change = changes(before.as_deref().unwrap_or_default(), &found);
                let age = answer.age.unwrap_or(limits::NAMES_RETRY);
                let success = record.succeed(found, age, now);
                self.version += u64::from(success.is_new);
                let after = success
                    .failed_for
                    .map(|took| format!(" after {}", seconds(took)));
                (success.is_new || after.is_some()).then(|| {
                    LogLine::Info(format!(
                        "{name} answers{}: {change}",
                        after.unwrap_or_default()
                    ))
                })
            }
            Ok(Found::Unchanged) => {
                record.stay(answer.age.unwrap_or(limits::NAMES_RETRY), now);
                let overdue = record.take_overdue(now)?;
                Some(LogLine::Warning(failed(name, &overdue.why, kept)))
            }
            Err(why) => {
                let warning = failed(name, &why, kept);
                let is_logged = record.fail(why, answer.age, now);
                is_logged.then_some(LogLine::Warning(warning))
            }
        }
    }

    /// Notes that these questions have failed.
    fn fail(&mut self, questions: &BTreeSet<Question>, why: &str) {
        let now = Instant::now();
        for question in questions {
            match question {
                Question::Host(host) => self.name(host, now).fail(why.to_owned(), None, now),
                Question::Source(name) => {
                    let record = &mut self.source(name, now).record;
                    record.fail(why.to_owned(), None, now)
                }
            };
        }
    }

    fn recall(&self, config: &Config) -> FoundEndpoints {
        let wanted = self.wanted(config);
        let hosts = wanted.hosts.into_iter().map(|host| {
            let known = self.names.get(&host);
            let found = FoundName {
                addresses: known.and_then(|it| it.good.clone()).unwrap_or_default(),
                failure: known.and_then(|it| Some(it.failure.as_ref()?.why.clone())),
            };
            (host, found)
        });
        let sources = wanted.sources.into_keys().map(|name| {
            let known = self.sources.get(&name).map(|source| &source.record);
            let found = FoundSource {
                endpoints: known.and_then(|it| it.good.clone()),
                failure: known.and_then(|it| Some(it.failure.as_ref()?.why.clone())),
            };
            (name, found)
        });
        FoundEndpoints {
            names: hosts.collect(),
            sources: sources.collect(),
            version: self.version,
        }
    }
}

/// The host that control looks up for an endpoint.
pub(super) fn host(endpoint: &Endpoint) -> Option<&str> {
    match &endpoint.address {
        EndpointAddress::Name { host, .. } => Some(host),
        EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => None,
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    addresses.join(", ")
}

fn failed(name: &str, why: &str, kept: usize) -> String {
    match kept {
        0 => format!("{name} gives no endpoints: {why}"),
        kept => format!(
            "{name} gives no endpoints: {why}; it keeps {}",
            count(kept, "endpoint")
        ),
    }
}

/// What changed from one list to the next, in words.
fn changes(before: &[Endpoint], after: &[Endpoint]) -> String {
    let all = count(after.len(), "endpoint");
    if before.is_empty() {
        return all;
    }
    let missing_in = |list: &[Endpoint], other: &[Endpoint]| {
        let known: BTreeSet<_> = other.iter().map(Endpoint::to_string).collect();
        let is_missing = |endpoint: &&Endpoint| !known.contains(&endpoint.to_string());
        list.iter().filter(is_missing).count()
    };
    let (new, gone) = (missing_in(after, before), missing_in(before, after));
    format!("{all}, {new} new, {gone} gone")
}

/// Waits for all of these futures, which run side by side.
async fn join_all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
