//! Counts frames that cost more than they achieve, in periods of ten seconds.

use crate::config::{FLOOD_WINDOW_MS, FloodLimits};
use crate::error::Error;

/// What a peer did in this period. Useful work, such as new streams and sent data, is credited
/// against the other counts.
#[derive(Clone, Debug)]
pub(crate) struct FloodCounters {
    limits: FloodLimits,
    since_ms: u64,
    counts: FloodCounts,
}

#[derive(Clone, Copy, Debug, Default)]
struct FloodCounts {
    resets: u32,
    settings: u32,
    pings: u32,
    priorities: u32,
    window_updates: u32,
    empty_data: u32,
    unknown: u32,
    idle: u32,
    streams: u32,
    responses: u32,
    data_sent: u32,
    data_cut_small: u32,
}

impl FloodCounters {
    pub(crate) fn new(limits: FloodLimits) -> Self {
        Self {
            limits,
            since_ms: 0,
            counts: FloodCounts::default(),
        }
    }

    pub(crate) const fn limits(&self) -> &FloodLimits {
        &self.limits
    }

    /// Starts a new period if the current one is over.
    #[inline]
    pub(crate) fn advance_to(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.since_ms) >= FLOOD_WINDOW_MS {
            self.since_ms = now_ms;
            self.counts = FloodCounts::default();
        }
    }

    /// Counts a new stream.
    #[inline]
    pub(crate) fn count_stream(&mut self) {
        self.counts.streams = self.counts.streams.saturating_add(1);
    }

    /// Counts a whole response that was sent.
    #[inline]
    pub(crate) fn count_response(&mut self) {
        self.counts.responses = self.counts.responses.saturating_add(1);
    }

    /// Counts a sent DATA frame. A tiny frame that a window has cut short earns no credit for
    /// another WINDOW_UPDATE.
    #[inline]
    pub(crate) fn count_data_sent(&mut self, is_cut_small: bool) {
        let counts = &mut self.counts;
        counts.data_sent = counts.data_sent.saturating_add(1);
        counts.data_cut_small += u32::from(is_cut_small);
    }

    /// Counts a stream that ended early.
    pub(crate) fn count_reset(&mut self) -> Result<(), Error> {
        let max = self
            .limits
            .resets_max
            .saturating_add(self.counts.responses / 8);
        count(&mut self.counts.resets, max, Error::TooManyResets)
    }

    pub(crate) fn count_settings(&mut self) -> Result<(), Error> {
        let max = self.limits.settings_max;
        count(&mut self.counts.settings, max, Error::TooManySettings)
    }

    pub(crate) fn count_ping(&mut self) -> Result<(), Error> {
        let max = self.limits.pings_max.saturating_add(self.counts.data_sent);
        count(&mut self.counts.pings, max, Error::TooManyPings)
    }

    pub(crate) fn count_priority(&mut self) -> Result<(), Error> {
        let credit = self.counts.streams.saturating_mul(10);
        let max = self.limits.priorities_max.saturating_add(credit);
        count(&mut self.counts.priorities, max, Error::TooManyPriorities)
    }

    pub(crate) fn count_window_update(&mut self) -> Result<(), Error> {
        let data = self.counts.data_sent - self.counts.data_cut_small;
        let brought = self.counts.streams.saturating_add(data);
        let credit = brought.saturating_mul(4);
        let max = self.limits.window_updates_max.saturating_add(credit);
        let error = Error::TooManyWindowUpdates;
        count(&mut self.counts.window_updates, max, error)
    }

    pub(crate) fn count_empty_data(&mut self) -> Result<(), Error> {
        let max = self
            .limits
            .empty_data_max
            .saturating_add(self.counts.streams);
        count(&mut self.counts.empty_data, max, Error::TooMuchEmptyData)
    }

    /// Counts a frame without effect: for a stream that is gone, or a repetition.
    pub(crate) fn count_idle(&mut self) -> Result<(), Error> {
        let max = self.limits.idle_max.saturating_add(self.counts.streams);
        count(&mut self.counts.idle, max, Error::TooManyIdleFrames)
    }

    pub(crate) fn count_unknown(&mut self) -> Result<(), Error> {
        let max = self.limits.unknown_max.saturating_add(self.counts.streams);
        count(&mut self.counts.unknown, max, Error::TooManyUnknownFrames)
    }
}

fn count(count: &mut u32, max: u32, error: Error) -> Result<(), Error> {
    *count = count.saturating_add(1);
    if *count > max { Err(error) } else { Ok(()) }
}
