//! Values that live as long as a client's connection.

use std::any::Any;
use std::cell::RefCell;

/// Values that a higher layer ties to one client's connection. They are dropped when that connection ends.
#[derive(Default)]
pub struct ClientBindings {
    bindings: RefCell<Vec<Box<dyn Any>>>,
}

impl ClientBindings {
    /// Keeps a value until the client's connection ends.
    pub fn add(&self, binding: impl Any) {
        self.bindings.borrow_mut().push(Box::new(binding));
    }

    /// Drops the values of type `B` that `keep` rejects.
    pub fn retain<B: Any>(&self, mut keep: impl FnMut(&B) -> bool) {
        self.bindings
            .borrow_mut()
            .retain(|binding| binding.downcast_ref().is_none_or(&mut keep));
    }

    /// Returns the first result of `find` over the values of type `B`.
    pub fn find_map<B: Any, T>(&self, find: impl FnMut(&B) -> Option<T>) -> Option<T> {
        let bindings = self.bindings.borrow();
        let mut typed = bindings.iter().filter_map(|binding| binding.downcast_ref());
        typed.find_map(find)
    }
}
