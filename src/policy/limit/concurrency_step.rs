//! The step of `concurrency`.

use std::fmt::Write as _;

use weir_config::Concurrency;

use super::count_set::CountPlace;
use super::gcra::ticks;
use super::key_parts::{KeyParts, KeyPlace};
use super::permit::{Permit, Permits};
use super::plan::{CoreLimits, LimitsPlan};
use crate::fault::Reason;
use crate::policy::{Facts, Flow, PolicyKind, StepReply, StepRequest, Verdict};
use crate::shared::Ordering;

/// The limits of requests at once of one route or listener. All have to let a request pass.
#[derive(Debug)]
pub struct ConcurrencyStep(Box<[RouteCount]>);

/// One limit.
#[derive(Debug)]
struct RouteCount {
    /// Its place in the plan.
    index: usize,
    parts: KeyParts,
    most: u32,
    is_dry_run: bool,
    /// The limit as the file writes it.
    text: Box<str>,
}

impl ConcurrencyStep {
    /// Compiles the limits of a route or listener. `None` if there are none.
    pub(super) fn compile(
        limits: &[Concurrency],
        place: KeyPlace<'_>,
        plan: &mut LimitsPlan,
    ) -> Result<Option<Self>, String> {
        let compile = |limit: &Concurrency| {
            let state = super::state_name(limit.name.as_deref(), &limit.origin, limit.index);
            Ok::<_, String>(RouteCount {
                index: plan.add_count(&state, limit.requests)?,
                parts: KeyParts::compile(&limit.per, place),
                most: limit.requests,
                is_dry_run: limit.dry_run,
                text: limit.to_string().into(),
            })
        };
        let limits: Box<[_]> = limits.iter().map(compile).collect::<Result<_, _>>()?;
        Ok((!limits.is_empty()).then_some(Self(limits)))
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
        let table = &core.shared.shared().table;
        let now = ticks(request.now.0);
        // Dropped with a refusal, which gives all places back.
        let mut permits = Permits::default();
        for limit in &self.0 {
            let Some(shared) = core.shared.count(limit.index) else {
                continue;
            };
            let key = limit
                .parts
                .read(&table.secret, shared.number, request, facts);
            match shared.set.enter(&table.cells, key, limit.most, now) {
                Some(place) => {
                    if place == CountPlace::Overflow {
                        shared.counts.overflowed.fetch_add(1, Ordering::Relaxed);
                    }
                    permits.push(Permit::new(core.shared.clone(), limit.index, place));
                }
                None if limit.is_dry_run => {
                    shared.counts.let_through.fetch_add(1, Ordering::Relaxed);
                    facts.would_refuse = Some(PolicyKind::Concurrency);
                }
                None => {
                    shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                    let reply = StepReply::problem(Reason::ConcurrencyLimit);
                    return Flow::Reply(Box::new(reply.with_field("Retry-After", "1")));
                }
            }
        }
        facts.notes.get_or_insert_default().permits.append(permits);
        Flow::Next
    }

    pub(in crate::policy) fn explain(&self, request: &StepRequest<'_>, facts: &Facts) -> Verdict {
        let mut text = String::new();
        for limit in &self.0 {
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
