//! The sockets and listeners that operations belong to, by the key that the operations carry.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::driver::OperationKind;

const GENERATION_BITS: u32 = 24;

/// The place of an operation's owner in its table, and which of the successive owners of that place it is. The user
/// data of each operation names the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OperationKey {
    index: u32,
    generation: u32,
}

impl OperationKey {
    pub(super) fn name(self, kind: OperationKind) -> u64 {
        (kind as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn of(name: u64) -> Self {
        Self {
            index: name as u32,
            generation: (name >> 32) as u32 & ((1 << GENERATION_BITS) - 1),
        }
    }
}

/// What has operations in flight.
pub(super) trait OperationOwner {
    /// The key that the owner was made with.
    fn key(&self) -> OperationKey;
}

/// Owners by key. The table keeps an owner while one of its operations is in flight, even after its handles are gone,
/// and gives its place to another owner only after the last operation has completed. A slot takes 8 bytes.
pub(super) struct OwnerTable<T> {
    slots: RefCell<Vec<Option<Rc<T>>>>,
    free: RefCell<Vec<u32>>,
    generation: Cell<u32>,
}

impl<T: OperationOwner> OwnerTable<T> {
    /// A table with room for this many owners, which grows when they are more.
    pub(super) fn new(places: usize) -> Self {
        Self {
            slots: RefCell::new(Vec::with_capacity(places)),
            free: RefCell::default(),
            generation: Cell::default(),
        }
    }

    pub(super) fn add(&self, make: impl FnOnce(OperationKey) -> T) -> Rc<T> {
        let generation = self.generation.get();
        self.generation
            .set((generation + 1) % (1 << GENERATION_BITS));
        let index = self.free.borrow_mut().pop();
        let mut slots = self.slots.borrow_mut();
        let index = index.unwrap_or_else(|| {
            slots.push(None);
            (slots.len() - 1) as u32
        });
        let owner = Rc::new(make(OperationKey { index, generation }));
        slots[index as usize] = Some(owner.clone());
        owner
    }

    pub(super) fn get(&self, key: OperationKey) -> Option<Rc<T>> {
        let slots = self.slots.borrow();
        let owner = slots.get(key.index as usize)?.as_ref()?;
        (owner.key() == key).then(|| owner.clone())
    }

    pub(super) fn remove(&self, key: OperationKey) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key.index as usize) else {
            return;
        };
        let Some(owner) = slot.take_if(|owner| owner.key() == key) else {
            return;
        };
        drop(slots);
        self.free.borrow_mut().push(key.index);
        drop(owner);
    }

    /// How many slots the table has, used or free.
    #[cfg(test)]
    pub(super) fn slot_count(&self) -> usize {
        self.slots.borrow().len()
    }
}
