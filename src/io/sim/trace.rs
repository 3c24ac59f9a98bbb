//! The most recent events, shown when a run fails.

use std::collections::VecDeque;
use std::fmt;

/// Who caused or met an event: a core, or a script (client, endpoint, test).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    /// A core of the program under test.
    Core(u32),
    /// A script, by the number of its handle.
    Script(u32),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(n) => write!(f, "core {n}"),
            Self::Script(n) => write!(f, "script {n}"),
        }
    }
}

/// A kind of event. The comments say what its two numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Task, -.
    Spawned,
    /// Task, -.
    Ended,
    /// Connection, listener.
    Connected,
    /// -, -.
    Refused,
    /// Connection, listener.
    Accepted,
    /// Connection, bytes.
    Received,
    /// Connection, bytes taken.
    Sent,
    /// Connection, -: the end was received.
    Eof,
    /// Connection, -: the sending direction ended.
    Finished,
    /// Connection, bytes unread.
    Closed,
    /// Connection, -.
    ResetSent,
    /// Connection, bytes lost under way.
    ResetSeen,
    /// Listener, connections reset.
    ListenerClosed,
    /// Connection, the core that packed it.
    Unpacked,
    /// The doorbell's connection, -.
    Rung,
    /// -, -.
    Slept,
}

#[derive(Clone, Copy)]
struct Entry {
    at_ns: u64,
    actor: Actor,
    what: What,
    id: u64,
    n: u64,
}

/// The last events, and a fingerprint of all events.
pub(super) struct Trace {
    last: VecDeque<Entry>,
    events: u64,
    fingerprint: u64,
}

/// How many events a failure shows.
const SHOWN_MAX: usize = 60;

impl Trace {
    pub(super) fn new() -> Self {
        Self {
            last: VecDeque::with_capacity(SHOWN_MAX),
            events: 0,
            fingerprint: 0xCBF2_9CE4_8422_2325,
        }
    }

    pub(super) fn add(&mut self, at_ns: u64, actor: Actor, what: What, id: u64, n: u64) {
        let who = match actor {
            Actor::Core(n) => u64::from(n),
            Actor::Script(n) => 1 << 32 | u64::from(n),
        };
        for word in [at_ns, who, what as u64, id, n] {
            self.fingerprint = (self.fingerprint ^ word).wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.events += 1;
        if self.last.len() == SHOWN_MAX {
            self.last.pop_front();
        }
        self.last.push_back(Entry {
            at_ns,
            actor,
            what,
            id,
            n,
        });
    }

    /// How many events there have been.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Equal for equal runs.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry {
            at_ns,
            actor,
            what,
            id,
            n,
        } in &self.last
        {
            let us = at_ns / 1000;
            writeln!(
                f,
                "{us:>12} us  {:<10} {:<14} {id:>6} {n:>8}",
                actor.to_string(),
                format!("{what:?}")
            )?;
        }
        Ok(())
    }
}
