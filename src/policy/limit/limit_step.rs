//! The step of `limit`.

use std::fmt::Write as _;
use std::time::Duration;

use weir_config::Limit;
use weir_config::limits::LIMITS_MAX;
use weir_proto_h1::Decimal;

use super::bucket_set::Standing;
use super::gcra::{Gcra, ticks};
use super::key_parts::{KeyParts, KeyPlace};
use super::plan::{CoreLimits, LimitsPlan};
use super::shared::SharedLimit;
use super::table::Key;
use crate::fault::Reason;
use crate::policy::{AnswerView, Facts, Flow, PolicyKind, StepReply, StepRequest, Verdict};
use crate::shared::Ordering;

/// The limits of one route or listener that are known at the same time. All have to let a request pass, and a request
/// that one of them refuses counts for none.
#[derive(Debug, PartialEq)]
pub struct LimitStep {
    limits: Box<[RouteLimit]>,
    kind: PolicyKind,
}

/// One limit.
#[derive(Debug, PartialEq)]
struct RouteLimit {
    /// Its place in the plan.
    index: usize,
    gcra: Gcra,
    parts: KeyParts,
    cost: u64,
    is_dry_run: bool,
    /// What the value of RateLimit begins with: its name, as a string of structured fields, and `;r=`.
    standing_begin: Box<str>,
    /// The value of RateLimit-Policy.
    policy: Box<str>,
    /// The limit as the file writes it.
    text: Box<str>,
}

/// How the tightest limit of a request stands, for the answer's fields.
#[derive(Clone, Copy, Debug)]
pub struct LimitStanding {
    /// The place of the limit in the plan.
    index: usize,
    left: u64,
    full_in: Duration,
}

/// A request that a limit refuses.
struct Refusal<'s> {
    limit: &'s RouteLimit,
    standing: Standing,
}

impl LimitStep {
    /// Whether the step does the same for another route that has `other`, so that one of both may run before the route
    /// is known.
    pub(in crate::policy) fn is_same(&self, other: &Self) -> bool {
        let depends = |limit: &RouteLimit| limit.parts.depends_on_route();
        self == other && !self.limits.iter().any(depends)
    }

    /// Compiles the limits of a route or listener: those that need the claims of a token, or the others. `None` if there
    /// are none of them.
    pub(super) fn compile(
        limits: &[Limit],
        place: KeyPlace<'_>,
        kind: PolicyKind,
        plan: &mut LimitsPlan,
    ) -> Result<Option<Self>, String> {
        let mut compiled = Vec::new();
        for limit in limits {
            let parts = KeyParts::compile(&limit.per, place);
            if parts.needs_claims() == (kind == PolicyKind::ClaimLimit) {
                compiled.push(RouteLimit::compile(limit, parts, plan)?);
            }
        }
        let limits = compiled.into_boxed_slice();
        Ok((!limits.is_empty()).then_some(Self { limits, kind }))
    }

    pub(in crate::policy) fn kind(&self) -> PolicyKind {
        self.kind
    }

    pub(in crate::policy) fn run(
        &self,
        core: Option<&CoreLimits>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
    ) -> Flow {
        let Some(core) = core else {
            return Flow::Next;
        };
        let now = ticks(request.now.0);
        match self.take(core, request, facts, now) {
            Ok(()) => Flow::Next,
            Err(Refusal { limit, standing }) => {
                if let Some(shared) = core.shared.limit(limit.index) {
                    shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                }
                facts.limit_standing = Some(limit.stands(standing, now));
                let wait = limit.gcra.ready_in(standing.word, now, limit.cost);
                let seconds = whole_seconds(wait).max(1).to_string();
                let reply = StepReply::problem(Reason::RateLimit);
                Flow::Reply(Box::new(reply.with_field("Retry-After", seconds)))
            }
        }
    }

    /// Takes the tokens of a request from all buckets, or from none.
    fn take(
        &self,
        core: &CoreLimits,
        request: &StepRequest<'_>,
        facts: &mut Facts,
        now: u64,
    ) -> Result<(), Refusal<'_>> {
        let share = &core.shared;
        let table = &share.shared().table;
        let mut cache = core.cache.borrow_mut();
        let mut taken = [None; LIMITS_MAX];
        let places = || self.limits.iter().zip(0_usize..);
        if self.limits.len() > 1 {
            // Asks all of them first, so that a refused request takes nothing even for a moment.
            for (limit, place) in places() {
                let Some(shared) = share.limit(limit.index) else {
                    continue;
                };
                let key = limit
                    .parts
                    .read(&table.secret, shared.number, request, facts);
                let first = limit.first_word(core, shared, request, facts, now);
                let standing = shared
                    .buckets
                    .look(&table.cells, &mut cache, key, first, now);
                if standing.left < limit.cost && !limit.is_dry_run {
                    return Err(Refusal { limit, standing });
                }
                if let Some(slot) = taken.get_mut(place) {
                    *slot = Some((key, None));
                }
            }
        }
        for (limit, place) in places() {
            let Some(shared) = share.limit(limit.index) else {
                continue;
            };
            let Some(slot) = taken.get_mut(place) else {
                continue;
            };
            let key = match slot {
                Some((key, _)) => *key,
                None => limit
                    .parts
                    .read(&table.secret, shared.number, request, facts),
            };
            let first = limit.first_word(core, shared, request, facts, now);
            let outcome =
                shared
                    .buckets
                    .take(&table.cells, &mut cache, key, first, limit.cost, now);
            let (Ok(standing) | Err(standing)) = outcome;
            if standing.is_overflow {
                shared.counts.overflowed.fetch_add(1, Ordering::Relaxed);
            }
            if outcome.is_ok() {
                *slot = Some((key, Some(standing)));
                if !limit.is_dry_run {
                    facts.note_standing(limit.stands(standing, now));
                }
            } else if limit.is_dry_run {
                *slot = None;
                shared.counts.let_through.fetch_add(1, Ordering::Relaxed);
                facts.would_refuse = Some(self.kind);
            } else {
                self.give_back(core, &taken, now);
                return Err(Refusal { limit, standing });
            }
        }
        Ok(())
    }

    /// Gives back what was taken, because another core has emptied a bucket since this one looked.
    fn give_back(
        &self,
        core: &CoreLimits,
        taken: &[Option<(Key, Option<Standing>)>; LIMITS_MAX],
        now: u64,
    ) {
        for (limit, slot) in self.limits.iter().zip(taken) {
            if let Some((key, Some(standing))) = slot
                && let Some(shared) = core.shared.limit(limit.index)
            {
                let cells = &core.shared.shared().table.cells;
                shared
                    .buckets
                    .give_back(cells, *key, limit.cost, *standing, now);
            }
        }
    }

    /// Adds the fields of the tightest limit, if it is one of these.
    pub(in crate::policy) fn edit_answer(&self, facts: &Facts, answer: &mut AnswerView<'_>) {
        let Some(standing) = facts.limit_standing else {
            return;
        };
        let mut limits = self.limits.iter();
        let Some(limit) = limits.find(|limit| limit.index == standing.index) else {
            return;
        };
        let left = Decimal::new(standing.left);
        let full_in = Decimal::new(whole_seconds(standing.full_in));
        let edits = &mut *answer.edits;
        edits.append_with("RateLimit-Policy", |out| out.put(limit.policy.as_bytes()));
        edits.append_with("RateLimit", |out| {
            out.put(limit.standing_begin.as_bytes());
            out.put(left.as_bytes());
            out.put(b";t=");
            out.put(full_in.as_bytes());
        });
    }

    pub(in crate::policy) fn explain(&self, request: &StepRequest<'_>, facts: &Facts) -> Verdict {
        let mut text = String::new();
        for limit in &self.limits {
            if !text.is_empty() {
                text.push_str("; ");
            }
            let key = limit.parts.describe(request, facts);
            let dry_run = if limit.is_dry_run { ", dry run" } else { "" };
            let _ = write!(text, "{} (counts {key}{dry_run})", limit.text);
        }
        Verdict::WouldCheck(text)
    }
}

impl RouteLimit {
    fn compile(limit: &Limit, parts: KeyParts, plan: &mut LimitsPlan) -> Result<Self, String> {
        let gcra = Gcra::new(limit.rate.count, limit.rate.window, limit.burst);
        let state = super::state_name(limit.name.as_deref(), &limit.origin, limit.index);
        let text = limit.to_string();
        // A default name tells clients the rate and not the words of the file.
        let name = limit.name.as_deref().unwrap_or(&text);
        let quoted = format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
        Ok(Self {
            index: plan.add_limit(&state, gcra)?,
            gcra,
            parts,
            cost: limit.cost.into(),
            is_dry_run: limit.dry_run,
            policy: format!(
                "{quoted};q={};w={}",
                limit.rate.count,
                limit.rate.window.as_secs()
            )
            .into(),
            standing_begin: format!("{quoted};r=").into(),
            text: text.into(),
        })
    }

    /// The word with which a bucket begins: full, or as empty as that of the same key before a reload changed the limit.
    fn first_word(
        &self,
        core: &CoreLimits,
        shared: &SharedLimit,
        request: &StepRequest<'_>,
        facts: &Facts,
        now: u64,
    ) -> u64 {
        let Some(previous) = shared.previous(now) else {
            return 0;
        };
        let table = &core.shared.shared().table;
        let key = self
            .parts
            .read(&table.secret, previous.number, request, facts);
        self.gcra
            .converted(&previous.gcra, table.cells.read(key), now)
    }

    fn stands(&self, standing: Standing, now: u64) -> LimitStanding {
        LimitStanding {
            index: self.index,
            left: standing.left,
            full_in: self.gcra.full_in(standing.word, now),
        }
    }
}

impl Facts {
    /// Keeps how a limit stands if it is tighter than those before.
    fn note_standing(&mut self, standing: LimitStanding) {
        if self
            .limit_standing
            .is_none_or(|known| standing.left < known.left)
        {
            self.limit_standing = Some(standing);
        }
    }
}

/// Seconds, rounded up. What a late clock may add is no second of its own.
fn whole_seconds(duration: Duration) -> u64 {
    let duration = duration.saturating_sub(Duration::from_millis(10));
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
