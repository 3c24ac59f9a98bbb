//! Counters that one core writes and control reads.
//!
//! A [`Counter`] has a single writer, so adding is a plain load and store: no locked instruction, no shared cache line.
//! The groups below are aligned to cache lines, so cores never write to the same line.

use super::event::{CLASSES, GRPC_STATUSES};
use super::http2::{ERRORS, Http2Counts};
use super::mirrors::MirrorCounts;
use super::relays::RelayCounts;
use super::sessions::SessionCounts;
use crate::fault::Reason;
use crate::policy::PolicyKind;
use crate::shared::{Ordering, OwnU64};
use crate::tls::TlsFailure;

/// A number that only its core changes.
#[derive(Debug, Default)]
pub(super) struct Counter(OwnU64);

impl Counter {
    /// Adds `n`. Only the owning core calls this.
    #[inline]
    pub(super) fn add(&self, n: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Replaces the number. Only the owning core calls this.
    #[inline]
    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads the number, from any thread.
    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of durations. It has two buckets for each doubling from 64 us to 134 s, so a reading is off by at most a
/// third. The round bounds split some of these buckets.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Histogram {
    // Next to the buckets of short durations, which are used most.
    sum_us: Counter,
    buckets: [Counter; Self::BUCKETS],
}

/// The bounds that objectives and dashboards use, in microseconds. Each splits a different fine bucket.
const ROUND_US: [u64; 11] = [
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// How many of a histogram's bounds the page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    /// The round bounds.
    Round,
    /// The round bounds and every second of the others.
    Half,
    /// All bounds.
    Full,
}

/// Where the readings of a fine bucket are counted.
#[derive(Clone, Copy)]
struct FineBucket {
    /// The bucket of readings up to `first_us`; larger ones count in the next bucket.
    bucket: u8,
    first_us: u64,
}

const OCTAVE_MIN: usize = 6;
const OCTAVE_MAX: usize = 27;

/// One bucket below 64 us, 42 for 21 doublings, one above.
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

/// The upper bound of a fine bucket in microseconds. The last bucket has none.
const fn fine_bound_us(bucket: usize) -> u64 {
    match bucket {
        0 => 1 << OCTAVE_MIN,
        // Odd buckets are lower halves. They end at 1.5 times their octave's start.
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

/// The upper bound of each bucket but the last, in microseconds, and the least detail that shows it.
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
    /// All fine buckets, and one more for each that a round bound splits.
    pub(super) const BUCKETS: usize = FINE + ROUND_US.len();

    /// Counts a reading in microseconds.
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

    /// The exclusive upper bound of a bucket in microseconds; `None` for the last.
    pub(super) fn bound_us(bucket: usize) -> Option<u64> {
        BOUNDS.get(bucket).map(|(us, _)| *us)
    }

    /// Whether a page of this detail shows the bound of a bucket. It always shows the last one, which is infinite.
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
    pub(super) buckets: [u64; Histogram::BUCKETS],
    /// The sum of all readings, in microseconds.
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

/// Counters for a core as a whole.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct CoreCounts {
    pub(super) exchanges_started: Counter,
    pub(super) exchanges_ended: Counter,
    /// Client connections accepted on any listener.
    pub(super) connections_opened: Counter,
    /// Client connections that ended.
    pub(super) connections_closed: Counter,
    /// Fresh connections handed to another core.
    pub(super) handed_on: Counter,
    /// Fresh connections taken over from another core.
    pub(super) taken_over: Counter,
    /// Messages that found another core's mailbox full.
    pub(super) mailbox_full: Counter,
    /// Failed accepts.
    pub(super) accept_errors: Counter,
    /// Connections and requests ended because they used the most memory when memory ran short.
    pub(super) shed: Counter,
    /// Request fields dropped because of their names.
    pub(super) fields_dropped: Counter,
    pub(super) panics: Counter,
    /// Sub-requests that the core did not make, because it makes as many as it may.
    pub(super) calls_dropped: Counter,
    /// Log lines dropped because the log thread was behind.
    pub(super) log_dropped: Counter,
    /// Reports to control that were dropped because the queue was full.
    pub(super) reports_dropped: Counter,
    /// Bytes of the core's blocks in use.
    pub(super) pool_used_bytes: Counter,
    /// The epoch of the plan that the core counts by.
    pub(super) plan_epoch: Counter,
    /// The epoch of the endpoint sets that the core counts by.
    pub(super) endpoints_epoch: Counter,
}

/// A core's counters for one listener.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct ListenerCounts {
    /// By status class.
    pub(super) exchanges: [Counter; CLASSES],
    /// Bytes of request bodies.
    pub(super) bytes_in: Counter,
    /// Bytes of response bodies.
    pub(super) bytes_out: Counter,
    /// Connections accepted.
    pub(super) opened: Counter,
    /// Connections that ended.
    pub(super) closed: Counter,
    /// Local answers, broken exchanges and refused connections, by reason.
    pub(super) reasons: [Counter; REASONS],
    /// Answers of policies, by kind.
    pub(super) policies: [Counter; POLICIES],
    /// gRPC calls by status.
    pub(super) grpc: [Counter; GRPC_STATUSES],
    /// TLS handshakes: 1.2 and 1.3, each full and resumed.
    pub(super) handshakes: [Counter; HANDSHAKES],
    /// Failed TLS connections, by kind.
    pub(super) tls_failures: [Counter; FAILURES],
    pub(super) http2: Http2Counts,
    pub(super) relays: RelayCounts,
}

/// A core's counters for one route. With its handle, each route costs 576 bytes on each core. An exchange touches two
/// or three of their cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct RouteCounts {
    /// By status class.
    pub(super) exchanges: [Counter; CLASSES],
    /// Bytes of request bodies.
    pub(super) bytes_in: Counter,
    /// Bytes of response bodies.
    pub(super) bytes_out: Counter,
    /// Total durations.
    pub(super) total: Histogram,
}

/// A core's counters for one upstream.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct UpstreamCounts {
    /// By status class.
    pub(super) exchanges: [Counter; CLASSES],
    /// Attempts after the first.
    pub(super) retries: Counter,
    pub(super) hedges: Counter,
    pub(super) hedges_won: Counter,
    /// Answers of sticky upstreams to clients without a session, at their own endpoint, at another one.
    pub(super) sessions: SessionCounts,
    /// Copies of requests that it was to get.
    pub(super) mirrored: MirrorCounts,
    /// Time spent waiting for a connection, in microseconds.
    pub(super) queued_us: Counter,
    /// Attempts that started to wait for a connection.
    pub(super) queue_entered: Counter,
    /// Attempts that stopped waiting.
    pub(super) queue_left: Counter,
    /// Failed exchanges, by reason.
    pub(super) reasons: [Counter; REASONS],
    /// gRPC calls by status.
    pub(super) grpc: [Counter; GRPC_STATUSES],
    /// HTTP/2 connections to endpoints that ended in an error, by error.
    pub(super) http2_errors: [Counter; ERRORS],
    /// Durations of connects.
    pub(super) connect: Histogram,
    /// Durations to the first byte.
    pub(super) first_byte: Histogram,
}

/// A core's counters for one endpoint.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct EndpointCounts {
    /// Exchanges whose last attempt went to this endpoint, by status class.
    pub(super) exchanges: [Counter; CLASSES],
    /// Connections opened.
    pub(super) opened: Counter,
    /// Connections that ended.
    pub(super) closed: Counter,
    /// Attempts on a connection that was open already.
    pub(super) reused: Counter,
    /// Failed connects.
    pub(super) failed: Counter,
    /// Good and bad outcomes, if the upstream ejects by their share.
    pub(super) good: Counter,
    pub(super) bad: Counter,
    /// Exchanges that the endpoint answered without a failure.
    pub(super) answered: Counter,
    /// Failed attempts.
    pub(super) failures: Counter,
    /// The cause of the last failure, as [`super::endpoint_troubles::FailureCause`] encodes it.
    pub(super) last_cause: Counter,
    /// Failed attempts, by reason.
    pub(super) reasons: [Counter; REASONS],
    /// Durations to the first byte.
    pub(super) first_byte: Histogram,
}

/// Kinds of handshakes.
pub(super) const HANDSHAKES: usize = 4;

/// Kinds of TLS failures, indexed by discriminant.
pub(super) const FAILURES: usize = TlsFailure::ALL.len();

/// Reasons, indexed by discriminant.
pub(super) const REASONS: usize = Reason::ALL.len();

/// Kinds of policies, indexed by discriminant.
pub(super) const POLICIES: usize = PolicyKind::ALL.len();

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
    ListenerCounts { exchanges, reasons, policies, grpc, handshakes, tls_failures; bytes_in, bytes_out, opened, closed, http2, relays }
    RouteCounts { exchanges; bytes_in, bytes_out, total }
    UpstreamCounts { exchanges, reasons, grpc, http2_errors, sessions, mirrored; retries, hedges, hedges_won, queued_us, queue_entered, queue_left, connect, first_byte }
    EndpointCounts { exchanges, reasons; opened, closed, reused, failed, good, bad, answered, failures, last_cause, first_byte }
}
