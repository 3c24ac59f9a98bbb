//! Hedging: when an answer is late, a second attempt starts beside the first at another endpoint. The first acceptable
//! head wins, and Weir cancels the other attempt.
//!
//! Only exchanges whose rules say so have a [`Hedge`], in a box of its own.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use weir_proto_h1::Head;

use super::{Download, Relay, Upload};
use crate::conn::{ResponsePart, TunnelEnd};
use crate::core::{Core, after};
use crate::exchange::Exchange;
use crate::exchange::attempts::Attempts;
use crate::fault::{Fault, Side};
use crate::io::{Instant, Net};
use crate::upstream::{EndpointLease, EndpointSide, RequestInFlight, Waiter};

/// The second attempt of an exchange.
pub(super) struct Hedge<'a, N: Net> {
    state: HedgeState<'a, N>,
    /// When the first attempt had sent the request. The answer's time counts from then on, whichever attempt wins.
    first_sent_at: Instant,
}

enum HedgeState<'a, N: Net> {
    /// It starts when the first attempt has waited for so long.
    Waiting(Duration),
    /// It opens a connection.
    Opening(HedgeTarget<N>, Opening<'a, N>),
    /// It has sent the request.
    Sent(HedgeTarget<N>, Box<EndpointSide<N>>, Instant),
    /// It has won or lost, or does not start.
    Over,
}

type Opening<'a, N> = Pin<Box<dyn Future<Output = Option<EndpointLease<N>>> + 'a>>;

/// The endpoint of a second attempt.
struct HedgeTarget<N: Net> {
    index: u32,
    endpoint: RequestInFlight<N>,
}

impl<'a, N: Net> Hedge<'a, N> {
    /// The hedge of an exchange whose rules have one; `None` for any other.
    pub(super) fn new(exchange: &Exchange<'a, N>, attempts: &Attempts<'a, N>) -> Option<Box<Self>> {
        let delay = attempts.hedge_delay(exchange)?;
        Some(Box::new(Self {
            state: delay.map_or(HedgeState::Over, HedgeState::Waiting),
            first_sent_at: Instant::NEVER,
        }))
    }
}

impl<'r, 'a, N: Net> Relay<'r, 'a, N> {
    /// When the second attempt is due.
    pub(super) fn hedge_due(&self) -> Instant {
        match self.hedge.as_deref() {
            Some(Hedge {
                state: HedgeState::Waiting(delay),
                ..
            }) if self.upload == Upload::Done && self.sent_at != Instant::NEVER => {
                self.sent_at + *delay
            }
            _ => Instant::NEVER,
        }
    }

    /// Moves the second attempt on. Returns whether its answer has begun and has won: the relay then goes on with it.
    #[cold]
    pub(super) fn poll_hedge(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(mut hedge) = self.hedge.take() else {
            return false;
        };
        let has_won = loop {
            hedge.state = match mem::replace(&mut hedge.state, HedgeState::Over) {
                HedgeState::Over => break false,
                HedgeState::Waiting(delay) => {
                    let is_sent = self.upload == Upload::Done && self.sent_at != Instant::NEVER;
                    if !is_sent || self.exchange.core.net.now() < self.sent_at + delay {
                        hedge.state = HedgeState::Waiting(delay);
                        break false;
                    }
                    hedge.first_sent_at = self.sent_at;
                    self.start_hedge(cx)
                }
                HedgeState::Opening(target, mut opening) => match opening.as_mut().poll(cx) {
                    Poll::Pending => {
                        hedge.state = HedgeState::Opening(target, opening);
                        break false;
                    }
                    Poll::Ready(lease) => {
                        lease.map_or(HedgeState::Over, |lease| self.send_hedge(target, lease))
                    }
                },
                HedgeState::Sent(target, mut up, sent_at) => {
                    // If the endpoint does not read, its answer says more than the failed send.
                    let _ = up.poll_send(cx);
                    match up.poll_response(cx, self.exchange.core) {
                        Poll::Pending => {
                            hedge.state = HedgeState::Sent(target, up, sent_at);
                            break false;
                        }
                        Poll::Ready(Ok(ResponsePart::Interim)) => {
                            HedgeState::Sent(target, up, sent_at)
                        }
                        Poll::Ready(Ok(ResponsePart::Head))
                            if !self
                                .attempts
                                .is_unwanted(self.exchange, &up.head, &up.block) =>
                        {
                            self.exchange
                                .core
                                .obs
                                .borrow()
                                .hedge_won(self.attempts.upstream.id());
                            self.go_on_with(target, up, sent_at);
                            break true;
                        }
                        // The first attempt may still get a better answer.
                        Poll::Ready(Ok(_)) => HedgeState::Over,
                        Poll::Ready(Err(fault)) => {
                            target.endpoint.count_failure(fault.reason, up.errno());
                            HedgeState::Over
                        }
                    }
                }
            };
        };
        self.hedge = Some(hedge);
        has_won
    }

    /// Makes the relay go on with the second attempt after the first has failed or has an answer that the client is not
    /// to get. Returns false if there is no second attempt that has sent the request.
    #[cold]
    pub(super) fn give_way(&mut self, fault: Option<Fault>) -> bool {
        if self.download != Download::Head
            || fault.is_some_and(|fault| fault.side != Side::Upstream)
        {
            return false;
        }
        let Some(hedge) = self.hedge.as_deref_mut() else {
            return false;
        };
        match mem::replace(&mut hedge.state, HedgeState::Over) {
            HedgeState::Sent(target, up, sent_at) => {
                if let Some(fault) = fault {
                    self.exchange.record.errno = self.up.errno();
                    self.attempts.count_failure(self.exchange, fault);
                }
                self.go_on_with(target, up, sent_at);
                true
            }
            state => {
                hedge.state = state;
                false
            }
        }
    }

    /// Whether the first attempt's answer is one that the client is not to get while a second attempt may bring a better
    /// one. If so, the relay goes on with the second.
    #[cold]
    pub(super) fn prefers_hedge(&mut self) -> bool {
        self.attempts
            .is_unwanted(self.exchange, &self.up.head, &self.up.block)
            && self.give_way(None)
    }

    /// Ends the hedge, because the answer has begun.
    #[cold]
    pub(super) fn end_hedge(&mut self, now: Instant) {
        if let Some(hedge) = self.hedge.take() {
            self.attempts
                .record_time(now.since(hedge.first_sent_at.min(self.sent_at).min(now)));
        }
    }

    /// Starts the second attempt: sends the request over an idle connection, or opens one.
    fn start_hedge(&mut self, cx: &mut Context<'_>) -> HedgeState<'a, N> {
        if self.request_filters.is_some() {
            return HedgeState::Over;
        }
        let Some((index, offer)) = self.attempts.take_hedge(cx, self.exchange) else {
            return HedgeState::Over;
        };
        let Some(endpoint) = self
            .attempts
            .upstream
            .endpoints
            .get(index as usize)
            .cloned()
        else {
            return HedgeState::Over;
        };
        let target = HedgeTarget {
            index,
            endpoint: RequestInFlight::begin(endpoint.clone()),
        };
        let connector = self.attempts.connector(self.exchange);
        let need = self.attempts.need(self.exchange);
        let core = self.exchange.core;
        let opening = Box::pin(async move {
            let (mut offer, mut waiter, mut spent) =
                (Some(offer), HedgeWaiter { core }, Duration::ZERO);
            let lease = connector
                .lease(&endpoint, &mut offer, need, &mut waiter, &mut spent)
                .await;
            if let Err(failure) = &lease
                && failure.fault.side == Side::Upstream
            {
                endpoint.count_failure(failure.fault.reason, failure.errno);
            }
            lease.ok().flatten()
        });
        HedgeState::Opening(target, opening)
    }

    /// Sends the request a second time.
    fn send_hedge(&mut self, target: HedgeTarget<N>, lease: EndpointLease<N>) -> HedgeState<'a, N> {
        let mut up = Box::new(lease.begin(self.attempts.plan.limits, Head::new()));
        self.attempts.edit_for(target.index, self.exchange);
        let sent = self.send_again(&mut up);
        match sent {
            Ok(()) => HedgeState::Sent(target, up, self.exchange.core.net.now()),
            Err(_) => HedgeState::Over,
        }
    }

    fn send_again(&self, up: &mut EndpointSide<N>) -> Result<(), Fault> {
        let down = &self.exchange.down;
        let edits = &self.exchange.buffers.to_upstream.edits;
        up.request(down.request(), down.head, down.block, edits)?;
        for piece in &self.attempts.replay.pieces {
            up.send_data(piece.clone())?;
        }
        up.send_end(down.trailers())
    }

    /// Makes the second attempt the one of the relay, and cancels the first: its connection closes, its stream is reset.
    fn go_on_with(&mut self, target: HedgeTarget<N>, up: Box<EndpointSide<N>>, sent_at: Instant) {
        drop(mem::replace(self.up, *up));
        self.exchange.record.endpoint = Some(target.index);
        self.exchange.record.errno = 0;
        self.attempts.hedged = Some(target.endpoint);
        self.sent_at = sent_at;
        self.waits_since = sent_at;
        self.per_try = after(sent_at, self.attempts.retry().per_try);
    }
}

/// Waits for the connection of a second attempt. The exchange, which polls it, watches everything else.
struct HedgeWaiter<'a, N: Net> {
    core: &'a Rc<Core<N>>,
}

impl<N: Net> Waiter for HedgeWaiter<'_, N> {
    async fn until<T>(
        &mut self,
        deadline: Instant,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<Option<T>, Fault> {
        let timer = self.core.timers.timer();
        timer.set(deadline);
        let done = poll_fn(|cx| {
            timer.watch(cx);
            match poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if self.core.net.now() >= deadline => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        Ok(done.await)
    }
}
