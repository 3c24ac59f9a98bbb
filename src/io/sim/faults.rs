//! How unkind the world is.

use std::time::Duration;

use super::rng::Rng;

/// The knobs. Probabilities are per thousand; times are virtual. A connection keeps the knobs that held for its
/// address when it was made.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A receive or send takes only a part of what it could.
    pub partial_permille: u32,
    /// An operation that could complete does so within the poll that starts it.
    pub immediate_permille: u32,
    /// Between a cause and its effect: bytes under way, completions.
    pub latency_us_max: u32,
    /// An effect comes later than that, and so out of order with others.
    pub late_permille: u32,
    /// How much later.
    pub late_us_max: u32,
    /// A receive or send finds the connection reset. 0 unless a test asks for it.
    pub reset_permille: u32,
    /// A connect is refused. 0 unless a test asks for it.
    pub refuse_permille: u32,
    /// An accept fails for want of descriptors, and takes nothing from the queue. 0 unless a test asks for it.
    pub accept_error_permille: u32,
    /// Bytes that a sender's socket takes before its peer has them.
    pub send_buffer_bytes: usize,
    /// Bytes that a receiver's socket holds.
    pub receive_buffer_bytes: usize,
}

/// What becomes of connects to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// They reach the listener, if there is one.
    Open,
    /// They are refused.
    Refused,
    /// They are never answered; the kernel gives up after 127 s.
    BlackHole,
    /// They take this much longer.
    Slow(Duration),
}

impl Faults {
    /// Everything happens at once and whole: for benches, and to see what a program does at its best.
    pub fn none() -> Self {
        Self {
            partial_permille: 0,
            immediate_permille: 1000,
            latency_us_max: 0,
            late_permille: 0,
            late_us_max: 0,
            reset_permille: 0,
            refuse_permille: 0,
            accept_error_permille: 0,
            send_buffer_bytes: 64 * 1024,
            receive_buffer_bytes: 64 * 1024,
        }
    }

    /// What a seed brings: every world has a character of its own, from calm to rough, so that hundreds of seeds
    /// meet combinations that one average would never show. Nothing fails; that is for tests to ask.
    pub fn drawn(rng: &mut Rng) -> Self {
        Self {
            partial_permille: [0, 100, 500, 900][rng.below(4)],
            immediate_permille: [0, 100, 500, 900][rng.below(4)],
            latency_us_max: [1, 20, 200, 2_000][rng.below(4)],
            late_permille: [0, 10, 100][rng.below(3)],
            late_us_max: [100, 5_000][rng.below(2)],
            send_buffer_bytes: [2_048, 16_384, 65_536, 262_144][rng.below(4)],
            receive_buffer_bytes: [2_048, 16_384, 65_536, 262_144][rng.below(4)],
            ..Self::none()
        }
    }

    /// Nanoseconds between a cause and its effect.
    pub(super) fn delay(&self, rng: &mut Rng) -> u64 {
        let mut us = rng.below(self.latency_us_max as usize + 1);
        if rng.chance(self.late_permille) {
            us += rng.below(self.late_us_max as usize + 1);
        }
        us as u64 * 1000
    }

    /// How much of `most` bytes an operation takes, at least one.
    pub(super) fn part(&self, rng: &mut Rng, most: usize) -> usize {
        if most > 1 && rng.chance(self.partial_permille) {
            rng.size(most)
        } else {
            most
        }
    }
}
