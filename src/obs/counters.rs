//! Numbers that one core writes and control reads.
//!
//! A [`Counter`] has a single writer, so adding is a plain load and store: no locked instruction, no shared line. The
//! groups below are aligned to cache lines, so that cores never write next to each other.

use std::sync::atomic::{AtomicU64, Ordering};

use super::event::{CLASSES, GRPC_STATUSES};
use super::http2::{ERRORS, Http2Counts};
use crate::fault::Reason;
use crate::tls::TlsFailure;

/// A number that only its core changes.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
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

/// Times by fixed buckets: two to each doubling from 64 us to 134 s, so that a reading is off by at most a third, and
/// the round bounds besides.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Histogram {
    // Next to the buckets of short times, which are the ones in use.
    sum_us: Counter,
    buckets: [Counter; Self::BUCKETS],
}

/// Bounds that objectives and dashboards name, microseconds. Each splits another of the fine buckets.
const ROUND_US: [u64; 11] = [
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// How many of its bounds a histogram shows on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    /// The round ones.
    Round,
    /// Every second of the others too.
    Half,
    /// All.
    Full,
}

/// A fine bucket: where its readings are counted.
#[derive(Clone, Copy)]
struct FineBucket {
    /// The bucket of those up to `first_us`; the others have the next one.
    bucket: u8,
    first_us: u64,
}

const OCTAVE_MIN: usize = 6;
const OCTAVE_MAX: usize = 27;

/// One below 64 us, 42 for the 21 doublings, one above.
const FINE: usize = 2 + 2 * (OCTAVE_MAX - OCTAVE_MIN);

/// The fine bucket of a reading.
#[inline]
const fn fine(us: u64) -> usize {
    if us < 1 << OCTAVE_MIN {
        return 0;
    }
    let octave = us.ilog2() as usize;
    if octave >= OCTAVE_MAX {
        return FINE - 1;
    }
    let upper_half = (us >> (octave - 1)) as usize & 1;
    1 + 2 * (octave - OCTAVE_MIN) + upper_half
}

/// Readings in a fine bucket are below this many microseconds; the last has no bound.
const fn fine_bound_us(bucket: usize) -> u64 {
    match bucket {
        0 => 1 << OCTAVE_MIN,
        // Odd buckets are lower halves: they end at 1.5 times their octave's start.
        _ if bucket % 2 == 1 => 3 << (OCTAVE_MIN + bucket / 2 - 1),
        _ => 2 << (OCTAVE_MIN + bucket / 2 - 1),
    }
}

const PLACES: [FineBucket; FINE] = {
    let mut places = [FineBucket {
        bucket: 0,
        first_us: u64::MAX,
    }; FINE];
    let (mut at, mut rounds) = (0, 0);
    while at < FINE {
        places[at].bucket = (at + rounds) as u8;
        if rounds < ROUND_US.len() && fine(ROUND_US[rounds]) == at {
            places[at].first_us = ROUND_US[rounds] - 1;
            rounds += 1;
        }
        at += 1;
    }
    assert!(rounds == ROUND_US.len(), "each splits another bucket");
    places
};

/// The upper bound of each bucket but the last, microseconds, and from which detail on it is shown.
const BOUNDS: [(u64, Detail); Histogram::BUCKETS - 1] = {
    let mut bounds = [(0, Detail::Full); Histogram::BUCKETS - 1];
    let mut at = 0;
    while at < FINE {
        let place = PLACES[at];
        let mut bucket = place.bucket as usize;
        if place.first_us < u64::MAX {
            bounds[bucket] = (place.first_us + 1, Detail::Round);
            bucket += 1;
        }
        if at < FINE - 1 {
            let detail = if at % 2 == 0 {
                Detail::Half
            } else {
                Detail::Full
            };
            bounds[bucket] = (fine_bound_us(at), detail);
        }
        at += 1;
    }
    bounds
};

impl Histogram {
    /// The fine buckets, and one more for each that a round bound splits.
    pub(super) const BUCKETS: usize = FINE + ROUND_US.len();

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
    pub(super) fn bucket(us: u64) -> usize {
        let place = &PLACES[fine(us)];
        usize::from(place.bucket) + usize::from(us > place.first_us)
    }

    /// Readings in `bucket` are below this many microseconds; `None` for the last.
    pub(super) fn bound_us(bucket: usize) -> Option<u64> {
        BOUNDS.get(bucket).map(|(us, _)| *us)
    }

    /// Whether the bound of `bucket` is on a page of such detail. The last bucket's, which is none, always is.
    pub(super) fn shows(bucket: usize, detail: Detail) -> bool {
        BOUNDS.get(bucket).is_none_or(|(_, least)| *least <= detail)
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
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_us: Counter::default(),
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

/// What a core counts for itself.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct CoreCounts {
    /// Exchanges begun.
    pub(super) exchanges_started: Counter,
    /// Exchanges over.
    pub(super) exchanges_ended: Counter,
    /// Client connections begun, all listeners together.
    pub(super) connections_opened: Counter,
    /// Client connections over.
    pub(super) connections_closed: Counter,
    /// Fresh connections given to another core.
    pub(super) handed_on: Counter,
    /// Fresh connections taken from another core.
    pub(super) taken_over: Counter,
    /// Messages that found another core's mailbox full.
    pub(super) mailbox_full: Counter,
    /// Accepts that failed.
    pub(super) accept_errors: Counter,
    /// Connections and requests that were ended because they held most of the memory for messages.
    pub(super) shed: Counter,
    /// Fields of requests that were dropped for their odd names.
    pub(super) fields_dropped: Counter,
    /// Exchanges that ended in a panic.
    pub(super) panics: Counter,
    /// Log lines dropped because the log thread lagged behind.
    pub(super) log_dropped: Counter,
    /// Reports to control that were dropped because the queue was full.
    pub(super) reports_dropped: Counter,
    /// Bytes of blocks that the core's pool has in use.
    pub(super) pool_used_bytes: Counter,
    /// The epoch of the plan that the core counts by.
    pub(super) plan_epoch: Counter,
    /// The epoch of the endpoint sets that the core counts by.
    pub(super) endpoints_epoch: Counter,
}

/// What a core counts by listener.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct ListenerCounts {
    /// Exchanges by class of status.
    pub(super) exchanges: [Counter; CLASSES],
    /// Request body bytes.
    pub(super) bytes_in: Counter,
    /// Response body bytes.
    pub(super) bytes_out: Counter,
    /// Connections accepted.
    pub(super) opened: Counter,
    /// Connections over.
    pub(super) closed: Counter,
    /// Exchanges and connections that ended for a reason of their own.
    pub(super) reasons: [Counter; REASONS],
    /// Calls of gRPC by their status.
    pub(super) grpc: [Counter; GRPC_STATUSES],
    /// Handshakes by what was agreed on: 1.2 and 1.3, each in full and resumed.
    pub(super) handshakes: [Counter; HANDSHAKES],
    /// TLS connections that failed, by kind.
    pub(super) tls_failures: [Counter; FAILURES],
    /// What is of HTTP/2 alone.
    pub(super) http2: Http2Counts,
}

/// What a core counts by route. With its handle, 576 bytes: the price of one more route on one more core. An exchange
/// touches two or three lines of it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct RouteCounts {
    /// Exchanges by class of status.
    pub(super) exchanges: [Counter; CLASSES],
    /// Request body bytes.
    pub(super) bytes_in: Counter,
    /// Response body bytes.
    pub(super) bytes_out: Counter,
    /// Total times.
    pub(super) total: Histogram,
}

/// What a core counts by upstream.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct UpstreamCounts {
    /// Exchanges by class of status.
    pub(super) exchanges: [Counter; CLASSES],
    /// Attempts after the first.
    pub(super) retries: Counter,
    /// Waiting for a free connection, microseconds.
    pub(super) queued_us: Counter,
    /// Attempts that began to wait for one.
    pub(super) queue_entered: Counter,
    /// Attempts that wait no more.
    pub(super) queue_left: Counter,
    /// Why exchanges with it failed.
    pub(super) reasons: [Counter; REASONS],
    /// Calls of gRPC by their status.
    pub(super) grpc: [Counter; GRPC_STATUSES],
    /// Why connections of HTTP/2 with its endpoints ended.
    pub(super) http2_errors: [Counter; ERRORS],
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
    pub(super) exchanges: [Counter; CLASSES],
    /// Connections made.
    pub(super) opened: Counter,
    /// Connections over.
    pub(super) closed: Counter,
    /// Attempts on a connection that was open already.
    pub(super) reused: Counter,
    /// Connections that could not be made.
    pub(super) failed: Counter,
    /// Exchanges that came to a good end here.
    pub(super) answered: Counter,
    /// Attempts that failed here.
    pub(super) failures: Counter,
    /// Why the last one did, as [`super::endpoint_troubles::FailureCause`] has it.
    pub(super) last_cause: Counter,
    /// Why attempts failed here.
    pub(super) reasons: [Counter; REASONS],
    /// Times to the first byte.
    pub(super) first_byte: Histogram,
}

/// Sorts of handshakes.
pub(super) const HANDSHAKES: usize = 4;

/// Kinds of failures of TLS; the place is the discriminant.
pub(super) const FAILURES: usize = TlsFailure::ALL.len();

/// Places of a count by reason; the place is the discriminant.
pub(super) const REASONS: usize = Reason::ALL.len();

const _: () = assert!(size_of::<RouteCounts>() == 512);

macro_rules! zero {
    ($($name:ident { $($array:ident),* ; $($field:ident),* })+) => {
        $(impl Default for $name {
            fn default() -> Self {
                Self {
                    $($array: std::array::from_fn(|_| Counter::default()),)*
                    $($field: Default::default(),)*
                }
            }
        })+
    };
}

zero! {
    ListenerCounts { exchanges, reasons, grpc, handshakes, tls_failures; bytes_in, bytes_out, opened, closed, http2 }
    RouteCounts { exchanges; bytes_in, bytes_out, total }
    UpstreamCounts { exchanges, reasons, grpc, http2_errors; retries, queued_us, queue_entered, queue_left, connect, first_byte }
    EndpointCounts { exchanges, reasons; opened, closed, reused, failed, answered, failures, last_cause, first_byte }
}
