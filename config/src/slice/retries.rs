//! `retries`, at the top level, of upstreams and routes.

use std::time::Duration;

use crate::decode::amounts::{DurationText, PercentText};
use crate::decode::decoder::Decoder;
use crate::decode::kinds::{Count, LongForm, OrOff};
use crate::decode::preset::{Preset, preset};
use crate::decode::table::{frame, layer, table};
use crate::slice::limits::CONNECTIONS_MAX;

/// Further attempts after a failed one; none at all, not even at the next endpoint, when off.
const RETRIES: Preset<Option<u32>> = preset(Some(1), "Envoy `num_retries` 1");

/// The largest number of further attempts.
pub(crate) const RETRIES_MAX: u32 = 10;

/// Share of live exchanges that may be retries, percent.
const RETRY_BUDGET_PERCENT: Preset<u32> = preset(20, "Envoy and Finagle retry budget 20 %");

/// Retries that the budget always allows at once.
const RETRY_BUDGET_FLOOR: Preset<u32> = preset(3, "Envoy `min_retry_concurrency` 3");

/// The mean wait before a retry.
const RETRY_BACKOFF: Preset<Duration> =
    preset(Duration::from_millis(25), "Envoy base interval 25 ms");

/// The deadline of one attempt.
const RETRY_PER_TRY: Preset<Option<Duration>> =
    preset(None, "`connect` and `first_byte` bound an attempt already");

layer! {
    /// When a failed attempt is repeated. `config/retries.md` has the table: which failure, at whom, how often.
    Retries, RetriesPatch, "retries", "[retries]" {
        /// How often a request that was sent is sent again. A connection that cannot be made sends the request to the
        /// next endpoint in any case, up to three connections in all, whatever the count and the budget; "off" turns
        /// that off too.
        count: Option<u32> = "count" as OrOff<Count<0, RETRIES_MAX>>, RETRIES;
        /// The share of the upstream's requests of the last ten seconds that may be retries, percent; by core.
        budget_percent: u32 = "budget" as PercentText, RETRY_BUDGET_PERCENT;
        /// Retries in ten seconds that are allowed whatever the share; by core.
        budget_floor: u32 = "budget_min" as Count<0, CONNECTIONS_MAX>, RETRY_BUDGET_FLOOR;
        /// The mean wait before a retry; the real one is drawn around it.
        backoff: Duration = "backoff" as DurationText, RETRY_BACKOFF;
        /// The time limit of one attempt; none when off.
        per_try: Option<Duration> = "per_try" as OrOff<DurationText>, RETRY_PER_TRY;
    }
}

impl From<Option<u32>> for RetriesPatch {
    /// Says how many further attempts, and nothing else.
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

const _: () = assert!(matches!(RETRIES.value, Some(0..=RETRIES_MAX)));
