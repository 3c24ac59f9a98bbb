//! The limits of a plan, and what each core keeps for them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::gcra::Gcra;
use super::shared::{LimitRegistry, SharedCount, SharedLimit, SharedLimits};
use super::token_cache::TokenCache;

/// The limits that a plan asks for.
#[derive(Clone, Debug, Default)]
pub struct LimitsPlan {
    keys: usize,
    limits: Vec<(Box<str>, Gcra)>,
    /// With the most requests at once.
    counts: Vec<(Box<str>, u32)>,
    /// `None` until control has equipped the plan.
    shared: Option<Arc<SharedLimits>>,
}

/// What one core keeps.
#[derive(Debug)]
pub struct CoreLimits {
    pub(super) shared: Rc<CoreShare>,
    pub(super) cache: Rc<RefCell<TokenCache>>,
}

/// A core's reference to what all cores share. Permits refer to it without touching a count that other cores write.
#[derive(Debug)]
pub(super) struct CoreShare(Arc<SharedLimits>);

impl LimitsPlan {
    pub(in crate::policy) fn new(keys: u32) -> Self {
        Self {
            keys: keys as usize,
            ..Self::default()
        }
    }

    /// The place of the limit of this name.
    pub(super) fn add_limit(&mut self, name: &str, gcra: Gcra) -> Result<usize, String> {
        add(&mut self.limits, name, gcra)
    }

    /// The place of the limit of requests at once of this name.
    pub(super) fn add_count(&mut self, name: &str, most: u32) -> Result<usize, String> {
        add(&mut self.counts, name, most)
    }

    /// Connects the plan to what all cores share.
    pub(in crate::policy) fn equip(&mut self, registry: &mut LimitRegistry) {
        let limits = self.limits.iter();
        let counts = self.counts.iter();
        self.shared = Some(Arc::new(SharedLimits {
            table: registry.table(self.keys),
            limits: limits
                .map(|(name, gcra)| registry.limit(name, *gcra))
                .collect(),
            counts: counts.map(|(name, _)| registry.count(name)).collect(),
        }));
    }

    /// What one core keeps; it takes over the tokens of `old`. `None` until control has equipped the plan.
    pub(in crate::policy) fn make_state(&self, old: Option<&CoreLimits>) -> Option<CoreLimits> {
        let shared = self.shared.clone()?;
        let cache = match old {
            Some(old) if Arc::ptr_eq(&old.shared.0.table, &shared.table) => old.cache.clone(),
            _ => Rc::new(RefCell::new(shared.table.make_cache())),
        };
        let shared = Rc::new(CoreShare(shared));
        Some(CoreLimits { shared, cache })
    }
}

/// Adds a limit, or finds the one of this name.
fn add<T: PartialEq>(list: &mut Vec<(Box<str>, T)>, name: &str, limit: T) -> Result<usize, String> {
    let known = list.iter().position(|(known, _)| **known == *name);
    match known.and_then(|index| Some((index, list.get(index)?))) {
        Some((index, (_, known))) if *known == limit => Ok(index),
        Some(_) => Err(format!("another limit called `{name}` says something else")),
        None => {
            list.push((name.into(), limit));
            Ok(list.len() - 1)
        }
    }
}

impl CoreShare {
    pub(super) fn shared(&self) -> &SharedLimits {
        &self.0
    }

    pub(super) fn limit(&self, index: usize) -> Option<&SharedLimit> {
        self.0.limits.get(index).map(Arc::as_ref)
    }

    pub(super) fn count(&self, index: usize) -> Option<&SharedCount> {
        self.0.counts.get(index).map(Arc::as_ref)
    }
}
