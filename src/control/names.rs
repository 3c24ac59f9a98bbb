//! Host names of endpoints: looked up all at once and within a limit, and again for as long as one is not found. Nobody
//! waits for a name: its endpoint comes in when it has an address.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use weir_config::{Config, EndpointAddress};

use super::reload::Reloader;
use super::{Control, count, limits, seconds, summary};
use crate::obs::{MetricKind, MetricsPage, process};
use crate::plan::{EndpointSets, Problem};

/// Asks the system for the addresses of a host.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Looks names up, and remembers what was found. Its copies share what they know.
#[derive(Clone)]
pub struct Resolver {
    look_up: Arc<LookUp>,
    memory: Arc<Mutex<Memory>>,
    patience: Duration,
}

/// What is known of names.
#[derive(Default)]
struct Memory {
    /// Addresses that were found last.
    known: HashMap<String, Vec<IpAddr>>,
    /// Names that a thread is asking for.
    asked: HashSet<String>,
    /// Answers that came when nobody waited for them any more.
    late: HashMap<String, Vec<IpAddr>>,
}

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its addresses: those that were found now, else those that were found before.
    addresses: Vec<IpAddr>,
    /// Why none were found now.
    failure: Option<String>,
}

/// What is known of hosts, by name.
#[derive(Clone, Debug, Default)]
pub struct Answers(BTreeMap<String, Answer>);

impl Default for Resolver {
    /// The system's, hosts file included.
    fn default() -> Self {
        let look_up = |host: &str| {
            let found = (host, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        };
        Self::with(look_up, limits::NAMES_PATIENCE)
    }
}

impl Resolver {
    fn with(
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
        patience: Duration,
    ) -> Self {
        Self {
            look_up: Arc::new(look_up),
            memory: Arc::default(),
            patience,
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // The maps are whole after every step, so a panic elsewhere cannot have left one broken.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks these hosts up, several at a time. Blocks, but not for long: a name whose servers are silent is not found,
    /// and its thread is left behind.
    pub(super) fn look_up(&self, hosts: &BTreeSet<String>) -> Answers {
        let (mut found, queue) = self.begin(hosts);
        let queue = Arc::new(Mutex::new(queue));
        let (tell, hear) = mpsc::channel();
        let threads = lock(&queue).len().min(limits::NAMES_AT_ONCE_MAX);
        for _ in 0..threads {
            let (resolver, queue, tell) = (self.clone(), queue.clone(), tell.clone());
            let name = "weir-names".to_owned();
            let spawned = thread::Builder::new()
                .name(name)
                .spawn(move || resolver.work(&queue, &tell));
            if spawned.is_err() {
                break;
            }
        }
        drop(tell);
        let deadline = Instant::now() + self.patience;
        while let Ok((host, outcome)) =
            hear.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            found.insert(host, outcome);
        }
        lock(&queue).clear();
        let mut memory = self.memory();
        let answers = hosts.iter().map(|host| {
            let outcome = found.remove(host).unwrap_or_else(|| {
                let silent = format!("no answer within {}", seconds(self.patience));
                Err(io::Error::other(silent))
            });
            let failure = match outcome {
                Ok(addresses) if addresses.is_empty() => Some("the name has no address".to_owned()),
                Ok(addresses) => {
                    memory.known.insert(host.clone(), addresses);
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            let addresses = memory.known.get(host).cloned().unwrap_or_default();
            (host.clone(), Answer { addresses, failure })
        });
        Answers(answers.collect())
    }

    /// What was found out when nobody waited for it, and what is to be asked.
    fn begin(
        &self,
        hosts: &BTreeSet<String>,
    ) -> (HashMap<String, io::Result<Vec<IpAddr>>>, Vec<String>) {
        let mut memory = self.memory();
        let (mut found, mut queue) = (HashMap::new(), Vec::new());
        for host in hosts {
            if let Some(addresses) = memory.late.remove(host) {
                found.insert(host.clone(), Ok(addresses));
            } else if memory.asked.insert(host.clone()) {
                queue.push(host.clone());
            } else {
                let still = "a look-up that began before has no answer yet";
                found.insert(host.clone(), Err(io::Error::other(still)));
            }
        }
        (found, queue)
    }

    /// Looks up what is in the queue, on a thread of its own.
    fn work(
        &self,
        queue: &Mutex<Vec<String>>,
        tell: &mpsc::Sender<(String, io::Result<Vec<IpAddr>>)>,
    ) {
        loop {
            let Some(host) = lock(queue).pop() else {
                return;
            };
            let outcome = (self.look_up)(&host);
            self.memory().asked.remove(&host);
            if let Err(mpsc::SendError((host, Ok(addresses)))) = tell.send((host, outcome))
                && !addresses.is_empty()
            {
                self.memory().late.insert(host, addresses);
            }
        }
    }

    /// What is known of these hosts without asking anybody.
    fn recall(&self, hosts: &BTreeSet<String>) -> Answers {
        let memory = self.memory();
        let recall = |host: &String| {
            let addresses = memory.known.get(host).cloned().unwrap_or_default();
            let failure = addresses.is_empty().then(|| "it was not found".to_owned());
            (host.clone(), Answer { addresses, failure })
        };
        Answers(hosts.iter().map(recall).collect())
    }

    /// Forgets the names that a configuration does not have.
    pub(super) fn forget_others(&self, hosts: &BTreeSet<String>) {
        let mut memory = self.memory();
        memory.known.retain(|host, _| hosts.contains(host));
        memory.late.retain(|host, _| hosts.contains(host));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hosts that a configuration names as endpoints.
pub(super) fn hosts(config: &Config) -> BTreeSet<String> {
    let endpoints = config.upstreams.iter().flat_map(|it| &it.endpoints);
    let host = |endpoint: &weir_config::Endpoint| match &endpoint.address {
        EndpointAddress::Name { host, .. } => Some(host.clone()),
        EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => None,
    };
    endpoints.filter_map(host).collect()
}

impl Answers {
    /// The endpoints of a configuration with these addresses.
    pub(super) fn endpoints(&self, config: &Config) -> Result<EndpointSets, Vec<Problem>> {
        EndpointSets::compile(config, &|host, port| self.addresses(host, port))
    }

    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let answer = self.0.get(host);
        let addresses = answer.map_or(&[][..], |answer| &answer.addresses);
        match answer.and_then(|answer| answer.failure.as_deref()) {
            Some(failure) if addresses.is_empty() => Err(io::Error::other(failure)),
            _ => Ok(addresses.iter().map(|ip| (*ip, port).into()).collect()),
        }
    }

    /// Why a host was not found now, and the addresses that it keeps.
    pub(super) fn kept(&self, host: &str) -> Option<(&str, &[IpAddr])> {
        let answer = self.0.get(host)?;
        let failure = answer.failure.as_deref()?;
        (!answer.addresses.is_empty()).then_some((failure, &answer.addresses[..]))
    }
}

/// Names that were not found, and when they are looked up again.
#[derive(Default)]
pub(super) struct Lookups(BTreeMap<String, Missing>);

struct Missing {
    why: String,
    /// The addresses that it has meanwhile: those that were found before.
    kept: Vec<IpAddr>,
    since: Instant,
    tries: u32,
    due: Instant,
}

/// A name that was not found before.
struct Found {
    host: String,
    addresses: Vec<IpAddr>,
    /// Whether they are others than those that it has kept.
    is_new: bool,
    took: Duration,
}

impl Lookups {
    /// Of what a start or a reload has looked up.
    pub(super) fn new(answers: Answers) -> Self {
        let mut lookups = Self::default();
        let now = Instant::now();
        for (host, answer) in answers.0 {
            if let Some(why) = answer.failure {
                let missing = Missing {
                    why,
                    kept: answer.addresses,
                    since: now,
                    tries: 1,
                    due: now + backoff(1),
                };
                lookups.0.insert(host, missing);
            }
        }
        lookups
    }

    fn due(&self, now: Instant) -> BTreeSet<String> {
        let due = self.0.iter().filter(|(_, missing)| missing.due <= now);
        due.map(|(host, _)| host.clone()).collect()
    }

    /// Notes what was looked up again; gives what was found.
    fn take(&mut self, answers: Answers, now: Instant) -> Vec<Found> {
        let mut found = Vec::new();
        for (host, answer) in answers.0 {
            // A reload may have dropped it meanwhile.
            let Some(missing) = self.0.get_mut(&host) else {
                continue;
            };
            if let Some(why) = answer.failure {
                missing.tries += 1;
                missing.due = now + backoff(missing.tries);
                missing.why = why;
            } else if let Some(missing) = self.0.remove(&host) {
                found.push(Found {
                    host,
                    is_new: answer.addresses != missing.kept,
                    addresses: answer.addresses,
                    took: now - missing.since,
                });
            }
        }
        found
    }

    /// One sample for each endpoint that is a name.
    pub(super) fn metrics(&self, config: &Config, page: &mut MetricsPage) {
        let help = "1 while the name of an endpoint is not found; it is looked up again and again.";
        page.family("weir_endpoint_unresolved", MetricKind::Gauge, help);
        for upstream in &config.upstreams {
            for endpoint in &upstream.endpoints {
                if let EndpointAddress::Name { host, .. } = &endpoint.address {
                    let name = endpoint.to_string();
                    let labels = [("upstream", &*upstream.name), ("endpoint", &*name)];
                    page.sample(&labels, self.0.contains_key(host).into());
                }
            }
        }
    }

    /// A line for each name that is not found.
    pub(super) fn health(&self, out: &mut String) {
        let now = Instant::now();
        for (host, missing) in self.0.iter().take(limits::NAMES_SHOWN_MAX) {
            let (why, next) = (&missing.why, missing.due.saturating_duration_since(now));
            let next = next.as_secs();
            let tries = count(missing.tries as usize, "look-up");
            let _ = writeln!(
                out,
                "{host} is not found: {why} ({tries}, the next in {next} s)"
            );
        }
        if self.0.len() > limits::NAMES_SHOWN_MAX {
            let more = self.0.len() - limits::NAMES_SHOWN_MAX;
            let _ = writeln!(out, "{more} more names are not found");
        }
    }
}

/// How long to wait after so many look-ups that failed: doubling, with jitter, so that boxes that started together do
/// not ask together.
fn backoff(tries: u32) -> Duration {
    let doubled = limits::NAMES_RETRY.saturating_mul(1 << (tries - 1).min(16));
    doubled
        .min(limits::NAMES_RETRY_MAX)
        .mul_f64(0.75 + 0.5 * fastrand::f64())
}

impl Control {
    /// Looks up again what was not found, for as long as the process lives.
    pub(super) async fn watch_names(self: Rc<Self>, reloader: Rc<Reloader>) {
        while !self.draining.get() {
            sleep(limits::NAMES_WATCH).await;
            let due = self.state.borrow().lookups.due(Instant::now());
            if due.is_empty() {
                continue;
            }
            let resolver = self.resolver.clone();
            let looked_up = tokio::task::spawn_blocking(move || resolver.look_up(&due));
            let Ok(answers) = looked_up.await else {
                continue;
            };
            let mut state = self.state.borrow_mut();
            let found = state.lookups.take(answers, Instant::now());
            drop(state);
            for Found {
                host,
                addresses,
                took,
                ..
            } in &found
            {
                let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
                process::info(format_args!(
                    "found {host} after {}: {}",
                    seconds(*took),
                    addresses.join(", ")
                ));
            }
            if found.iter().any(|found| found.is_new) {
                reloader.request_names();
            }
        }
    }

    /// Sends cores the endpoints with the addresses found since the last ones were sent. Between reloads only.
    pub(super) async fn take_names(self: &Rc<Self>) {
        let (config, resolver) = (self.state.borrow().config.clone(), self.resolver.clone());
        let compile = move || resolver.recall(&hosts(&config)).endpoints(&config);
        let mut endpoints = match tokio::task::spawn_blocking(compile).await {
            Ok(Ok(endpoints)) => endpoints,
            Ok(Err(problems)) => {
                for problem in problems {
                    process::error(format_args!("names that were found: {problem}"));
                }
                return;
            }
            Err(_) => return,
        };
        if self.draining.get() {
            return;
        }
        let (plan, old) = {
            let state = self.state.borrow();
            (state.plan.clone(), state.endpoints.clone())
        };
        endpoints.share_unchanged(&old);
        endpoints.epoch = old.epoch + 1;
        let endpoints = Arc::new(endpoints);
        self.obs.prepare(&plan, &endpoints);
        self.change_endpoints(plan.epoch, &endpoints).await;
        self.state.borrow_mut().endpoints = endpoints.clone();
        process::info(summary(&plan, &endpoints));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    fn hosts(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn addresses(answers: &Answers, host: &str) -> Result<Vec<String>, String> {
        let found = answers.addresses(host, 80);
        found
            .map(|all| all.iter().map(SocketAddr::to_string).collect())
            .map_err(|error| error.to_string())
    }

    fn not_found() -> io::Error {
        io::Error::other("not found")
    }

    #[test]
    fn what_was_found_before_is_kept_when_it_is_not_found_any_more() {
        let fails = Arc::new(AtomicBool::new(false));
        let does_fail = fails.clone();
        let look_up = move |host: &str| match (host, does_fail.load(Ordering::SeqCst)) {
            ("a", false) => Ok(vec!["10.0.0.1".parse().expect("an address")]),
            ("empty", _) => Ok(Vec::new()),
            _ => Err(not_found()),
        };
        let resolver = Resolver::with(look_up, Duration::from_secs(60));
        let all = hosts(&["a", "b", "empty"]);
        let answers = resolver.look_up(&all);
        assert_eq!(addresses(&answers, "a"), Ok(vec!["10.0.0.1:80".to_owned()]));
        assert_eq!(addresses(&answers, "b"), Err("not found".to_owned()));
        let none = Err("the name has no address".to_owned());
        assert_eq!(addresses(&answers, "empty"), none);
        assert!(answers.kept("a").is_none() && answers.kept("b").is_none());
        fails.store(true, Ordering::SeqCst);
        let answers = resolver.look_up(&all);
        assert_eq!(addresses(&answers, "a"), Ok(vec!["10.0.0.1:80".to_owned()]));
        assert_eq!(answers.kept("a").map(|(why, _)| why), Some("not found"));
        let recalled = resolver.recall(&all);
        assert_eq!(
            addresses(&recalled, "a"),
            Ok(vec!["10.0.0.1:80".to_owned()])
        );
        resolver.forget_others(&hosts(&["b"]));
        assert!(addresses(&resolver.look_up(&all), "a").is_err());
    }

    #[test]
    fn nobody_waits_for_a_silent_server_and_its_late_answer_is_not_lost() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shut, count) = (gate.clone(), asked.clone());
        let look_up = move |host: &str| {
            if host == "slow" {
                count.fetch_add(1, Ordering::SeqCst);
                let mut open = lock(&shut.0);
                while !*open {
                    open = shut.1.wait(open).unwrap_or_else(PoisonError::into_inner);
                }
            }
            Ok(vec!["10.0.0.1".parse().expect("an address")])
        };
        let resolver = Resolver::with(look_up, Duration::from_millis(50));
        let answers = resolver.look_up(&hosts(&["slow", "quick"]));
        assert!(addresses(&answers, "quick").is_ok());
        let late = addresses(&answers, "slow").expect_err("it is silent");
        assert!(late.contains("no answer within"), "{late}");
        // It is not asked twice at a time.
        let still = addresses(&resolver.look_up(&hosts(&["slow"])), "slow");
        assert!(still.is_err_and(|why| why.contains("began before")));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        *lock(&gate.0) = true;
        gate.1.notify_all();
        while resolver.memory().late.is_empty() {
            thread::yield_now();
        }
        assert!(addresses(&resolver.look_up(&hosts(&["slow"])), "slow").is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 1, "the late answer is used");
    }

    #[test]
    fn look_ups_come_apart_as_they_fail() {
        for (tries, seconds) in [(1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (40, 60.0)] {
            let pause = backoff(tries).as_secs_f64();
            assert!(
                (seconds * 0.74..seconds * 1.26).contains(&pause),
                "{tries}: {pause}"
            );
        }
    }
}
