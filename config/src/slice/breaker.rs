//! `breaker`: when an upstream refuses requests at once, because it would not serve them.

use std::time::Duration;

use crate::decode::amounts::{DurationText, PercentText};
use crate::decode::decoder::Decoder;
use crate::decode::kinds::{Count, LongForm, OrOff};
use crate::decode::preset::preset;
use crate::decode::table::{frame, layer, table};

const REQUESTS_MAX: u32 = 10_000_000;

layer! {
    /// When Weir refuses requests to an upstream at once, with 503 `circuit_open`: when too many of its requests have
    /// failed, or too many are running. [retries.md](retries.md#circuit-breaker) has the rules. An empty table turns
    /// it on with the defaults.
    Breaker, BreakerPatch, "breaker", "[upstream.NAME.breaker]" {
        /// The most requests at once, over all cores, with those that wait for a connection; further ones are refused.
        requests: Option<u32> = "requests" as OrOff<Count<1, REQUESTS_MAX>>,
            preset(None, "`pool.connections` and `pool.pending` bound them already");
        /// The share of failed requests in `window` that opens the circuit. A request has failed when its client got a 5xx
        /// or no whole answer because of the upstream.
        error_rate_percent: u32 = "error_rate" as PercentText,
            preset(50, "Resilience4j `failureRateThreshold` 50 %");
        /// The time over which the share is measured.
        window: Duration = "window" as DurationText,
            preset(Duration::from_secs(10), "Traefik's metrics of the circuit breaker, 10 s");
        /// With fewer requests in `window`, the circuit stays closed.
        requests_min: u32 = "min_requests" as Count<1, REQUESTS_MAX>,
            preset(20, "Hystrix `requestVolumeThreshold` 20");
        /// How long the circuit stays open. Then three requests at once may try the upstream: three successes close the
        /// circuit, one failure opens it again.
        open_for: Duration = "open_for" as DurationText,
            preset(Duration::from_secs(5), "Hystrix `sleepWindowInMilliseconds` 5,000");
    }
}

impl LongForm for BreakerPatch {
    type Out = Breaker;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Breaker> {
        Some(Breaker::default().patched(&table))
    }
}
