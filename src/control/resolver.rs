//! Looks up the host names of endpoints, all at once and within a time limit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use weir_config::{Config, EndpointAddress};

use super::limits;
use super::phrases::seconds;
use crate::plan::{EndpointSets, Problem};

/// Asks the system for the addresses of a host.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What a lookup of one host gave.
type Outcome = io::Result<Vec<IpAddr>>;

/// Looks up names and remembers their addresses. Clones share the memory.
#[derive(Clone)]
pub struct Resolver {
    look_up: Arc<LookUp>,
    memory: Arc<Mutex<NameMemory>>,
    patience: Duration,
}

#[derive(Default)]
struct NameMemory {
    /// The addresses that the last successful lookup of each name gave.
    known: HashMap<String, Vec<IpAddr>>,
    /// Names that a thread is looking up.
    pending: HashSet<String>,
    /// Addresses that arrived after the caller had stopped waiting.
    late: HashMap<String, Vec<IpAddr>>,
}

/// A host after a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvedHost {
    /// Its addresses. If the lookup failed, those of the last successful lookup.
    pub(super) addresses: Vec<IpAddr>,
    /// Why the lookup failed.
    pub(super) failure: Option<String>,
}

/// Hosts after a lookup, by name.
#[derive(Clone, Debug, Default)]
pub struct ResolvedHosts(pub(super) BTreeMap<String, ResolvedHost>);

impl Default for Resolver {
    /// The system's resolver, which reads the hosts file too.
    fn default() -> Self {
        let look_up = |host: &str| {
            let found = (host, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        };
        Self::with(look_up, limits::NAMES_PATIENCE)
    }
}

impl Resolver {
    fn with(look_up: impl Fn(&str) -> Outcome + Send + Sync + 'static, patience: Duration) -> Self {
        Self {
            look_up: Arc::new(look_up),
            memory: Arc::default(),
            patience,
        }
    }

    fn memory(&self) -> MutexGuard<'_, NameMemory> {
        lock(&self.memory)
    }

    /// Looks up these hosts, several at a time. Blocks for the resolver's patience at most: a name whose servers are
    /// silent counts as not found, and its thread stays behind.
    pub(super) fn look_up(&self, hosts: &BTreeSet<String>) -> ResolvedHosts {
        let (mut found, queue) = self.begin(hosts);
        let queue = Arc::new(Mutex::new(queue));
        let (sender, receiver) = mpsc::channel();
        let threads = lock(&queue).len().min(limits::NAMES_AT_ONCE_MAX);
        for _ in 0..threads {
            let (resolver, queue, sender) = (self.clone(), queue.clone(), sender.clone());
            let spawned = thread::Builder::new()
                .name("weir-names".to_owned())
                .spawn(move || resolver.work(&queue, &sender));
            if spawned.is_err() {
                break;
            }
        }
        drop(sender);
        let deadline = Instant::now() + self.patience;
        while let Ok((host, outcome)) =
            receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            found.insert(host, outcome);
        }
        lock(&queue).clear();
        let mut memory = self.memory();
        let hosts = hosts.iter().map(|host| {
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
            (host.clone(), ResolvedHost { addresses, failure })
        });
        ResolvedHosts(hosts.collect())
    }

    /// Splits hosts into those with a known outcome and those to look up.
    fn begin(&self, hosts: &BTreeSet<String>) -> (HashMap<String, Outcome>, Vec<String>) {
        let mut memory = self.memory();
        let (mut found, mut queue) = (HashMap::new(), Vec::new());
        for host in hosts {
            if let Some(addresses) = memory.late.remove(host) {
                found.insert(host.clone(), Ok(addresses));
            } else if memory.pending.insert(host.clone()) {
                queue.push(host.clone());
            } else {
                let pending = "a look-up that began before has no answer yet";
                found.insert(host.clone(), Err(io::Error::other(pending)));
            }
        }
        (found, queue)
    }

    /// Looks up the queued hosts, on a thread of its own.
    fn work(&self, queue: &Mutex<Vec<String>>, sender: &mpsc::Sender<(String, Outcome)>) {
        loop {
            let Some(host) = lock(queue).pop() else {
                return;
            };
            let outcome = (self.look_up)(&host);
            self.memory().pending.remove(&host);
            if let Err(mpsc::SendError((host, Ok(addresses)))) = sender.send((host, outcome))
                && !addresses.is_empty()
            {
                self.memory().late.insert(host, addresses);
            }
        }
    }

    /// The remembered addresses of these hosts. Sends no queries.
    pub(super) fn recall(&self, hosts: &BTreeSet<String>) -> ResolvedHosts {
        let memory = self.memory();
        let recall = |host: &String| {
            let addresses = memory.known.get(host).cloned().unwrap_or_default();
            let failure = addresses.is_empty().then(|| "it was not found".to_owned());
            (host.clone(), ResolvedHost { addresses, failure })
        };
        ResolvedHosts(hosts.iter().map(recall).collect())
    }

    /// Forgets all names but these.
    pub(super) fn forget_others(&self, hosts: &BTreeSet<String>) {
        let mut memory = self.memory();
        memory.known.retain(|host, _| hosts.contains(host));
        memory.late.retain(|host, _| hosts.contains(host));
    }
}

/// Locks what lookups share. A thread that panicked cannot have left it broken, because every step leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host names among a configuration's endpoints.
pub(super) fn hosts(config: &Config) -> BTreeSet<String> {
    let endpoints = config.upstreams.iter().flat_map(|it| &it.endpoints);
    let host = |endpoint: &weir_config::Endpoint| match &endpoint.address {
        EndpointAddress::Name { host, .. } => Some(host.clone()),
        EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => None,
    };
    endpoints.filter_map(host).collect()
}

impl ResolvedHosts {
    /// The endpoints of a configuration with these addresses.
    pub(super) fn endpoints(&self, config: &Config) -> Result<EndpointSets, Vec<Problem>> {
        EndpointSets::compile(config, &|host, port| self.addresses(host, port))
    }

    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let resolved = self.0.get(host);
        let addresses = resolved.map_or(&[][..], |host| &host.addresses);
        match resolved.and_then(|host| host.failure.as_deref()) {
            Some(failure) if addresses.is_empty() => Err(io::Error::other(failure)),
            _ => Ok(addresses.iter().map(|ip| (*ip, port).into()).collect()),
        }
    }

    /// For a host whose lookup failed but whose former addresses are known: why it failed, and these addresses.
    pub(super) fn kept(&self, host: &str) -> Option<(&str, &[IpAddr])> {
        let resolved = self.0.get(host)?;
        let failure = resolved.failure.as_deref()?;
        (!resolved.addresses.is_empty()).then_some((failure, &resolved.addresses[..]))
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

    fn addresses(resolved: &ResolvedHosts, host: &str) -> Result<Vec<String>, String> {
        let found = resolved.addresses(host, 80);
        found
            .map(|all| all.iter().map(SocketAddr::to_string).collect())
            .map_err(|error| error.to_string())
    }

    fn not_found() -> io::Error {
        io::Error::other("not found")
    }

    #[test]
    fn a_name_that_is_not_found_any_more_keeps_its_addresses() {
        let fails = Arc::new(AtomicBool::new(false));
        let does_fail = fails.clone();
        let look_up = move |host: &str| match (host, does_fail.load(Ordering::SeqCst)) {
            ("a", false) => Ok(vec!["10.0.0.1".parse().expect("an address")]),
            ("empty", _) => Ok(Vec::new()),
            _ => Err(not_found()),
        };
        let resolver = Resolver::with(look_up, Duration::from_secs(60));
        let all = hosts(&["a", "b", "empty"]);
        let resolved = resolver.look_up(&all);
        assert_eq!(
            addresses(&resolved, "a"),
            Ok(vec!["10.0.0.1:80".to_owned()])
        );
        assert_eq!(addresses(&resolved, "b"), Err("not found".to_owned()));
        let none = Err("the name has no address".to_owned());
        assert_eq!(addresses(&resolved, "empty"), none);
        assert!(resolved.kept("a").is_none() && resolved.kept("b").is_none());
        fails.store(true, Ordering::SeqCst);
        let resolved = resolver.look_up(&all);
        assert_eq!(
            addresses(&resolved, "a"),
            Ok(vec!["10.0.0.1:80".to_owned()])
        );
        assert_eq!(resolved.kept("a").map(|(why, _)| why), Some("not found"));
        let recalled = resolver.recall(&all);
        assert_eq!(
            addresses(&recalled, "a"),
            Ok(vec!["10.0.0.1:80".to_owned()])
        );
        resolver.forget_others(&hosts(&["b"]));
        assert!(addresses(&resolver.look_up(&all), "a").is_err());
    }

    #[test]
    fn a_silent_server_delays_no_other_name_and_its_late_answer_counts() {
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
        let resolved = resolver.look_up(&hosts(&["slow", "quick"]));
        assert!(addresses(&resolved, "quick").is_ok());
        let late = addresses(&resolved, "slow").expect_err("it is silent");
        assert!(late.contains("no answer within"), "{late}");
        // No second lookup begins while one is pending.
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
}
