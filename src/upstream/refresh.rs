//! Finds an upstream's usable endpoints again when statuses, settings or time have changed them.

use super::balance::Balancer;
use super::endpoint_status::EndpointStatus;
use super::usable::{Candidate, UsableEndpoints};
use super::{Endpoint, Upstream};
use crate::io::{Instant, Net};
use crate::limits::RAMP_STEP_MS;
use std::time::Duration;

impl<N: Net> Upstream<N> {
    /// Whether control has posted a status of an endpoint that the upstream has not read.
    pub(super) fn has_new_status(&self) -> bool {
        self.queue.count.status_epoch() != self.status_epoch.get()
    }

    /// Whether its usable endpoints have to be found again, because of time alone.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.refresh_at.get() {
            Some(due) if due <= now => true,
            Some(due) => {
                self.core.refresh_at(due);
                false
            }
            None => false,
        }
    }

    /// Finds the usable endpoints again, in place, so that exchanges that are running use them too.
    pub fn refresh(&self, now: Instant) {
        self.status_epoch.set(self.queue.count.status_epoch());
        let mut due = None;
        let mut wait_until = |at: Instant| due = Some(due.map_or(at, |due: Instant| due.min(at)));
        let candidates: Vec<_> = self
            .endpoints
            .iter()
            .zip(&self.set.endpoints)
            .map(|(endpoint, spec)| {
                let mut status = endpoint.read_status(now);
                if let Some(end) = endpoint.local_ejection.get() {
                    status.is_ejected = true;
                    wait_until(end);
                }
                let mut candidate = Candidate {
                    spec,
                    status,
                    is_checked: self.is_checked,
                    usable_for: None,
                };
                let is_healthy = candidate.unusable().is_none();
                if is_healthy && !endpoint.is_healthy.get() {
                    endpoint.healthy_since.set(Some(now));
                    endpoint.latency.forget();
                }
                endpoint.is_healthy.set(is_healthy);
                endpoint.keeps_sessions.set(candidate.keeps_sessions());
                candidate.usable_for = endpoint.healthy_since.get().map(|since| now.since(since));
                candidate
            })
            .collect();
        let usable = UsableEndpoints::select(&candidates, self.slow_start, self.panic_percent);
        if usable.is_ramping {
            wait_until(now + Duration::from_millis(RAMP_STEP_MS));
        }
        self.refresh_at.set(due);
        if let Some(due) = due {
            self.core.refresh_at(due);
        }
        let mut takes = vec![false; self.endpoints.len()];
        for each in &usable.endpoints {
            if let Some(takes) = takes.get_mut(each.index as usize) {
                *takes = true;
            }
        }
        let has_changed = *self.usable.borrow() != usable;
        if has_changed {
            *self.balancer.borrow_mut() =
                Balancer::new(&self.balance, &usable.endpoints, self.seed);
            *self.usable.borrow_mut() = usable;
        }
        for (endpoint, takes) in self.endpoints.iter().zip(takes) {
            if endpoint.slot.takes_requests.replace(takes) != takes && takes {
                // Queued requests could not have it until now.
                endpoint.slot.grant_free();
            }
        }
    }
}

impl<N: Net> Endpoint<N> {
    /// Reads the status that control has posted. A new one ends what this core has decided on its own.
    fn read_status(&self, now: Instant) -> EndpointStatus {
        let word = self.slot.count.status_word();
        let is_new = self.status_word.replace(word) != word;
        let is_over = self.local_ejection.get().is_some_and(|end| end <= now);
        if is_new {
            self.outcomes.reset();
        }
        if is_new || is_over {
            self.local_ejection.set(None);
        }
        EndpointStatus::unpack(word)
    }
}
