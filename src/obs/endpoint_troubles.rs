//! Reports failing endpoints: one log line when an endpoint starts to fail, and one when it answers again.
//!
//! Each core counts failed attempts and answered exchanges for itself. Control checks the sums about once a second, so
//! an event is one line, however many cores and requests meet it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::counters::EndpointCounts;
use super::limits::{TROUBLE_LINES_MAX, TROUBLE_OVER, TROUBLE_SHARE_MIN};
use super::process::LogLevel;
use super::{Obs, PlanCounters};
use crate::fault::Reason;
use crate::plan::UpstreamId;

/// The findings of the last check, by endpoint.
#[derive(Default)]
pub struct EndpointTroubles {
    endpoints: HashMap<Name, EndpointHistory>,
    /// The number of checks. Endpoints that the last check did not see are gone.
    looks: u64,
}

/// Upstream and endpoint.
type Name = (Arc<str>, Arc<str>);

#[derive(Default)]
struct EndpointHistory {
    answered: u64,
    /// Failed attempts, by core.
    failed: Vec<u64>,
    trouble: Option<OngoingTrouble>,
    look: u64,
}

/// A failing endpoint.
struct OngoingTrouble {
    since: Instant,
    /// The last check that found failed attempts.
    last: Instant,
    failed: u64,
    /// Exchanges answered since the last failure.
    answered: u64,
}

/// Why an attempt failed: a reason, and the system's error number if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailureCause {
    reason: Reason,
    errno: u16,
}

impl FailureCause {
    pub(super) const fn new(reason: Reason, errno: u16) -> Self {
        Self { reason, errno }
    }

    /// The form in which a core stores it.
    pub(super) fn to_bits(self) -> u64 {
        (self.reason as u64) << 16 | u64::from(self.errno)
    }

    fn from_bits(bits: u64) -> Option<Self> {
        let reason = *Reason::ALL.get(usize::try_from(bits >> 16).ok()?)?;
        Some(Self {
            reason,
            errno: bits as u16,
        })
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.code())?;
        match self.errno {
            0 => Ok(()),
            errno => write!(f, ": {}", std::io::Error::from_raw_os_error(errno.into())),
        }
    }
}

impl Obs {
    /// Finds the endpoints that have started to fail, or to answer again, since the last check. Returns a line for
    /// each, and one line for those beyond the limit.
    pub fn look_for_trouble(
        &self,
        troubles: &mut EndpointTroubles,
        now: Instant,
    ) -> Vec<(LogLevel, String)> {
        let all_counters: Vec<Arc<PlanCounters>> = self
            .cores
            .iter()
            .map(|core| core.plan_counters().clone())
            .collect();
        let Some(newest) = all_counters.iter().max_by_key(|counters| counters.epoch()) else {
            return Vec::new();
        };
        troubles.looks += 1;
        let look = troubles.looks;
        let mut lines = TroubleLines::default();
        for (id, upstream) in newest.names.upstreams.unique() {
            let Some(named) = newest.names.endpoints.get(id as usize) else {
                continue;
            };
            for (at, endpoint) in named.unique() {
                let find = |counters: &'_ Arc<PlanCounters>| {
                    if counters.epoch() == newest.epoch() {
                        return Some((id, at));
                    }
                    let up = counters.names.upstreams.find(upstream)?;
                    Some((
                        up,
                        counters.names.endpoints.get(up as usize)?.find(endpoint)?,
                    ))
                };
                let counts: Vec<_> = all_counters
                    .iter()
                    .map(|counters| {
                        let (up, at) = find(counters)?;
                        counters.endpoint(UpstreamId(up), at)
                    })
                    .collect();
                let name = (upstream.clone(), endpoint.clone());
                let known = troubles.endpoints.entry(name);
                let known = known.or_insert_with(|| EndpointHistory::of(&counts, look));
                known.look = look;
                if let Some((level, text)) = known.look_at(&counts, now) {
                    lines.add(
                        level,
                        format!("endpoint {endpoint} of upstream {upstream} {text}"),
                    );
                }
            }
        }
        troubles.endpoints.retain(|_, known| known.look == look);
        lines.finish()
    }
}

impl Obs {
    /// Good and bad outcomes of each endpoint of an upstream since the start, over all cores.
    #[must_use]
    pub fn outcomes(&self, upstream: &str) -> HashMap<Arc<str>, (u64, u64)> {
        let mut sums: HashMap<Arc<str>, (u64, u64)> = HashMap::new();
        for core in &self.cores {
            let counters = core.plan_counters().clone();
            let Some(id) = counters.names.upstreams.find(upstream) else {
                continue;
            };
            let Some(named) = counters.names.endpoints.get(id as usize) else {
                continue;
            };
            for (at, endpoint) in named.unique() {
                if let Some(counts) = counters.endpoint(UpstreamId(id), at) {
                    let sum = sums.entry(endpoint.clone()).or_default();
                    sum.0 += counts.good.get();
                    sum.1 += counts.bad.get();
                }
            }
        }
        sums
    }
}

impl EndpointHistory {
    /// The history of an endpoint seen for the first time. All its counts are recent.
    fn of(counts: &[Option<&EndpointCounts>], look: u64) -> Self {
        Self {
            failed: vec![0; counts.len()],
            look,
            ..Self::default()
        }
    }

    /// Compares the present counts with those of the last check. Returns a line if a trouble starts or ends.
    fn look_at(
        &mut self,
        counts: &[Option<&EndpointCounts>],
        now: Instant,
    ) -> Option<(LogLevel, String)> {
        let (mut total, mut failed, mut most) = (0, 0, (0, None));
        for (counts, before) in counts.iter().zip(&mut self.failed) {
            let Some(counts) = counts else { continue };
            total += counts.answered.get();
            let sum = counts.failures.get();
            let more = sum.saturating_sub(*before);
            *before = sum;
            failed += more;
            if more > most.0 {
                most = (more, FailureCause::from_bits(counts.last_cause.get()));
            }
        }
        let answered = total.saturating_sub(self.answered);
        self.answered = total;
        match &mut self.trouble {
            None if failed > 0 && failed * TROUBLE_SHARE_MIN >= answered => {
                self.trouble = Some(OngoingTrouble {
                    since: now,
                    last: now,
                    failed,
                    answered: 0,
                });
                let cause = most
                    .1
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                let failed = attempts(failed);
                let text = format!("fails{cause} ({failed} failed, {answered} answered)");
                Some((LogLevel::Warn, text))
            }
            Some(trouble) if failed > 0 => {
                trouble.failed += failed;
                (trouble.last, trouble.answered) = (now, 0);
                None
            }
            Some(trouble) => {
                trouble.answered += answered;
                if trouble.answered == 0 || now - trouble.last < TROUBLE_OVER {
                    return None;
                }
                let text = format!(
                    "answers again after {:.0} s ({} failed, {} answered since)",
                    (now - trouble.since).as_secs_f64(),
                    attempts(trouble.failed),
                    trouble.answered
                );
                self.trouble = None;
                Some((LogLevel::Info, text))
            }
            None => None,
        }
    }
}

fn attempts(n: u64) -> String {
    format!("{n} attempt{}", if n == 1 { "" } else { "s" })
}

/// The lines of one check, up to a limit.
#[derive(Default)]
struct TroubleLines {
    lines: Vec<(LogLevel, String)>,
    /// Endpoints beyond the limit: those that started to fail, and those that answer again.
    more: [u64; 2],
}

impl TroubleLines {
    fn add(&mut self, level: LogLevel, text: String) {
        if self.lines.len() < TROUBLE_LINES_MAX {
            self.lines.push((level, text));
        } else {
            self.more[usize::from(level == LogLevel::Info)] += 1;
        }
    }

    fn finish(mut self) -> Vec<(LogLevel, String)> {
        let [failing, again] = self.more;
        if failing + again > 0 {
            let text = format!(
                "endpoints: {failing} more have begun to fail and {again} more answer again"
            );
            self.lines.push((LogLevel::Warn, text));
        }
        self.lines
    }
}
