//! Sticky sessions: sends a client's requests to the endpoint that the client belongs to.
//!
//! No core keeps a table of clients. A cookie names the endpoint by a keyed hash of its name, or a key of the request leads
//! every core to the same endpoint.

use std::rc::Rc;
use std::task::Context;

use super::{ConnectionNeed, ConnectionOffer, TriedEndpoints, Upstream};
use crate::io::Net;
use crate::obs::SessionOutcome;
use crate::plan::{EndpointSet, StickyPlan};
use crate::tls::Mark;

/// The marks of an upstream's endpoints.
pub struct StickyEndpoints {
    /// The settings.
    pub plan: StickyPlan,
    /// The mark of each endpoint.
    marks: Box<[Mark]>,
    /// The same, sorted, each with the number of its endpoint.
    sorted: Box<[(Mark, u32)]>,
}

impl StickyEndpoints {
    pub(super) fn new(plan: &StickyPlan, set: &EndpointSet) -> Rc<Self> {
        let endpoints = set.endpoints.iter();
        let marks: Box<[Mark]> = endpoints.map(|spec| plan.marker.mark(&spec.name)).collect();
        let mut sorted: Box<[_]> = marks.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        Rc::new(Self {
            plan: plan.clone(),
            marks,
            sorted,
        })
    }

    /// The endpoint that a mark stands for.
    #[must_use]
    pub fn find(&self, mark: &[u8]) -> Option<u32> {
        let at = self
            .sorted
            .binary_search_by(|(known, _)| known[..].cmp(mark));
        at.ok().and_then(|at| Some(self.sorted.get(at)?.1))
    }

    /// The mark of an endpoint.
    #[must_use]
    pub fn mark(&self, endpoint: u32) -> Option<&Mark> {
        self.marks.get(endpoint as usize)
    }
}

/// What a request says about the endpoint that its client belongs to, and where it went.
#[derive(Debug, Default)]
pub struct StickySession {
    /// The endpoint that a cookie names.
    named: Option<u32>,
    /// The hash of the cookie's or field's value, which leads to an endpoint.
    key: Option<u64>,
    /// The client has a session, even if no cookie names an endpoint of this upstream.
    is_known: bool,
    /// The endpoint that the next attempt uses, tried or not.
    next: Option<u32>,
    /// The endpoint that the session has led to.
    at: Option<u32>,
}

impl StickySession {
    /// The session of a request whose cookie names `named`, and that `key` leads to an endpoint. `is_known`: the client
    /// has one.
    #[must_use]
    pub fn new(named: Option<u32>, key: Option<u64>, is_known: bool) -> Self {
        Self {
            named,
            key,
            is_known,
            next: named,
            at: None,
        }
    }

    /// Whether the session has led to this endpoint.
    #[must_use]
    pub fn is_at(&self, endpoint: Option<u32>) -> bool {
        endpoint.is_some() && self.at == endpoint
    }

    /// Whether the cookie names this endpoint.
    #[must_use]
    pub fn names(&self, endpoint: u32) -> bool {
        self.named == Some(endpoint)
    }

    /// Leads the next attempt to the same endpoint: only an idle connection to it has ended.
    pub fn stay(&mut self) {
        self.next = self.at;
    }

    /// Whether the next attempt goes to an endpoint, tried or not, that the session names.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.next.is_some()
    }

    /// The outcome of the session, when this endpoint has answered.
    #[must_use]
    pub fn outcome(&self, endpoint: u32) -> SessionOutcome {
        match self.is_known {
            _ if self.at == Some(endpoint) => SessionOutcome::Kept,
            true => SessionOutcome::Moved,
            false => SessionOutcome::New,
        }
    }
}

impl<N: Net> Upstream<N> {
    /// Takes the offer of the endpoint that the client belongs to: the one that its cookie names, else the one that its
    /// key leads to. A draining endpoint serves the clients whose cookie names it. `None`: the balancer has to choose.
    pub fn take_sticky(
        &self,
        cx: &mut Context<'_>,
        session: &mut StickySession,
        tried: &TriedEndpoints,
        need: ConnectionNeed,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        let offer = self
            .take_named(cx, session.next.take(), need)
            .or_else(|| self.take_for_key(cx, session.key?, tried, need));
        session.at = offer.as_ref().map(|(index, _)| *index);
        offer
    }

    fn take_named(
        &self,
        cx: &mut Context<'_>,
        named: Option<u32>,
        need: ConnectionNeed,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        let index = named?;
        let endpoint = self.endpoints.get(index as usize)?;
        let may = endpoint.keeps_sessions.get() || endpoint.slot.takes_requests.get();
        let has_room = may && endpoint.has_room(need);
        let offer = has_room.then(|| endpoint.take_offer(cx, need))?;
        Some((index, offer?))
    }

    fn take_for_key(
        &self,
        cx: &mut Context<'_>,
        key: u64,
        tried: &TriedEndpoints,
        need: ConnectionNeed,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        loop {
            let (index, endpoint) = self.pick_for_key_among(key, |index, endpoint| {
                !tried.has(index) && !endpoint.is_left_alone(tried) && endpoint.has_room(need)
            })?;
            if let Some(offer) = endpoint.take_offer(cx, need) {
                return Some((index, offer));
            }
        }
    }
}
