//! A listener as its connections see it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::connection_counts::{ConnectionCounts, ListenerConnections};
use crate::io::Address;
use crate::plan::{ListenerId, ListenerPlan, Transport};

/// The id in events of a listener that the plan no longer has.
const GONE: ListenerId = ListenerId(u32::MAX);

/// One listener on one core. Its connections keep it alive after it has stopped listening.
pub struct CoreListener {
    /// Its id in the current plan, for events.
    pub id: Cell<ListenerId>,
    /// Its settings in the current plan.
    pub plan: RefCell<Rc<ListenerPlan>>,
    /// Where it listens. A reload recognizes the listener by this address and its transport.
    pub address: Address,
    /// What its socket carries.
    pub transport: Transport,
    /// The listener is closed or closing: connections end after their current exchange.
    is_leaving: Cell<bool>,
    /// Another process accepts in place of this one. Connections stay.
    is_handed_over: Cell<bool>,
    pub(super) counts: Arc<ListenerConnections>,
}

impl CoreListener {
    /// The listener with this id and these settings.
    pub fn new(id: ListenerId, plan: &ListenerPlan, counts: &ConnectionCounts) -> Rc<Self> {
        Rc::new(Self {
            id: Cell::new(id),
            plan: RefCell::new(Rc::new(plan.clone())),
            address: plan.address.clone(),
            transport: plan.transport(),
            is_leaving: Cell::new(false),
            is_handed_over: Cell::new(false),
            counts: counts.listener(&plan.address, plan.transport()),
        })
    }

    /// Whether the listener is closed or closing.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// Marks the listener as closing. Returns whether it was already.
    pub fn leave(&self) -> bool {
        self.is_leaving.replace(true)
    }

    /// Whether the listener accepts no more connections.
    pub fn accepts_no_more(&self) -> bool {
        self.is_leaving.get() || self.is_handed_over.get()
    }

    /// Whether another process has taken the socket over.
    pub fn is_handed_over(&self) -> bool {
        self.is_handed_over.get()
    }

    /// Marks the socket as taken over by another process. Connections go on.
    pub fn hand_over(&self) {
        self.is_handed_over.set(true);
    }

    /// Marks the listener as absent from the current plan.
    pub fn retire(&self) {
        self.id.set(GONE);
    }
}
