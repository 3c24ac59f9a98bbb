//! What the task of a connection waits for, in either role.

use std::time::Duration;

use super::mux::State;
use crate::io::{Instant, Net};
use crate::limits::{H2_TINY_MS, REST_AFTER_MS};

/// What is due by now, and when to look again for what is not.
pub(super) struct Due {
    pub(super) now: Instant,
    pub(super) next: Instant,
}

impl Due {
    pub(super) fn at(now: Instant) -> Self {
        let next = Instant::NEVER;
        Self { now, next }
    }

    /// Whether the time has come; if not, it is waited for.
    pub(super) fn is(&mut self, at: Instant) -> bool {
        let is_due = self.now >= at;
        if !is_due {
            self.next = self.next.min(at);
        }
        is_due
    }
}

/// Since when nothing moves that might: tiny pieces, what waits to be sent, the whole connection.
#[derive(Default)]
pub(super) struct Quiet {
    /// Since when pieces wait that would be tiny.
    tiny: Option<Instant>,
    /// How much was sent, and since when that has not grown; `None` while nothing waits.
    sent: Option<(u64, Instant)>,
    /// When the last stream ended.
    idle: Option<Instant>,
    is_resting: bool,
}

impl Quiet {
    /// Has tiny pieces framed that are due; says whether the peer has taken nothing for longer than `patience`.
    pub(super) fn is_stalled<N: Net>(
        &mut self,
        state: &mut State<N>,
        due: &mut Due,
        patience: Duration,
    ) -> bool {
        self.tiny = state.has_tiny().then(|| self.tiny.unwrap_or(due.now));
        let moment = Duration::from_millis(H2_TINY_MS);
        if self.tiny.is_some_and(|since| due.is(since + moment)) {
            self.tiny = None;
            state.take_tiny();
        }
        let sent = state.out.sent();
        self.sent = match self.sent {
            _ if state.out.queued() == 0 => None,
            Some((before, since)) if before == sent => Some((before, since)),
            _ => Some((sent, due.now)),
        };
        self.sent.is_some_and(|(_, since)| due.is(since + patience))
    }

    /// Since when no stream is there, as `is_idle` says of now. What only a busy connection needs is given back when
    /// that lasts.
    pub(super) fn idle_since<N: Net>(
        &mut self,
        state: &mut State<N>,
        due: &mut Due,
        is_idle: bool,
    ) -> Option<Instant> {
        if !is_idle {
            (self.idle, self.is_resting) = (None, false);
            return None;
        }
        let since = *self.idle.get_or_insert(due.now);
        if !self.is_resting && due.is(since + Duration::from_millis(REST_AFTER_MS)) {
            self.is_resting = true;
            state.rest();
        }
        Some(since)
    }
}
