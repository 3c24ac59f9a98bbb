//! The deadlines that a connection sets its peer.

use std::time::Duration;

use weir_proto_h2::Error;

use super::mux::Mux;
use super::mux_state::MuxState;
use crate::io::{Instant, Net, Tx};
use crate::limits::{
    H2_DRAIN_MS, H2_PING_AFTER_MS, H2_PING_INTERVAL_MS, H2_PING_TIMEOUT_MS, H2_PINGS_EARLY_MAX,
    H2_TINY_WINDOW_MS, IDLE_AFTER_MS,
};

/// Watches one connection's peer: whether it completes the SETTINGS exchange, ends its field blocks, reads, answers
/// PINGs, and how long it has been idle.
pub struct PeerWatch {
    /// When the connection began; `None` once the SETTINGS exchange is complete.
    began: Option<Instant>,
    /// When the unfinished field block began.
    block: Option<Instant>,
    /// Since when a stream with data has had only a tiny window.
    tiny: Option<Instant>,
    /// How many bytes the peer has taken, and since when it has taken no more; `None` while no bytes wait for it.
    sent: Option<(u64, Instant)>,
    /// When the last stream ended.
    idle: Option<Instant>,
    is_resting: bool,
    /// When a server that has announced its end stops taking streams.
    leave: Option<Instant>,
    /// Clients only.
    keep_alive: Option<KeepAlive>,
}

/// The deadlines that the owner of a connection sets its peer.
pub struct PeerLimits {
    /// From the start of the connection to the end of the SETTINGS exchange.
    pub settings: Duration,
    /// From the start of a field block to its end.
    pub field_block: Option<Duration>,
    /// How long the peer may read nothing while bytes wait for it.
    pub send_stall: Duration,
    /// How long the connection may have no stream.
    pub idle: Duration,
    /// The connection should end: Weir announces the end, and takes no more streams `H2_DRAIN_MS` later.
    pub is_unwanted: bool,
}

impl PeerWatch {
    /// Watches a client.
    pub fn client(now: Instant) -> Self {
        Self {
            began: Some(now),
            block: None,
            tiny: None,
            sent: None,
            idle: None,
            is_resting: false,
            leave: None,
            keep_alive: None,
        }
    }

    /// Watches a server. Sends PINGs when the server is silent while streams are open.
    pub fn server(now: Instant) -> Self {
        Self {
            keep_alive: Some(KeepAlive::default()),
            ..Self::client(now)
        }
    }

    /// Acts on every deadline that has passed. Returns when to check again, or `None` if the connection has nothing
    /// left to do.
    pub fn check<N: Net>(&mut self, mux: &Mux<N>, limits: &PeerLimits) -> Option<Instant> {
        let mut due = Due::at(mux.net.now());
        let mut state = mux.state.borrow_mut();
        let state = &mut *state;
        self.check_protocol(state, limits, &mut due);
        if self.has_stalled(state, limits.send_stall, &mut due) {
            state.machine.abort(Error::NotReading);
            if self.keep_alive.is_none() {
                state.out.tx.abort();
            }
        }
        if limits.is_unwanted && self.leave.is_none() {
            self.leave = Some(due.now + Duration::from_millis(H2_DRAIN_MS));
            state.machine.shut_down();
        }
        if self.leave.is_some_and(|leave| due.is(leave)) {
            state.machine.stop();
        }
        if let Some(&(until, _)) = state.detached.front() {
            due.is(until);
        }
        self.check_idle(state, limits.idle, &mut due);
        if state.machine.has_output() {
            state.wake();
        }
        (!state.is_over()).then_some(due.next)
    }

    fn check_protocol<N: Net>(
        &mut self,
        state: &mut MuxState<N>,
        limits: &PeerLimits,
        due: &mut Due,
    ) {
        let machine = &mut state.machine;
        let is_settled = match self.keep_alive {
            None => machine.is_acknowledged(),
            Some(_) => machine.has_peer_settings(),
        };
        self.began = self.began.filter(|_| !is_settled);
        if self.began.is_some_and(|at| due.is(at + limits.settings)) {
            machine.abort(Error::SettingsTimeout);
        }
        let Some(field_block) = limits.field_block else {
            return;
        };
        let is_within = machine.is_within_block();
        self.block = is_within.then(|| self.block.unwrap_or(due.now));
        if self.block.is_some_and(|at| due.is(at + field_block)) {
            machine.abort(Error::BlockTimeout);
        }
    }

    /// Lets tiny pieces be framed after a moment. Returns whether the peer has read nothing for `patience`.
    fn has_stalled<N: Net>(
        &mut self,
        state: &mut MuxState<N>,
        patience: Duration,
        due: &mut Due,
    ) -> bool {
        self.tiny = state
            .has_tiny_pieces()
            .then(|| self.tiny.unwrap_or(due.now));
        let moment = Duration::from_millis(H2_TINY_WINDOW_MS);
        if self.tiny.is_some_and(|since| due.is(since + moment)) {
            self.tiny = None;
            state.allow_tiny_frames();
        }
        let sent = state.out.sent();
        self.sent = match self.sent {
            _ if state.out.queued() == 0 => None,
            Some((before, since)) if before == sent => Some((before, since)),
            _ => Some((sent, due.now)),
        };
        self.sent.is_some_and(|(_, since)| due.is(since + patience))
    }

    /// Closes a connection that has been idle for `timeout`. Frees memory earlier.
    fn check_idle<N: Net>(&mut self, state: &mut MuxState<N>, timeout: Duration, due: &mut Due) {
        if !state.streams.is_empty() || state.machine.streams() > 0 {
            (self.idle, self.is_resting) = (None, false);
            if let Some(keep_alive) = &mut self.keep_alive {
                keep_alive.check(state, due);
            }
            return;
        }
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.stop();
        }
        let since = *self.idle.get_or_insert(due.now);
        if !self.is_resting && due.is(since + Duration::from_millis(IDLE_AFTER_MS)) {
            self.is_resting = true;
            state.release_memory();
        }
        if due.is(since + timeout) {
            state.machine.stop();
        }
    }
}

/// Sends PINGs to a silent endpoint. A gRPC server closes the connection with `too_many_pings` after three early PINGs
/// without a message of its own in between, however long that takes.
#[derive(Default)]
struct KeepAlive {
    /// When the first of the open streams began.
    busy: Option<Instant>,
    /// When the unanswered PING was sent.
    asked: Option<Instant>,
    /// PINGs since the endpoint's last message.
    sent: u8,
    /// When the last PING was sent.
    last: Option<Instant>,
    /// The endpoint's message parts at the last check.
    message_parts: u64,
}

impl KeepAlive {
    /// Sends a PING if the endpoint is silent, and fails the connection if no answer comes. Silence counts from when
    /// the first stream was opened: an idle endpoint has nothing to say.
    fn check<N: Net>(&mut self, state: &mut MuxState<N>, due: &mut Due) {
        let silent = state.last_received.max(*self.busy.get_or_insert(due.now));
        let timeout = Duration::from_millis(H2_PING_TIMEOUT_MS);
        self.asked = self.asked.filter(|&asked| state.last_received < asked);
        match self.asked {
            Some(asked) => {
                if due.is(asked + timeout) {
                    state.machine.abort(Error::PingTimeout);
                }
            }
            None => {
                if due.is(self.next_ping(silent, state.message_parts)) {
                    state.machine.ping(*b"weirping");
                    self.sent = self.sent.saturating_add(1);
                    self.last = Some(due.now);
                    self.asked = Some(due.now);
                    due.is(due.now + timeout);
                }
            }
        }
    }

    /// Sends no PING while no stream is open.
    fn stop(&mut self) {
        (self.busy, self.asked) = (None, None);
    }

    /// When to send the next PING to an endpoint that has been silent since `silent`.
    fn next_ping(&mut self, silent: Instant, message_parts: u64) -> Instant {
        if message_parts != self.message_parts {
            (self.sent, self.message_parts) = (0, message_parts);
        }
        let next = silent + Duration::from_millis(H2_PING_AFTER_MS);
        match self.last {
            Some(last) if self.sent >= H2_PINGS_EARLY_MAX => {
                next.max(last + Duration::from_millis(H2_PING_INTERVAL_MS))
            }
            _ => next,
        }
    }
}

/// Compares deadlines with the current time, and keeps the earliest one ahead.
struct Due {
    now: Instant,
    next: Instant,
}

impl Due {
    fn at(now: Instant) -> Self {
        let next = Instant::NEVER;
        Self { now, next }
    }

    /// Whether `at` has passed. If not, the next check happens then or earlier.
    fn is(&mut self, at: Instant) -> bool {
        let is_due = self.now >= at;
        if !is_due {
            self.next = self.next.min(at);
        }
        is_due
    }
}
