//! What steps keep from request to request: on each core, and over all of them.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::compress::CoderPool;
use super::cors::{OriginSet, RegexCache};
use super::forward_auth::{ForwardAuth, Verdicts};
use super::ip::{self, CoreMap};
use super::jwt::{JwtState, JwtStatePlan, KeyBoard};
use super::limit::{CoreLimits, LimitRegistry, LimitsPlan};

/// The place of a state in [`StatePlans`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateId(pub u32);

/// The states that a plan asks for. Control makes what all cores share, and each core makes its own part.
#[derive(Clone, Debug, Default)]
pub struct StatePlans(Vec<StatePlan>);

/// A state that a plan asks for.
#[derive(Clone, Debug)]
pub enum StatePlan {
    /// The memory for the regular expressions of a set of origins.
    Origins(Arc<OriginSet>),
    /// The rules of `ip` of one level. Each plan has its own.
    Ip(Arc<ip::Rules>),
    /// Keys and verified tokens of `jwt` steps with the same rules.
    Jwt(JwtStatePlan),
    /// All limits of the plan.
    Limits(LimitsPlan),
    /// The verdicts of `forward_auth` steps with equal settings.
    ForwardAuth(Arc<ForwardAuth>),
    /// The coders of `compress`.
    Coders,
}

/// What one core keeps for one policy. A state survives a reload if its kind and name stay.
#[derive(Debug)]
pub enum State {
    /// Memory for regular expressions.
    Origins(Box<RegexCache>),
    /// The map of networks of `ip` rules.
    Ip(CoreMap),
    /// Keys and verified tokens.
    Jwt(JwtState),
    /// What the core keeps for limits; `None` in a plan that control has not equipped.
    Limits(Option<CoreLimits>),
    /// Verdicts of `forward_auth`.
    ForwardAuth(Verdicts),
    /// Idle coders, for answers on all routes.
    Coders(Rc<CoderPool>),
}

/// What all cores share for policies. Control owns it and connects each plan to it, so it survives reloads.
#[derive(Debug, Default)]
pub struct Registry {
    /// The keys of issuers.
    pub keys: SharedByName<KeyBoard>,
    /// Limits.
    pub limits: LimitRegistry,
}

/// Things that all cores share, by name. They live as long as some plan has them, so a reload that fails leaves none.
#[derive(Debug)]
pub struct SharedByName<T>(HashMap<Box<str>, Weak<T>>);

impl<T> Default for SharedByName<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> SharedByName<T> {
    /// The thing of this name. Makes it if no plan has it.
    pub fn get_or_make(&mut self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(known) = self.0.get(name).and_then(Weak::upgrade) {
            return known;
        }
        self.0.retain(|_, known| known.strong_count() > 0);
        let made = Arc::new(make());
        self.0.insert(name.into(), Arc::downgrade(&made));
        made
    }

    /// All things that some plan has, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Arc<T>)> {
        self.0
            .iter()
            .filter_map(|(name, known)| Some((&**name, known.upgrade()?)))
    }
}

impl StatePlans {
    /// Adds a state, or finds the one of the same kind and name.
    pub fn add(&mut self, state: StatePlan) -> StateId {
        let known = self.0.iter().position(|known| known.is_same(&state));
        let index = known.unwrap_or_else(|| {
            self.0.push(state);
            self.0.len() - 1
        });
        StateId(index as u32)
    }

    /// All states.
    pub(super) fn iter(&self) -> impl Iterator<Item = &StatePlan> {
        self.0.iter()
    }

    /// The `ip` rules of all levels.
    pub fn ip_rules(&self) -> impl Iterator<Item = &Arc<ip::Rules>> {
        self.0.iter().filter_map(|plan| match plan {
            StatePlan::Ip(rules) => Some(rules),
            _ => None,
        })
    }

    /// Adds to the limits of the plan, whose table has room for `keys` keys. Returns their place.
    pub(super) fn add_limits(
        &mut self,
        keys: u32,
        add: impl FnOnce(&mut LimitsPlan) -> Result<(), String>,
    ) -> Result<StateId, String> {
        let id = self.add(StatePlan::Limits(LimitsPlan::new(keys)));
        if let Some(StatePlan::Limits(limits)) = self.0.get_mut(id.0 as usize) {
            add(limits)?;
        }
        Ok(id)
    }

    /// Connects the states to what all cores share.
    pub fn equip(&mut self, registry: &mut Registry) {
        for state in &mut self.0 {
            state.equip(registry);
        }
    }

    /// The boards of the issuers whose tokens the plan verifies.
    pub fn key_boards(&self) -> impl Iterator<Item = &Arc<KeyBoard>> {
        let boards = self.0.iter().filter_map(|state| match state {
            StatePlan::Jwt(tokens) => Some(tokens.boards()),
            StatePlan::Ip(_)
            | StatePlan::Limits(_)
            | StatePlan::Origins(_)
            | StatePlan::ForwardAuth(_)
            | StatePlan::Coders => None,
        });
        boards.flatten()
    }

    /// Makes the states of one core. `old` has the core's states under the plan before.
    #[must_use]
    pub fn make_states(&self, old: Option<(&Self, &[Rc<State>])>) -> Vec<Rc<State>> {
        let make = |plan: &StatePlan| {
            let old = old.and_then(|(plans, states)| {
                let index = plans.0.iter().position(|old| old.is_same(plan))?;
                states.get(index)
            });
            plan.make_state(old)
        };
        self.0.iter().map(make).collect()
    }
}

impl State {
    /// The memory of what these states keep from requests, in bytes: tokens and verdicts.
    #[must_use]
    pub fn kept_bytes(states: &[Rc<Self>]) -> usize {
        let kept = states.iter().map(|state| match &**state {
            Self::Jwt(tokens) => tokens.cache.borrow().bytes(),
            Self::ForwardAuth(verdicts) => verdicts.bytes(),
            Self::Origins(_) | Self::Ip(_) | Self::Limits(_) | Self::Coders(_) => 0,
        });
        kept.sum()
    }

    /// Bounds that memory, in equal parts.
    pub fn bound(states: &[Rc<Self>], bytes_max: usize) {
        let keeps = |state: &&Rc<Self>| matches!(***state, Self::Jwt(_) | Self::ForwardAuth(_));
        let part = bytes_max / states.iter().filter(keeps).count().max(1);
        for state in states {
            match &**state {
                Self::Jwt(tokens) => tokens.cache.borrow_mut().bound(part),
                Self::ForwardAuth(verdicts) => verdicts.bound(part),
                Self::Origins(_) | Self::Ip(_) | Self::Limits(_) | Self::Coders(_) => {}
            }
        }
    }
}

impl StatePlan {
    /// Whether this is the same state: of the same kind and name.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // The memory fits one automaton only, and another plan compiles another.
            (Self::Origins(origins), Self::Origins(other)) => Arc::ptr_eq(origins, other),
            (Self::Ip(rules), Self::Ip(other)) => Arc::ptr_eq(rules, other),
            (Self::Jwt(rules), Self::Jwt(other)) => rules.is_same(other),
            (Self::Limits(_), Self::Limits(_)) => true,
            (Self::ForwardAuth(auth), Self::ForwardAuth(other)) => auth.asks_the_same(other),
            (Self::Coders, Self::Coders) => true,
            _ => false,
        }
    }

    fn equip(&mut self, registry: &mut Registry) {
        match self {
            Self::Jwt(tokens) => tokens.equip(&mut registry.keys),
            Self::Limits(limits) => limits.equip(&mut registry.limits),
            Self::Ip(_) | Self::Origins(_) | Self::ForwardAuth(_) | Self::Coders => {}
        }
    }

    /// Makes the state of one core, or keeps the old one.
    fn make_state(&self, old: Option<&Rc<State>>) -> Rc<State> {
        let state = match (self, old) {
            (Self::Limits(limits), old) => {
                let old = old.and_then(|old| match &**old {
                    State::Limits(old) => old.as_ref(),
                    _ => None,
                });
                State::Limits(limits.make_state(old))
            }
            (_, Some(old)) => return old.clone(),
            (Self::Origins(origins), None) => State::Origins(Box::new(origins.make_cache())),
            (Self::Ip(rules), None) => State::Ip(CoreMap::new(rules.clone())),
            (Self::Jwt(tokens), None) => State::Jwt(tokens.make()),
            (Self::ForwardAuth(_), None) => State::ForwardAuth(Verdicts::default()),
            (Self::Coders, None) => State::Coders(Rc::default()),
        };
        Rc::new(state)
    }
}

impl State {
    /// Returns memory that nothing has needed for a while. Called about once a second.
    pub fn trim(&self) {
        match self {
            Self::Coders(coders) => coders.trim(),
            Self::Origins(_)
            | Self::Ip(_)
            | Self::Jwt(_)
            | Self::Limits(_)
            | Self::ForwardAuth(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_things_live_as_long_as_some_plan_has_them() {
        let mut shared = SharedByName::default();
        let first = shared.get_or_make("a", || 1);
        let second = shared.get_or_make("a", || 2);
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        assert_eq!(*shared.get_or_make("b", || 3), 3);
        assert_eq!(shared.iter().count(), 0, "no plan has any");
        assert_eq!(*shared.get_or_make("a", || 4), 4, "the old one is gone");
    }
}
