//! `retries`: at the top level, of an upstream and of a route.

use std::time::Duration;

use crate::decode::amounts::{DurationText, PercentText};
use crate::decode::decoder::Decoder;
use crate::decode::kinds::{Count, LongForm, OrOff, ShortOrLong};
use crate::decode::preset::preset;
use crate::decode::table::{frame, layer, table};
use crate::slice::hedge::{Hedge, HedgeText};
use crate::slice::retry_methods::{RetryMethods, RetryMethodsKind};
use crate::value::failure_set::{FailureKind, FailureSet, FailuresText};

const COUNT_MAX: u32 = 10;
const BUDGET_MIN_MAX: u32 = 10_000_000;

const ON: FailureSet = FailureSet::of(
    &[
        FailureKind::Connect,
        FailureKind::Reset,
        FailureKind::Invalid,
    ],
    &[503],
);

/// A number, `"off"`, or the table.
pub(crate) type RetriesKind = ShortOrLong<OrOff<Count<0, COUNT_MAX>>, RetriesPatch>;

layer! {
    /// When Weir repeats a failed attempt. [retries.md](retries.md) has the table: which failure, at which endpoint, how
    /// often.
    Retries, RetriesPatch, "retries", "[retries]" {
        /// How often Weir sends a request again that it has sent. Whatever this count and the budget say, a connection
        /// that cannot be made sends the request to the next endpoint, up to three connections in all; `"off"` turns
        /// that off too. Set 0 where repeating a request can do harm.
        count: Option<u32> = "count" as OrOff<Count<0, COUNT_MAX>>,
            preset(Some(1), "Envoy `num_retries` 1");
        /// The share of an upstream's requests of the last ten seconds that may be retries; per core. Lower it to spare
        /// endpoints that are overloaded.
        budget_percent: u32 = "budget" as PercentText,
            preset(20, "Envoy and Finagle retry budget 20 %");
        /// Retries in ten seconds that are allowed whatever the share; per core.
        budget_floor: u32 = "budget_min" as Count<0, BUDGET_MIN_MAX>,
            preset(3, "Envoy `min_retry_concurrency` 3");
        /// The mean wait before a retry; Weir draws the real one around it.
        backoff: Duration = "backoff" as DurationText,
            preset(Duration::from_millis(25), "Envoy base interval 25 ms");
        /// Time limit of one attempt, until its answer begins; `"off"` for none. When it is over, Weir tries again, also
        /// without `timeout` in `on`. Set it to give up on a slow endpoint while another may answer.
        per_try: Option<Duration> = "per_try" as OrOff<DurationText>,
            preset(None, "`connect` and `first_byte` bound an attempt already");
        /// The failures after which Weir sends a request again: `connect` (Weir could not connect, and each endpoint was
        /// tried), `reset` (the connection or stream ended before the answer), `timeout` (`timeouts.first_byte` is over, or
        /// the endpoint does not read), `invalid` (the answer is not valid HTTP), `5xx`, or a status from 400 to 599.
        /// Statuses count only while another endpoint is left.
        on: FailureSet = "on" as FailuresText,
            preset(ON, "with 503 an endpoint says that it cannot serve now; a 500, 502 or 504 may have had effects");
        /// The methods of requests that an endpoint may have processed and that Weir sends again even so. Add POST only
        /// where repeating it does no harm, as for most gRPC methods that read.
        methods: RetryMethods = "methods" as RetryMethodsKind,
            preset(RetryMethods::IDEMPOTENT, "RFC 9110 section 9.2.2: idempotent methods");
        /// When the answer is late, sends the request to a second endpoint too; the first acceptable answer wins, and Weir
        /// cancels the other request. A time, or a percentile of the upstream's times to the first byte: `"p95"`. Needs
        /// `count` of 1 or more. Set it where few slow answers matter more than some load.
        hedge: Option<Hedge> = "hedge" as OrOff<HedgeText>,
            preset(None, "a hedge is additional load");
    }
}

impl From<Option<u32>> for RetriesPatch {
    fn from(count: Option<u32>) -> Self {
        Self {
            count: Some(count),
            ..Self::default()
        }
    }
}

impl LongForm for RetriesPatch {
    type Out = Self;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(table)
    }
}
