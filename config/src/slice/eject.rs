//! `eject` of an upstream: which failures of requests take an endpoint out of use for a time.

use std::time::Duration;

use crate::decode::amounts::{DurationText, PercentText};
use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{BooleanKind, Count};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::Shape;
use crate::decode::table::{frame, table};
use crate::value::failure_set::{FailureKind, FailureSet, FailuresText};

const FAILURES_MAX: u32 = 10_000;

const FAILURES: Preset<u32> = preset(5, "Envoy `consecutive_5xx` 5");

const ERRORS: Preset<FailureSet> = preset(
    FailureSet::of(
        &[
            FailureKind::Connect,
            FailureKind::Reset,
            FailureKind::Timeout,
            FailureKind::Invalid,
        ],
        &[502, 503, 504],
    ),
    "failures of the endpoint; a 500 is often the fault of one URL, which must not eject half of the endpoints",
);

const DURATION: Preset<Duration> =
    preset(Duration::from_secs(30), "Envoy `base_ejection_time` 30 s");

const MAX: Preset<u32> = preset(50, "so that the rest can carry the load; as `panic`");

/// Which failures of requests take an endpoint out of use for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eject {
    /// How many failures in a row, on one core.
    pub failures: u32,
    /// What is a failure.
    pub errors: FailureSet,
    /// Whether a low share of good answers ejects too.
    pub success_rate: Option<SuccessRate>,
    /// How long the first ejection lasts.
    pub duration: Duration,
    /// The largest share of the endpoints that may be ejected, in percent.
    pub max_percent: u32,
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            failures: FAILURES.value,
            errors: ERRORS.value,
            success_rate: None,
            duration: DURATION.value,
            max_percent: MAX.value,
        }
    }
}

/// The share of good answers below which an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuccessRate {
    /// 1.9 standard deviations below the mean of the upstream's endpoints.
    Outlier,
    /// So many percent.
    Below(u32),
}

/// `true`, `false` or a share.
pub(crate) struct SuccessRateKind;

impl ValueKind for SuccessRateKind {
    type Value = Option<SuccessRate>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if value.get_ref().as_str().is_some() {
            return PercentText::decode(value, cx).map(|percent| Some(SuccessRate::Below(percent)));
        }
        BooleanKind::decode(value, cx).map(|is_on| is_on.then_some(SuccessRate::Outlier))
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![BooleanKind::shape(), PercentText::shape()])
    }
}

table! {
    /// Which failures of requests take an endpoint out of use for a time. On by default; `"off"` turns it off.
    /// [load-balancing.md](load-balancing.md#ejection) has the rules.
    RawEject, "eject", "[upstream.NAME.eject]" {
        /// Failures in a row on one core, each of another request, that eject an endpoint.
        preset(FAILURES) failures: u32 = "failures" as Count<1, FAILURES_MAX>;
        /// What is a failure: `connect`, `reset`, `timeout`, `invalid`, `5xx`, or a status from 400 to 599. Any other
        /// answer ends the row.
        preset(ERRORS) errors: FailureSet = "errors" as FailuresText;
        /// `true` also ejects an endpoint whose share of good answers is 1.9 standard deviations below the mean; a share
        /// such as `"90%"` one that is below it. Weir compares ten seconds at a time, and endpoints with 100 answers or
        /// more; `true` needs five of them (as Envoy's `success_rate` detection). Off without the key. Set it for
        /// endpoints that fail now and then.
        optional success_rate: Option<SuccessRate> = "success_rate" as SuccessRateKind;
        /// How long the first ejection lasts. Each further one lasts longer by this time, up to 300 seconds.
        preset(DURATION) duration: Duration = "duration" as DurationText;
        /// The largest share of the endpoints that may be ejected at once. One may always be ejected, but never the
        /// last healthy one.
        preset(MAX) max: u32 = "max" as PercentText;
    }
}

impl RawEject {
    /// The settings of the table.
    pub(crate) fn build(self) -> Eject {
        Eject {
            failures: self.failures,
            errors: self.errors,
            success_rate: self.success_rate.flatten(),
            duration: self.duration,
            max_percent: self.max,
        }
    }
}
