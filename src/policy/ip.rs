//! `ip`: lets clients in and keeps them out by their address.
//!
//! All networks of one level, those of its list files too, are in one [`NetworkMap`]. Control reads the files again when
//! they change and puts a new map in place of the old one, without a new plan.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use weir_config::{Cidr, IpRules, NamedFile, Networks, Origin};

use super::{Facts, Flow, PlannedStep, StatePlan, StatePlans, Step, Verdict};
use crate::fault::Reason;
use crate::networks::NetworkMap;
use crate::shared::{AtomicU32, Ordering};

/// What the rules say about a network. If a network is in both lists, `Deny` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    Allow,
    Deny,
}

type AccessMap = NetworkMap<Access>;

/// The rules of one level of the file.
#[derive(Debug)]
pub struct Rules {
    origin: Origin,
    allow: Vec<Networks>,
    deny: Vec<Networks>,
    /// How often `map` has changed. Changes while `map` is locked.
    changes: AtomicU32,
    map: Mutex<Arc<AccessMap>>,
}

impl Rules {
    /// The rules without the networks of list files, which [`read_lists`](Self::read_lists) adds.
    fn compile(rules: &IpRules) -> Self {
        let compiled = Self {
            origin: rules.origin.clone(),
            allow: rules.allow.clone(),
            deny: rules.deny.clone(),
            changes: AtomicU32::new(0),
            map: Mutex::default(),
        };
        compiled.read_lists(|_| None);
        compiled
    }

    /// The list files that the rules name.
    pub fn lists(&self) -> impl Iterator<Item = &NamedFile> {
        self.allow
            .iter()
            .chain(&self.deny)
            .filter_map(Networks::list)
    }

    /// Takes the networks of the list files, which `networks_of` knows by their paths. Cores use them from their next
    /// request on.
    pub fn read_lists<'l>(&self, networks_of: impl Fn(&Path) -> Option<&'l [Cidr]>) {
        let mut networks = Vec::new();
        for (access, list) in [(Access::Allow, &self.allow), (Access::Deny, &self.deny)] {
            for each in list {
                match each {
                    Networks::Network(network) => networks.push((*network, access)),
                    Networks::List(file) => {
                        let found = networks_of(&file.path).unwrap_or_default();
                        networks.extend(found.iter().map(|network| (*network, access)));
                    }
                }
            }
        }
        let map = Arc::new(AccessMap::new(networks, Access::max));
        let mut current = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        *current = map;
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The present map, and the number of its change.
    fn current(&self) -> (u32, Arc<AccessMap>) {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        (self.changes.load(Ordering::Acquire), map.clone())
    }

    /// Refuses clients that the rules do not let in. A client without an address, on a Unix socket, is in no network.
    pub(super) fn run(&self, state: Option<&CoreMap>, facts: &Facts) -> Flow {
        let find = |map: &AccessMap| facts.client.and_then(|client| map.find(client));
        let found = match state {
            Some(state) => state.look(find),
            None => find(&self.current().1),
        };
        match self.admits(found) {
            true => Flow::Next,
            false => Flow::refuse(Reason::IpDenied),
        }
    }

    /// Whether a client may pass whose most specific network has this access.
    fn admits(&self, found: Option<Access>) -> bool {
        match found {
            Some(access) => access == Access::Allow,
            None => self.allow.is_empty(),
        }
    }

    /// Says which network decides.
    pub(super) fn explain(&self, client: Option<IpAddr>) -> Verdict {
        let origin = &self.origin;
        let Some(client) = client else {
            return Verdict::WouldCheck(format!(
                "the rules of {origin}; without --client-ip there is no address"
            ));
        };
        let found = self.current().1.find_network(client);
        let client = client.to_canonical();
        let text = match found {
            Some((network, Access::Allow)) => {
                format!("{client} is in {network}, which {origin} allows")
            }
            Some((network, Access::Deny)) => {
                format!("{client} is in {network}, which {origin} denies")
            }
            None => {
                let verb = if self.allow.is_empty() {
                    "denies"
                } else {
                    "allows"
                };
                format!("{client} is in no network that {origin} {verb}")
            }
        };
        match self.admits(found.map(|(_, access)| access)) {
            true => Verdict::Passes(text),
            false => Verdict::Refuses(Reason::IpDenied, text),
        }
    }
}

/// A core's share of the map of some rules, so that a lookup takes no lock.
#[derive(Debug)]
pub struct CoreMap {
    rules: Arc<Rules>,
    change: Cell<u32>,
    map: RefCell<Arc<AccessMap>>,
}

impl CoreMap {
    /// A core's first share.
    #[must_use]
    pub fn new(rules: Arc<Rules>) -> Self {
        let (change, map) = rules.current();
        Self {
            rules,
            change: Cell::new(change),
            map: RefCell::new(map),
        }
    }

    /// Looks into the present map.
    fn look<T>(&self, look: impl FnOnce(&AccessMap) -> T) -> T {
        if self.rules.changes.load(Ordering::Acquire) != self.change.get() {
            let (change, map) = self.rules.current();
            self.change.set(change);
            *self.map.borrow_mut() = map;
        }
        look(&self.map.borrow())
    }
}

/// Plans the step of these rules. All routes that take the rules of one level share one map.
pub(super) fn plan_step(rules: &IpRules, states: &mut StatePlans) -> PlannedStep {
    let is_same = |plan: &&Arc<Rules>| plan.origin == rules.origin;
    let known = states.ip_rules().find(is_same).cloned();
    let rules = known.unwrap_or_else(|| Arc::new(Rules::compile(rules)));
    PlannedStep {
        step: Step::Ip(rules.clone()),
        state: Some(states.add(StatePlan::Ip(rules))),
    }
}

#[cfg(test)]
mod tests;
