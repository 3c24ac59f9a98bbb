//! Requests in flight: how many requests an endpoint has, on this core and on all.
//!
//! A core counts its own requests exactly. It publishes the difference at each tick, so that the cores do not all choose
//! the endpoint that looks idle to each. No request writes memory that other cores read.

use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use super::Endpoint;
use super::balance::Load;
use super::request_queue::RequestQueue;
use crate::io::{Instant, Net};

/// A request that an endpoint has, from the choice of the endpoint to the end of the attempt.
pub struct RequestInFlight<N: Net>(Rc<Endpoint<N>>);

impl<N: Net> RequestInFlight<N> {
    /// Counts a request at the endpoint.
    #[inline]
    pub fn begin(endpoint: Rc<Endpoint<N>>) -> Self {
        endpoint.count_in_flight(1);
        Self(endpoint)
    }
}

impl<N: Net> Deref for RequestInFlight<N> {
    type Target = Rc<Endpoint<N>>;

    #[inline]
    fn deref(&self) -> &Rc<Endpoint<N>> {
        &self.0
    }
}

impl<N: Net> Drop for RequestInFlight<N> {
    #[inline]
    fn drop(&mut self) {
        self.0.count_in_flight(-1);
    }
}

impl<N: Net> Endpoint<N> {
    #[inline]
    fn count_in_flight(self: &Rc<Self>, by: i32) {
        self.in_flight
            .set(self.in_flight.get().saturating_add_signed(by));
        self.slot.queue.count_in_flight(by);
        if !self.has_changed.replace(true) {
            self.slot.core().note_change(self);
        }
    }

    /// Publishes to the other cores how many requests this core has at the endpoint.
    pub(super) fn publish_in_flight(&self) {
        self.has_changed.set(false);
        let (now, before) = (self.in_flight.get(), self.published.get());
        self.published.set(now);
        if now != before {
            let by = i64::from(now) - i64::from(before);
            self.slot.count.publish_in_flight(by as i32);
            self.slot.queue.publish_in_flight(by as i32);
        }
    }

    /// The load that balancers compare.
    #[inline]
    pub(super) fn load(&self, now: Instant) -> Load {
        Load {
            in_flight: self.in_flight(),
            latency_us: self.latency.average_us(now),
        }
    }

    /// Counts an answer that began `latency` after its request.
    pub fn observe_latency(&self, latency: Duration, now: Instant) {
        self.latency.observe(latency, now);
    }

    /// Counts a failed attempt, or an answer 502, 503 or 504, so that the endpoint looks slow to balancers for a time.
    pub fn observe_failure(&self, now: Instant) {
        self.latency.observe_failure(now);
    }

    /// How many requests the endpoint has: this core's, and the others' as of their last ticks.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        let others = self
            .slot
            .count
            .in_flight()
            .wrapping_sub(self.published.get() as i32);
        self.in_flight.get() + u32::try_from(others).unwrap_or(0)
    }
}

impl<N: Net> RequestQueue<N> {
    #[inline]
    fn count_in_flight(&self, by: i32) {
        let count = self.in_flight.get();
        self.in_flight.set(count.saturating_add_signed(by));
    }

    fn publish_in_flight(&self, by: i32) {
        let published = self.published.get();
        self.published.set(published.saturating_add_signed(by));
        self.count.publish_in_flight(by);
    }

    /// How many requests all endpoints together have: this core's, and the others' as of their last ticks.
    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        let others = self
            .count
            .in_flight()
            .wrapping_sub(self.published.get() as i32);
        self.in_flight.get() + u32::try_from(others).unwrap_or(0)
    }
}

impl<N: Net> Drop for Endpoint<N> {
    fn drop(&mut self) {
        // Requests hold the endpoint, so it has none now; the other cores may still count some.
        self.publish_in_flight();
    }
}
