//! The faults of a simulated world.

use std::time::Duration;

use super::rng::Rng;

/// The faults of a world. Probabilities are per thousand; times are virtual. A connection keeps the faults that its
/// address had when it was made.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A receive or send handles only part of its bytes.
    pub partial_permille: u32,
    /// An operation that can complete does so within the poll that starts it.
    pub immediate_permille: u32,
    /// A core's send is left to a driver, which may find that the socket takes only a part.
    pub batched_permille: u32,
    /// The longest ordinary time between a cause and its effect, for bytes and completions.
    pub latency_us_max: u32,
    /// An effect takes longer than that, and so overtakes or follows others.
    pub late_permille: u32,
    /// How much longer, at most.
    pub late_us_max: u32,
    /// A receive or send finds the connection reset. 0 unless a test sets it.
    pub reset_permille: u32,
    /// A connect is refused. 0 unless a test sets it.
    pub refuse_permille: u32,
    /// An accept fails for lack of descriptors and leaves the queue alone. 0 unless a test sets it.
    pub accept_error_permille: u32,
    /// A datagram gets lost. 0 unless a test sets it.
    pub lost_permille: u32,
    /// Bytes that a sender's socket takes before the peer has them.
    pub send_buffer_bytes: usize,
    /// Bytes that a receiver's socket holds.
    pub receive_buffer_bytes: usize,
}

/// What happens to connects to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The connect reaches the listener, if there is one.
    Open,
    /// The connect is refused.
    Refused,
    /// No answer comes; the kernel gives up after 127 s.
    BlackHole,
    /// The connect takes this much longer.
    Slow(Duration),
}

impl Faults {
    /// No faults and no delays, for benches and best cases.
    pub fn none() -> Self {
        Self {
            partial_permille: 0,
            immediate_permille: 1000,
            batched_permille: 0,
            latency_us_max: 0,
            late_permille: 0,
            late_us_max: 0,
            reset_permille: 0,
            refuse_permille: 0,
            accept_error_permille: 0,
            lost_permille: 0,
            send_buffer_bytes: 64 * 1024,
            receive_buffer_bytes: 64 * 1024,
        }
    }

    /// Draws the faults of a world from its seed. Worlds range from calm to rough, so hundreds of seeds meet
    /// combinations that one average world would never show. Nothing fails; only tests ask for failures.
    pub fn drawn(rng: &mut Rng) -> Self {
        Self {
            partial_permille: [0, 100, 500, 900][rng.below(4)],
            immediate_permille: [0, 100, 500, 900][rng.below(4)],
            latency_us_max: [1, 20, 200, 2_000][rng.below(4)],
            late_permille: [0, 10, 100][rng.below(3)],
            late_us_max: [100, 5_000][rng.below(2)],
            send_buffer_bytes: [2_048, 16_384, 65_536, 262_144][rng.below(4)],
            receive_buffer_bytes: [2_048, 16_384, 65_536, 262_144][rng.below(4)],
            batched_permille: [0, 100, 500, 900][rng.below(4)],
            ..Self::none()
        }
    }

    /// Draws the nanoseconds between a cause and its effect.
    pub(super) fn delay(&self, rng: &mut Rng) -> u64 {
        let mut us = rng.below(self.latency_us_max as usize + 1);
        if rng.chance(self.late_permille) {
            us += rng.below(self.late_us_max as usize + 1);
        }
        us as u64 * 1000
    }

    /// Draws how many of `most` bytes an operation handles, at least one.
    pub(super) fn part(&self, rng: &mut Rng, most: usize) -> usize {
        if most > 1 && rng.chance(self.partial_permille) {
            rng.size(most)
        } else {
            most
        }
    }
}
