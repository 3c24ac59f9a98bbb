//! When a second attempt of an exchange may start beside the first, and what it costs.

use std::task::Context;
use std::time::Duration;

use weir_config::Hedge;
use weir_proto_h1::Head;

use super::Exchange;
use super::attempts::{Attempts, status_of};
use super::failures::Failure;
use crate::io::Net;
use crate::upstream::ConnectionOffer;

impl<'a, N: Net> Attempts<'a, N> {
    /// How long the first attempt waits for its answer alone. The inner `None`: the upstream's times are not known yet.
    /// `None`: the exchange is never hedged.
    #[inline]
    pub(super) fn hedge_delay(&self, exchange: &Exchange<'a, N>) -> Option<Option<Duration>> {
        let hedge = self.retry().hedge?;
        // Another endpoint lacks the client's session, so it would answer differently.
        let endpoint = exchange.record.endpoint;
        let is_bound = (self.session.as_ref()).is_some_and(|session| session.is_at(endpoint));
        let may = self.may_repeat(exchange)
            && !is_bound
            && exchange.down.request().upgrade.is_none()
            && !exchange.authenticates();
        may.then(|| match hedge {
            Hedge::After(delay) => Some(delay),
            Hedge::Percentile(percent) => self.upstream.latency.borrow().percentile(percent),
        })
    }

    /// Takes an offer of another endpoint for a second attempt, if the rules and the budget allow one and an endpoint has
    /// room now.
    pub(super) fn take_hedge(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange<'a, N>,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        self.tried.note_retry(exchange.core.net.now());
        if !self.replay.is_whole()
            || exchange.core.is_stopping()
            || !self.upstream.has_untried(&self.tried)
        {
            return None;
        }
        let need = self.need(exchange);
        let (index, offer) = self.upstream.take_offer(cx, &self.tried, self.key, need)?;
        let retry = self.retry();
        if !self.failures.count_hedge(retry) || !self.upstream.budget.take_retry(retry) {
            return None;
        }
        self.tried.add(index);
        exchange.record.attempts += 1;
        exchange.core.obs.borrow().hedged(self.upstream.id());
        Some((index, offer))
    }

    /// Whether the client should not get an answer with this head while another attempt may bring a better one.
    pub(super) fn is_unwanted(
        &self,
        exchange: &Exchange<'a, N>,
        head: &Head,
        block: &[u8],
    ) -> bool {
        let status = status_of(exchange, head, block);
        let may_repeat = self.may_repeat(exchange);
        Failure::classify_status(status, may_repeat, self.retry()).is_some()
    }

    /// Counts how long an answer took to begin.
    pub(super) fn record_time(&self, time: Duration) {
        self.upstream.latency.borrow_mut().record(time);
    }
}
