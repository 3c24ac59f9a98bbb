//! Turns for handshakes: a signature is worth hundreds of requests, so that a storm of handshakes would keep all else
//! of the core waiting.
//!
//! At most [`HANDSHAKE_STEPS_MAX`] steps are taken before the core has gone once round everything else that has come
//! meanwhile; the others wait in the order in which they came. How it knows: it rings the core's own doorbell, and the
//! ring arrives behind what came before it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::limits::HANDSHAKE_STEPS_MAX;

/// One core's gate.
pub struct HandshakeQueue {
    taken: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<HandshakeTurn>>>,
    rung: Cell<bool>,
    ring: Box<dyn Fn()>,
}

/// A handshake that waits for its turn. One that is dropped waits no more.
#[derive(Default)]
pub(super) struct HandshakeTurn {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl HandshakeQueue {
    /// `ring` has [`HandshakeQueue::grant_next`] called when the core has gone round once.
    pub fn new(ring: impl Fn() + 'static) -> Rc<Self> {
        Rc::new(Self {
            taken: Cell::new(0),
            waiting: RefCell::default(),
            rung: Cell::new(false),
            ring: Box::new(ring),
        })
    }

    /// The core has gone round: as many as may go next are woken.
    pub fn grant_next(&self) {
        if !self.rung.replace(false) {
            return;
        }
        self.taken.set(0);
        while self.taken.get() < HANDSHAKE_STEPS_MAX {
            let Some(turn) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            // The other holder is the connection.
            if Rc::strong_count(&turn) > 1 {
                turn.granted.set(true);
                let waker = turn.waker.take();
                self.take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }

    /// Waits for the right to take one step; `turn` remembers the place in the queue.
    pub(super) fn poll_turn(
        &self,
        cx: &Context<'_>,
        turn: &mut Option<Rc<HandshakeTurn>>,
    ) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        match turn {
            Some(own) if own.granted.get() => {}
            Some(own) => {
                *own.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            None if waiting.is_empty() && self.taken.get() < HANDSHAKE_STEPS_MAX => {
                drop(waiting);
                self.take();
                return Poll::Ready(());
            }
            None => {
                let own = Rc::new(HandshakeTurn::default());
                *own.waker.borrow_mut() = Some(cx.waker().clone());
                waiting.push_back(own.clone());
                *turn = Some(own);
                return Poll::Pending;
            }
        }
        *turn = None;
        Poll::Ready(())
    }

    fn take(&self) {
        self.taken.set(self.taken.get() + 1);
        if self.taken.get() >= HANDSHAKE_STEPS_MAX && !self.rung.replace(true) {
            (self.ring)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_may_go_and_the_others_in_their_order() {
        let rings = Rc::new(Cell::new(0));
        let counted = rings.clone();
        let queue = HandshakeQueue::new(move || counted.set(counted.get() + 1));
        let cx = Context::from_waker(Waker::noop());
        let mut turns: Vec<Option<Rc<HandshakeTurn>>> = vec![None; 3 * HANDSHAKE_STEPS_MAX];
        let go = |turns: &mut Vec<Option<Rc<HandshakeTurn>>>| -> Vec<usize> {
            let ready = |(i, turn): (usize, &mut Option<Rc<HandshakeTurn>>)| {
                queue.poll_turn(&cx, turn).is_ready().then_some(i)
            };
            turns.iter_mut().enumerate().filter_map(ready).collect()
        };
        let first: Vec<_> = (0..HANDSHAKE_STEPS_MAX).collect();
        assert_eq!(go(&mut turns), first);
        assert_eq!(rings.get(), 1, "one ring for all that wait");
        // Those that went are done; one that waits gives up.
        let mut waiting = turns.split_off(HANDSHAKE_STEPS_MAX);
        assert!(go(&mut waiting).is_empty());
        drop(waiting.remove(0));
        queue.grant_next();
        assert_eq!(go(&mut waiting), first);
        let mut newcomer = vec![None];
        assert!(go(&mut newcomer).is_empty(), "nobody overtakes");
    }
}
