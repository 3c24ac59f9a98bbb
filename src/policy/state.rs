//! What steps keep from request to request: on each core, and over all of them.

use std::rc::Rc;

/// The place of a state in [`StatePlans`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateId(pub u32);

/// The states that a plan asks for. Control makes what all cores share, and each core makes its own part.
#[derive(Clone, Debug, Default)]
pub struct StatePlans(Vec<StatePlan>);

/// A state that a plan asks for.
#[derive(Clone, Debug)]
pub enum StatePlan {}

/// What one core keeps for one policy. A state survives a reload if its kind and name stay.
#[derive(Debug)]
pub enum State {}

/// What all cores share, by name. Control owns it, so it survives reloads.
#[derive(Debug, Default)]
pub struct Registry {}

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

    /// Connects the states to what all cores share.
    pub fn equip(&mut self, registry: &mut Registry) {
        for state in &mut self.0 {
            state.equip(registry);
        }
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

impl StatePlan {
    /// Whether this is the same state: of the same kind and name.
    fn is_same(&self, _other: &Self) -> bool {
        match *self {}
    }

    fn equip(&mut self, _registry: &mut Registry) {
        match *self {}
    }

    /// Makes the state of one core, or keeps the old one.
    fn make_state(&self, _old: Option<&Rc<State>>) -> Rc<State> {
        match *self {}
    }
}
