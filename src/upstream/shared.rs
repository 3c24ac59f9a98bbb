//! Connections that exchanges share: HTTP/2.
//!
//! A core makes another only when those that it has take no more requests. Of the exchanges that find none, one makes
//! it and the others wait: a burst of requests is not a burst of connections.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Endpoint;
use crate::conn::http2::Mux;
use crate::io::Net;

impl<N: Net> Endpoint<N> {
    /// A connection that takes another request: of several the one that was made first, so that the others can empty
    /// and end.
    pub fn join(&self) -> Option<Rc<Mux<N>>> {
        let shared = self.shared.borrow();
        shared.iter().find(|mux| mux.can_open()).cloned()
    }

    /// Whether there is a connection that exchanges share, be it full.
    pub fn has_shared(&self) -> bool {
        !self.shared.borrow().is_empty()
    }

    /// Takes a fresh connection in.
    pub fn share(&self, mux: Rc<Mux<N>>) {
        self.shared.borrow_mut().push(mux);
    }

    /// Forgets a connection that is over.
    pub fn unshare(&self, mux: &Rc<Mux<N>>) {
        self.shared
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, mux));
    }

    /// The right to make a connection for all that wait for one. `None`: somebody else makes one.
    pub fn joiner(self: &Rc<Self>) -> Option<Joiner<N>> {
        (!self.is_joining.replace(true)).then(|| Joiner {
            endpoint: self.clone(),
        })
    }

    /// Waits until nobody makes a connection. `listed` is the wait's own, `None` at first: which connection it is known
    /// to wait for.
    pub fn poll_joined(&self, cx: &mut Context<'_>, listed: &mut Option<u32>) -> Poll<()> {
        if !self.is_joining.get() {
            return Poll::Ready(());
        }
        let joined = self.joined.get();
        if listed.replace(joined) != Some(joined) {
            self.joining.borrow_mut().push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether connections to the endpoint are still wanted when nothing is asked on them.
    pub fn keeps(&self) -> bool {
        !self.retired.get()
    }

    /// How long one may wait.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout.get()
    }

    /// Has the tasks of shared connections look at what has changed.
    pub(super) fn tell_shared(&self) {
        self.shared.borrow().iter().for_each(|mux| mux.wake());
    }
}

/// The right to make a connection. When it is dropped, those that wait look again.
pub struct Joiner<N: Net> {
    endpoint: Rc<Endpoint<N>>,
}

impl<N: Net> Drop for Joiner<N> {
    fn drop(&mut self) {
        self.endpoint.is_joining.set(false);
        let joined = &self.endpoint.joined;
        joined.set(joined.get().wrapping_add(1));
        let waiting = std::mem::take(&mut *self.endpoint.joining.borrow_mut());
        waiting.into_iter().for_each(std::task::Waker::wake);
    }
}
