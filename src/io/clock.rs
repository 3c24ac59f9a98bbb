//! The clocks of one core, read only when something has happened: reading them for every caller would cost more than
//! what they are read for.

use std::cell::Cell;
use std::sync::OnceLock;

use super::Instant;

/// When the first core of the process started its clock. All clocks count from it, so that cores can share times: a rate
/// limit is one for all of them.
static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();

/// A monotonic clock, and the wall clock beside it.
pub(super) struct Clock {
    start: std::time::Instant,
    now: Cell<Instant>,
    /// Milliseconds from the Unix epoch to `start`.
    epoch_ms: Cell<u64>,
}

impl Clock {
    /// Starts the clock: at zero if it is the first.
    pub(super) fn start() -> Self {
        let clock = Self {
            start: *ORIGIN.get_or_init(std::time::Instant::now),
            now: Cell::new(Instant::default()),
            epoch_ms: Cell::new(0),
        };
        clock.tick_wall();
        clock
    }

    /// The time of the last tick.
    #[inline]
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// The wall time of the last tick, in milliseconds since the Unix epoch.
    pub(super) fn wall_ms(&self) -> u64 {
        self.epoch_ms.get() + self.now.get().0 / 1_000_000
    }

    /// Reads the monotonic clock.
    pub(super) fn tick(&self) {
        self.now
            .set(Instant(self.start.elapsed().as_nanos() as u64));
    }

    /// Reads both clocks. The wall clock may have been set.
    pub(super) fn tick_wall(&self) {
        self.tick();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |wall| wall.as_millis() as u64);
        self.epoch_ms
            .set(wall_ms.saturating_sub(self.now.get().0 / 1_000_000));
    }
}
