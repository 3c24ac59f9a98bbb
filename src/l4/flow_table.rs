//! The flows of a listener: what each client address and port sends, in the order in which they last moved.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::io::Instant;

/// Flows by their client, and from the one that has been silent longest to the one that moved last.
pub(super) struct FlowTable<F> {
    by_client: HashMap<SocketAddr, u32>,
    slots: Vec<FlowSlot<F>>,
    free: Vec<u32>,
    /// The flow that has been silent longest.
    oldest: Option<u32>,
    newest: Option<u32>,
}

struct FlowSlot<F> {
    client: SocketAddr,
    /// `None` in a free slot.
    flow: Option<Rc<F>>,
    moved_at: Instant,
    older: Option<u32>,
    newer: Option<u32>,
}

impl<F> Default for FlowTable<F> {
    fn default() -> Self {
        Self {
            by_client: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: None,
            newest: None,
        }
    }
}

impl<F> FlowTable<F> {
    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// The flow of a client, which moves now.
    pub(super) fn touch(&mut self, client: SocketAddr, now: Instant) -> Option<Rc<F>> {
        let index = *self.by_client.get(&client)?;
        self.unlink(index);
        self.link(index, now);
        self.slots.get(index as usize)?.flow.clone()
    }

    /// Adds a flow, which moves now. The client has none.
    pub(super) fn add(&mut self, client: SocketAddr, flow: Rc<F>, now: Instant) {
        let slot = FlowSlot {
            client,
            flow: Some(flow),
            moved_at: now,
            older: None,
            newer: None,
        };
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(free) = self.slots.get_mut(index as usize) {
                    *free = slot;
                }
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.by_client.insert(client, index);
        self.link(index, now);
    }

    /// Removes the flow of a client.
    pub(super) fn remove(&mut self, client: SocketAddr) -> Option<Rc<F>> {
        let index = self.by_client.remove(&client)?;
        self.unlink(index);
        self.free.push(index);
        self.slots.get_mut(index as usize)?.flow.take()
    }

    /// The client whose flow has been silent longest, and since when.
    pub(super) fn oldest(&self) -> Option<(SocketAddr, Instant)> {
        let slot = self.slots.get(self.oldest? as usize)?;
        Some((slot.client, slot.moved_at))
    }

    fn unlink(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let (older, newer) = (slot.older.take(), slot.newer.take());
        match older.and_then(|older| self.slots.get_mut(older as usize)) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
        match newer.and_then(|newer| self.slots.get_mut(newer as usize)) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
    }

    fn link(&mut self, index: u32, now: Instant) {
        let newest = self.newest.replace(index);
        if let Some(slot) = self.slots.get_mut(index as usize) {
            (slot.older, slot.newer, slot.moved_at) = (newest, None, now);
        }
        match newest.and_then(|newest| self.slots.get_mut(newest as usize)) {
            Some(slot) => slot.newer = Some(index),
            None => self.oldest = Some(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    /// The same as a list from the oldest to the newest, whatever happens.
    #[test]
    fn flows_stand_in_the_order_in_which_they_moved() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut table, mut model) = (FlowTable::default(), Vec::<(u16, u64)>::new());
        for now in 0..20_000 {
            let port = rng.u16(..40);
            let known = model.iter().position(|(other, _)| *other == port);
            match (rng.u8(..4), known) {
                (0, Some(at)) => {
                    model.remove(at);
                    assert_eq!(table.remove(client(port)).as_deref(), Some(&port));
                }
                (_, Some(at)) => {
                    model.remove(at);
                    model.push((port, now));
                    let found = table.touch(client(port), Instant(now));
                    assert_eq!(found.as_deref(), Some(&port));
                }
                (_, None) => {
                    assert!(table.touch(client(port), Instant(now)).is_none());
                    assert!(table.remove(client(port)).is_none());
                    model.push((port, now));
                    table.add(client(port), Rc::new(port), Instant(now));
                }
            }
            assert_eq!(table.len(), model.len());
            let oldest = model
                .first()
                .map(|(port, at)| (client(*port), Instant(*at)));
            assert_eq!(table.oldest(), oldest);
        }
        assert!(table.slots.len() <= 40, "slots are used again");
    }
}
