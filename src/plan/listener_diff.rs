//! Compares the listeners of two plans.

use super::{ListenerId, Plan};

/// What a reload does to listening sockets, by address. A reload swaps the rest of the plan whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerDiff {
    /// Listeners that only the new plan has: sockets to bind.
    pub added: Vec<ListenerId>,
    /// Listeners that only the old plan has: sockets to close.
    pub removed: Vec<ListenerId>,
    /// Listeners of both plans: their sockets and connections stay.
    pub kept: Vec<KeptListener>,
}

/// A listener of both plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptListener {
    /// Its id in the old plan.
    pub old: ListenerId,
    /// Its id in the new plan.
    pub new: ListenerId,
    /// Whether a setting differs that takes effect only at a bind: the length of the accept queue, or the mode of a
    /// Unix socket's file.
    pub socket_changed: bool,
}

impl ListenerDiff {
    /// Compares two plans.
    #[must_use]
    pub fn between(old: &Plan, new: &Plan) -> Self {
        let mut diff = Self::default();
        for (new_id, listener) in ids(new) {
            let before = ids(old).find(|(_, old)| old.has_same_socket(listener));
            match before {
                None => diff.added.push(new_id),
                Some((old_id, before)) => diff.kept.push(KeptListener {
                    old: old_id,
                    new: new_id,
                    socket_changed: (before.backlog, before.mode)
                        != (listener.backlog, listener.mode),
                }),
            }
        }
        let is_kept = |id| diff.kept.iter().any(|kept| kept.old == id);
        diff.removed = ids(old)
            .map(|(id, _)| id)
            .filter(|id| !is_kept(*id))
            .collect();
        diff
    }

    /// Whether all sockets stay as they are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let same = |kept: &KeptListener| !kept.socket_changed;
        self.added.is_empty() && self.removed.is_empty() && self.kept.iter().all(same)
    }
}

fn ids(plan: &Plan) -> impl Iterator<Item = (ListenerId, &super::ListenerPlan)> {
    (0..).map(ListenerId).zip(&plan.listeners)
}
