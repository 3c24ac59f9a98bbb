//! Numbers that one core writes and control reads.
//!
//! A [`Count`] has a single writer, so adding is a plain load and store: no locked instruction, no shared line. The
//! groups below are aligned to cache lines, so that cores never write next to each other.

use std::sync::atomic::{AtomicU64, Ordering};

use super::http2::{ERRORS, Http2Counts};
use crate::fault::Reason;
use crate::tls::Failure;

/// A number that only its core changes.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Adds; for the core that owns it, and nobody else.
    #[inline]
    pub(super) fn add(&self, n: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Replaces; for the core that owns it, and nobody else.
    #[inline]
    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads, from any thread.
    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Times by fixed buckets, two to each doubling from 64 us to 134 s: a reading is off by at most a third.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Histogram {
    // Next to the buckets of short times, which are the ones in use.
    sum_us: Count,
    buckets: [Count; Self::BUCKETS],
}

impl Histogram {
    /// One below 64 us, 42 for the 21 doublings, one above.
    pub(super) const BUCKETS: usize = 2 + 2 * (Self::OCTAVE_MAX - Self::OCTAVE_MIN);
    const OCTAVE_MIN: usize = 6;
    const OCTAVE_MAX: usize = 27;

    /// Counts one reading in microseconds.
    #[inline]
    pub(super) fn record(&self, us: u64) {
        if let Some(bucket) = self.buckets.get(Self::bucket(us)) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }

    /// The bucket of a reading.
    #[inline]
    pub(super) const fn bucket(us: u64) -> usize {
        if us < 1 << Self::OCTAVE_MIN {
            return 0;
        }
        let octave = us.ilog2() as usize;
        if octave >= Self::OCTAVE_MAX {
            return Self::BUCKETS - 1;
        }
        let upper_half = (us >> (octave - 1)) as usize & 1;
        1 + 2 * (octave - Self::OCTAVE_MIN) + upper_half
    }

    /// Readings in `bucket` are below this many microseconds; `None` for the last.
    pub(super) const fn bound_us(bucket: usize) -> Option<u64> {
        match bucket {
            0 => Some(1 << Self::OCTAVE_MIN),
            _ if bucket + 1 >= Self::BUCKETS => None,
            // Odd buckets are lower halves: they end at 1.5 times their octave's start.
            _ if bucket % 2 == 1 => Some(3 << (Self::OCTAVE_MIN + bucket / 2 - 1)),
            _ => Some(2 << (Self::OCTAVE_MIN + bucket / 2 - 1)),
        }
    }

    /// Adds this core's readings to a sum over cores.
    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        total.sum_us += self.sum_us.get();
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Count::default()),
            sum_us: Count::default(),
        }
    }
}

/// A histogram summed over cores.
#[derive(Clone, Debug)]
pub(super) struct HistogramTotal {
    /// Readings by bucket.
    pub(super) buckets: [u64; Histogram::BUCKETS],
    /// Their sum, microseconds.
    pub(super) sum_us: u64,
}

impl Default for HistogramTotal {
    fn default() -> Self {
        Self {
            buckets: [0; Histogram::BUCKETS],
            sum_us: 0,
        }
    }
}

/// Classes of status: index 0 is "no answer", 1 to 5 the hundreds.
pub(super) const CLASSES: usize = 6;

/// The class of a status.
#[inline]
pub(super) const fn class_of(status: u16) -> usize {
    let class = status as usize / 100;
    if class < CLASSES { class } else { 0 }
}

/// What a core counts for itself.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct CoreCounts {
    /// Exchanges begun.
    pub(super) exchanges_started: Count,
    /// Exchanges over.
    pub(super) exchanges_ended: Count,
    /// Client connections begun, all listeners together.
    pub(super) connections_opened: Count,
    /// Client connections over.
    pub(super) connections_closed: Count,
    /// Fresh connections given to another core.
    pub(super) handed_on: Count,
    /// Fresh connections taken from another core.
    pub(super) taken_over: Count,
    /// Messages that found another core's mailbox full.
    pub(super) mailbox_full: Count,
    /// Accepts that failed.
    pub(super) accept_errors: Count,
    /// Connections and requests that were ended because they held most of the memory for messages.
    pub(super) shed: Count,
    /// Exchanges that ended in a panic.
    pub(super) panics: Count,
    /// Log lines dropped because the log thread lagged behind.
    pub(super) log_dropped: Count,
    /// Bytes of blocks that the core's pool has in use.
    pub(super) pool_used_bytes: Count,
    /// The epoch of the plan that the core counts by.
    pub(super) plan_epoch: Count,
}

/// What a core counts by listener.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct ListenerCounts {
    /// Exchanges by class of status.
    pub(super) exchanges: [Count; CLASSES],
    /// Request body bytes.
    pub(super) bytes_in: Count,
    /// Response body bytes.
    pub(super) bytes_out: Count,
    /// Connections accepted.
    pub(super) opened: Count,
    /// Connections over.
    pub(super) closed: Count,
    /// Exchanges and connections that ended for a reason of their own.
    pub(super) reasons: [Count; REASONS],
    /// Handshakes by what was agreed on: 1.2 and 1.3, each in full and resumed.
    pub(super) handshakes: [Count; HANDSHAKES],
    /// TLS connections that failed, by kind.
    pub(super) tls_failures: [Count; FAILURES],
    /// What is of HTTP/2 alone.
    pub(super) http2: Http2Counts,
}

/// What a core counts by route. With its handle, 512 bytes: the price of one more route on one more core. An exchange
/// touches two or three lines of it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct RouteCounts {
    /// Exchanges by class of status.
    pub(super) exchanges: [Count; CLASSES],
    /// Request body bytes.
    pub(super) bytes_in: Count,
    /// Response body bytes.
    pub(super) bytes_out: Count,
    /// Total times.
    pub(super) total: Histogram,
}

/// What a core counts by upstream.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct UpstreamCounts {
    /// Exchanges by class of status.
    pub(super) exchanges: [Count; CLASSES],
    /// Attempts after the first.
    pub(super) retries: Count,
    /// Waiting for a free connection, microseconds.
    pub(super) queued_us: Count,
    /// Attempts that began to wait for one.
    pub(super) queue_entered: Count,
    /// Attempts that wait no more.
    pub(super) queue_left: Count,
    /// Why exchanges with it failed.
    pub(super) reasons: [Count; REASONS],
    /// Why connections of HTTP/2 with its endpoints ended.
    pub(super) http2_errors: [Count; ERRORS],
    /// Connect times of new connections.
    pub(super) connect: Histogram,
    /// Times to the first byte.
    pub(super) first_byte: Histogram,
}

/// What a core counts by endpoint.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct EndpointCounts {
    /// Exchanges whose last attempt went here, by class of status.
    pub(super) exchanges: [Count; CLASSES],
    /// Connections made.
    pub(super) opened: Count,
    /// Connections over.
    pub(super) closed: Count,
    /// Attempts on a connection that was open already.
    pub(super) reused: Count,
    /// Connections that could not be made.
    pub(super) failed: Count,
}

/// Sorts of handshakes.
pub(super) const HANDSHAKES: usize = 4;

/// Kinds of failures of TLS; the place is the discriminant.
pub(super) const FAILURES: usize = Failure::ALL.len();

/// Places of a count by reason; the place is the discriminant.
pub(super) const REASONS: usize = Reason::ALL.len();

const _: () = assert!(size_of::<RouteCounts>() == 448);

macro_rules! zero {
    ($($name:ident { $($array:ident),* ; $($field:ident),* })+) => {
        $(impl Default for $name {
            fn default() -> Self {
                Self {
                    $($array: std::array::from_fn(|_| Count::default()),)*
                    $($field: Default::default(),)*
                }
            }
        })+
    };
}

zero! {
    ListenerCounts { exchanges, reasons, handshakes, tls_failures; bytes_in, bytes_out, opened, closed, http2 }
    RouteCounts { exchanges; bytes_in, bytes_out, total }
    UpstreamCounts { exchanges, reasons, http2_errors; retries, queued_us, queue_entered, queue_left, connect, first_byte }
    EndpointCounts { exchanges; opened, closed, reused, failed }
}
