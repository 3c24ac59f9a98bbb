//! What a reload means for listening sockets.

use super::{ListenerId, Plan};

/// How the listeners of two plans relate, by address. Everything else of a plan is swapped whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerDiff {
    /// Listeners of the new plan whose address the old one does not have: sockets to bind.
    pub added: Vec<ListenerId>,
    /// Listeners of the old plan whose address the new one does not have: sockets to close.
    pub removed: Vec<ListenerId>,
    /// Listeners of both: their sockets and connections do not notice the reload.
    pub kept: Vec<KeptListener>,
}

/// A listener that is in both plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptListener {
    /// Its id in the old plan.
    pub old: ListenerId,
    /// Its id in the new plan.
    pub new: ListenerId,
    /// Whether something differs that a socket is given when it is bound: the length of the accept queue, the
    /// permissions of its file.
    pub socket_changed: bool,
}

impl ListenerDiff {
    /// Compares two plans.
    #[must_use]
    pub fn between(old: &Plan, new: &Plan) -> Self {
        let mut diff = Self::default();
        for (new_id, listener) in ids(new) {
            let before = ids(old).find(|(_, old)| old.address == listener.address);
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

    /// Whether the sockets stay as they are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let same = |kept: &KeptListener| !kept.socket_changed;
        self.added.is_empty() && self.removed.is_empty() && self.kept.iter().all(same)
    }
}

fn ids(plan: &Plan) -> impl Iterator<Item = (ListenerId, &super::ListenerPlan)> {
    (0..).map(ListenerId).zip(&plan.listeners)
}
