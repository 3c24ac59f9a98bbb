//! Request up, response down, both at once, until both are done or something fails.

use std::task::{Context, Poll, ready};

use weir_proto_h1::{BodyKind, FieldId};

use super::attempt::{Attempts, Heard};
use super::pace::Pace;
use super::repeat::Repeat;
use super::{Exchange, grpc};
use crate::conn::{Piece, ResponsePart, TunnelEnd};
use crate::core::after;
use crate::fault::{Fault, Phase, Reason, Retry};
use crate::io::{Chunk, Instant, Net, Pool};
use crate::limits::{COPY_BELOW_BYTES, REPLAY_BYTES_MAX};
use crate::plan::RoutePlan;
use crate::upstream::EndpointSide;

/// One attempt's way of bytes.
pub(super) struct Relay<'r, 'a, N: Net> {
    exchange: &'r mut Exchange<'a, N>,
    attempts: &'r mut Attempts<'a, N>,
    up: &'r mut EndpointSide<N>,
    route: &'a RoutePlan,
    /// When this attempt has to have an answer.
    per_try: Instant,
    upload: Upload,
    download: Download,
    /// The request's body, before there is an answer.
    upload_pace: Pace,
    /// The client as it takes an answer.
    reading_pace: Pace,
    /// Both directions together, once there is an answer.
    common_pace: Pace,
    /// When the request was sent in full.
    asked: Instant,
    /// When the wait for an answer began, or began anew with an interim one.
    waits_since: Instant,
}

/// Where the request is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upload {
    Reading,
    Done,
    /// The endpoint does not take the rest. Its answer may still come.
    Stopped,
}

/// Where the response is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Download {
    Head,
    Body,
    Done,
}

/// How a relay ended well.
pub(super) enum Relayed {
    /// The response is with the client.
    Response,
    /// The client gets nothing of the answer: another attempt follows.
    Nothing(Repeat),
    /// The protocol was switched.
    Switched,
}

/// The request's body as far as it was sent, for another attempt. Bounded: a longer one is not kept, and the request
/// cannot be repeated then.
#[derive(Default)]
pub(super) struct Replay {
    pieces: Vec<Chunk>,
    bytes: usize,
    is_over: bool,
    lost: bool,
}

impl Replay {
    /// Keeps a piece. Small ones are put together: each would hold a block of its own otherwise.
    fn keep(&mut self, piece: &Chunk, pool: &Pool) {
        self.bytes += piece.len();
        self.lost |= self.bytes > REPLAY_BYTES_MAX;
        if self.lost {
            self.pieces.clear();
        } else if piece.len() >= COPY_BELOW_BYTES {
            self.pieces.push(piece.clone());
        } else if !self
            .pieces
            .last_mut()
            .is_some_and(|last| last.append(piece))
        {
            self.pieces.push(pool.copy(piece));
        }
    }

    /// Gives up what is kept: there will be no other attempt.
    pub(super) fn forget(&mut self) {
        self.pieces.clear();
        self.lost = true;
    }

    /// Bytes of memory that what is kept takes.
    pub(super) fn held(&self) -> usize {
        self.pieces.iter().map(Chunk::weight).sum()
    }

    /// Whether all that was taken from the client so far is still here.
    pub(super) fn is_whole(&self) -> bool {
        !self.lost
    }
}

impl<'r, 'a, N: Net> Relay<'r, 'a, N> {
    /// Prepares the relay of a request whose head was written to `up`.
    pub(super) fn new(
        exchange: &'r mut Exchange<'a, N>,
        up: &'r mut EndpointSide<N>,
        attempts: &'r mut Attempts<'a, N>,
    ) -> Self {
        let route = attempts.route;
        let now = exchange.core.net.now();
        let (stall, rate) = (
            route.timeouts.body_stall,
            route.timeouts.body_rate_bytes_min,
        );
        // A call that pauses before it has an answer waits for that, more often than not.
        let upload_stall = match exchange.facts.is_grpc_call {
            true => stall.max(route.timeouts.first_byte),
            false => stall,
        };
        // Who waits to hear whether its body is wanted waits for the endpoint.
        let waits_since = match exchange.down.request().expects_continue {
            true => now,
            false => Instant::NEVER,
        };
        Self {
            exchange,
            attempts,
            up,
            route,
            per_try: after(now, route.retry.per_try),
            upload: Upload::Reading,
            download: Download::Head,
            upload_pace: Pace::new(now, upload_stall, rate),
            reading_pace: Pace::new(now, stall, rate),
            common_pace: Pace::new(now, stall, 0),
            asked: Instant::NEVER,
            waits_since,
        }
    }

    /// Sends again what a former attempt has taken from the client.
    pub(super) fn resend(&mut self) -> Result<(), Fault> {
        for piece in &self.attempts.replay.pieces {
            self.up.send_data(piece.clone())?;
        }
        if self.attempts.replay.is_over {
            self.end_upload()?;
        }
        Ok(())
    }

    /// Moves what can be moved and looks at the clock.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Relayed, Fault>> {
        self.exchange.down.timer.watch(cx);
        self.poll_upload(cx)?;
        let downloaded = self.poll_download(cx);
        if downloaded.is_err() {
            // What came before goes to the client still, as far as there is room for it.
            let _ = self.exchange.down.poll_send(cx);
        }
        match downloaded? {
            Some(relayed) => Poll::Ready(Ok(relayed)),
            None => self.poll_clock().map(Err),
        }
    }

    /// Takes the request's body from the client and gives it to the endpoint.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        loop {
            while self.upload == Upload::Reading && self.may_fill_up(cx) {
                match self.pass_upload(cx) {
                    Poll::Ready(passed) if passed? > 0 => continue,
                    Poll::Ready(_) => {}
                    Poll::Pending => break,
                }
                match self.exchange.down.poll_body(cx, self.exchange.core) {
                    Poll::Ready(piece) => self.give(piece?)?,
                    Poll::Pending => break,
                }
            }
            if self.upload != Upload::Reading {
                self.exchange.down.poll_watch(cx, self.exchange.core)?;
            }
            let was_full = self.up.is_full();
            if let Poll::Ready(Err(_)) = self.up.poll_send(cx)
                && self.upload != Upload::Stopped
            {
                // It will not read on, but it may have answered: what it said is read first.
                self.upload = Upload::Stopped;
                self.asked = self.asked.min(self.exchange.core.net.now());
                self.waits_since = self.waits_since.min(self.asked);
            }
            let may_read = self.upload == Upload::Reading && self.may_fill_up(cx);
            if !(was_full && may_read) {
                return Ok(());
            }
        }
    }

    /// Takes the answer from the endpoint and gives it to the client. Says how that ended when it has.
    fn poll_download(&mut self, cx: &mut Context<'_>) -> Result<Option<Relayed>, Fault> {
        loop {
            while self.download != Download::Done && self.may_fill_down(cx) {
                match self.pass_answer(cx) {
                    Poll::Ready(passed) if passed? > 0 => continue,
                    Poll::Ready(_) => {}
                    Poll::Pending => break,
                }
                match self.up.poll_answer(cx, self.exchange.core) {
                    Poll::Ready(Ok(ResponsePart::Switch)) => return self.switch().map(Some),
                    Poll::Ready(Ok(ResponsePart::Head)) => {
                        match self.attempts.hear(self.exchange, &self.up.head) {
                            Heard::Pass => self.take_head()?,
                            Heard::Retry(repeat) => return Ok(Some(Relayed::Nothing(repeat))),
                        }
                    }
                    Poll::Ready(Ok(part)) => self.take(part)?,
                    // What the client has is all that was announced, whether or not the endpoint ends it well: over
                    // HTTP/2 that is a matter of its own.
                    _ if self.download == Download::Body && self.exchange.down.is_whole() => {
                        self.take(ResponsePart::End)?;
                    }
                    Poll::Ready(Err(fault)) => return Err(fault),
                    Poll::Pending => break,
                }
            }
            let was_full = self.exchange.down.is_full();
            match self.exchange.down.poll_send(cx) {
                Poll::Ready(Err(_)) => {
                    return Err(Fault::downstream(Phase::Body, Reason::ClientClosed));
                }
                Poll::Ready(Ok(())) if self.download == Download::Done => {
                    return Ok(Some(Relayed::Response));
                }
                _ => {}
            }
            let may_read = self.download != Download::Done && self.may_fill_down(cx);
            if !(was_full && may_read) {
                return Ok(None);
            }
        }
    }

    /// Whether more of the request may be taken in: the endpoint takes it, and there is memory for it.
    #[inline]
    fn may_fill_up(&self, cx: &Context<'_>) -> bool {
        !self.up.is_full() && self.exchange.core.may_take_memory(cx)
    }

    /// Whether more of the answer may be taken in. Its head may in any case.
    #[inline]
    fn may_fill_down(&self, cx: &Context<'_>) -> bool {
        !self.exchange.down.is_full()
            && (self.download == Download::Head || self.exchange.core.may_take_memory(cx))
    }

    /// Lets a part of the request's body go to the endpoint unseen, if there is nothing to be kept of it: 0 bytes if not.
    fn pass_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let is_kept =
            self.exchange.down.head.method.is_idempotent() && self.attempts.replay.is_whole();
        let fits = match (self.route.body_bytes_max, self.exchange.down.request().body) {
            (None, _) => true,
            (Some(max), BodyKind::Length(length)) => length <= max,
            _ => false,
        };
        if is_kept || !fits {
            return Poll::Ready(Ok(0));
        }
        let Some((to, _)) = self.up.http1_connection() else {
            return Poll::Ready(Ok(0));
        };
        let (core, down) = (self.exchange.core, &mut self.exchange.down);
        let passed = ready!(down.poll_pass(cx, core, to))?;
        if passed > 0 {
            self.exchange.record.bytes_in += passed as u64;
            self.attempts.replay.lost = true;
        }
        Poll::Ready(Ok(passed))
    }

    /// Lets a part of the answer's body go to the client unseen, if it is bare on both sides: 0 bytes if not.
    fn pass_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        if self.download != Download::Body {
            return Poll::Ready(Ok(0));
        }
        let Some((from, head)) = self.up.http1_connection() else {
            return Poll::Ready(Ok(0));
        };
        let (core, down) = (self.exchange.core, &mut self.exchange.down);
        let passed = ready!(down.poll_pass_back(cx, core, from, head))?;
        self.exchange.record.bytes_out += passed as u64;
        Poll::Ready(Ok(passed))
    }

    /// Passes a part of the request on.
    fn give(&mut self, piece: Piece) -> Result<(), Fault> {
        let data = match piece {
            Piece::Data(data) => data,
            Piece::End => {
                self.attempts.replay.is_over = true;
                return self.end_upload();
            }
        };
        self.exchange.record.bytes_in += data.len() as u64;
        if self
            .route
            .body_bytes_max
            .is_some_and(|max| self.exchange.record.bytes_in > max)
        {
            return Err(Fault::local(Phase::Body, Reason::BodyTooLarge));
        }
        if self.exchange.down.head.method.is_idempotent() || self.up.may_refuse() {
            self.attempts
                .replay
                .keep(&data, self.exchange.core.net.pool());
        } else {
            self.attempts.replay.lost = true;
        }
        self.up.send_data(data)
    }

    fn end_upload(&mut self) -> Result<(), Fault> {
        if !self.exchange.down.trailers().is_empty() {
            self.exchange.enforce_trailers();
        }
        self.up.send_end(self.exchange.down.trailers())?;
        self.upload = Upload::Done;
        self.asked = self.exchange.core.net.now();
        self.waits_since = self.asked;
        Ok(())
    }

    /// The answer has come before the request was sent in full. What of it is still sent may be taken for anything by
    /// an endpoint that does not want it, so that the connection is not used again; and where the answer is a refusal,
    /// or the client has waited to hear whether its body is wanted, nothing more is sent at all.
    //= rfc9110#10.1.1
    fn answered_early(&mut self) {
        self.up.forsake();
        let was_asked = self.exchange.down.request().expects_continue;
        if was_asked {
            self.exchange.down.close_after();
        }
        if was_asked || self.up.head.status >= 300 {
            self.upload = Upload::Stopped;
        }
    }

    /// Whether an answer would be taken for a switch of protocols, which it is not.
    //= rfc8441#5
    // Any success opens the tunnel that an extended CONNECT asks for.
    fn seems_switched(&self) -> bool {
        self.exchange.down.is_http2()
            && self.exchange.down.request().upgrade.is_some()
            && matches!(self.up.head.status, 200..=299)
    }

    /// Begins the edits of the answer.
    fn begin_answer(&mut self) {
        self.exchange.record.is_relayed = true;
        self.exchange.begin_answer();
        self.exchange.complete_answer(&mut self.up.head);
    }

    /// Passes the head of the answer on.
    fn take_head(&mut self) -> Result<(), Fault> {
        if self.seems_switched() {
            return Err(bad_upgrade());
        }
        let now = self.exchange.core.net.now();
        let record = &mut self.exchange.record;
        record.first_byte_time = now.since(self.asked.min(now));
        record.status = self.up.head.status;
        if self.exchange.facts.is_grpc_call {
            record.grpc_status = grpc::said_in_head(&self.up.head, &self.up.block);
        }
        self.download = Download::Body;
        self.attempts.replay.forget();
        if self.upload == Upload::Reading {
            self.answered_early();
        }
        // What came before was the wait for an answer; the body's patience begins here.
        self.reading_pace.rest(now);
        self.common_pace.rest(now);
        let body = self.up.body();
        if let BodyKind::Length(length) = body {
            let high = self.exchange.down.queued_high() as u64;
            self.up.expect(length.min(high) as usize);
        }
        self.begin_answer();
        let (head, block) = (&self.up.head, &self.up.block);
        let edits = &self.exchange.buffers.to_client;
        let responded = self.exchange.down.respond(head, block, edits, body);
        responded.map(|_| ())
    }

    /// Passes a part of the answer on that is not its head.
    fn take(&mut self, part: ResponsePart) -> Result<(), Fault> {
        match part {
            ResponsePart::Interim => self.take_interim(),
            ResponsePart::Data(data) => {
                self.exchange.record.bytes_out += data.len() as u64;
                self.exchange.down.send_data(data)
            }
            ResponsePart::End => {
                self.download = Download::Done;
                let trailers = self.up.trailers();
                if self.exchange.facts.is_grpc_call {
                    let said = grpc::said_in(trailers.iter());
                    let record = &mut self.exchange.record;
                    record.grpc_status = said.or(record.grpc_status);
                }
                self.exchange.down.send_end(trailers)
            }
            ResponsePart::Head | ResponsePart::Switch => Ok(()),
        }
    }

    /// Passes an interim answer on. The endpoint is at work: the wait for its answer begins anew.
    fn take_interim(&mut self) -> Result<(), Fault> {
        let now = self.exchange.core.net.now();
        if self.up.head.status == 100 && self.upload == Upload::Reading {
            // Now it is the client's turn.
            self.waits_since = Instant::NEVER;
            self.upload_pace.rest(now);
        } else if self.waits_since != Instant::NEVER {
            self.waits_since = now;
        }
        if self.exchange.shows_request_id() {
            self.up.head.remove(FieldId::XRequestId);
        }
        self.exchange
            .down
            .respond_interim(&self.up.head, &self.up.block)
    }

    fn switch(&mut self) -> Result<Relayed, Fault> {
        self.exchange.record.status = self.up.head.status;
        let got = self.up.switched_to().ok_or(bad_upgrade())?;
        let down = &self.exchange.down;
        let asked = down.request().upgrade.map(|span| span.get(down.block));
        if asked.is_none_or(|asked| !asked.eq_ignore_ascii_case(got.get(&self.up.block))) {
            return Err(bad_upgrade());
        }
        self.begin_answer();
        let (head, block) = (&mut self.up.head, &self.up.block);
        let edits = &self.exchange.buffers.to_client;
        let down = &mut self.exchange.down;
        let switched = down.respond_switch(head, block, edits, got);
        switched.map(|()| Relayed::Switched)
    }

    /// Nothing more can be moved now: says how long that may last, and what it means when it has lasted too long.
    fn poll_clock(&mut self) -> Poll<Fault> {
        let now = self.exchange.core.net.now();
        if self.exchange.core.is_stopping() {
            return Poll::Ready(Fault::local(Phase::Body, Reason::ShuttingDown));
        }
        if now >= self.exchange.deadline {
            return Poll::Ready(Fault::local(self.phase(), Reason::TotalTimeout));
        }
        let held = || self.exchange.down.held() + self.up.held() + self.attempts.replay.held();
        if self.exchange.down.holds_too_much(self.exchange.core, held) {
            return Poll::Ready(Fault::local(self.phase(), Reason::MemoryLimit));
        }
        if now >= self.per_try && self.download == Download::Head {
            return Poll::Ready(Fault::upstream(
                self.phase(),
                Reason::FirstByteTimeout,
                Retry::IfIdempotent,
            ));
        }
        let due = match self.download {
            Download::Head => self.look_before_answer(now),
            Download::Body | Download::Done => self.look_within_answer(now),
        };
        match due {
            Ok(deadline) => {
                let bounds = self.exchange.deadline.min(self.per_try);
                self.exchange.down.timer.set(bounds.min(deadline));
                Poll::Pending
            }
            Err(fault) => Poll::Ready(fault),
        }
    }

    /// How long what is waited for may last while there is no answer: the request has to move, and then the answer has to
    /// begin.
    fn look_before_answer(&mut self, now: Instant) -> Result<Instant, Fault> {
        let waits_to_send = self.upload == Upload::Reading && self.waits_since != Instant::NEVER;
        if waits_to_send && self.exchange.record.bytes_in > 0 {
            // It did not wait any longer to hear whether its body is wanted.
            self.waits_since = Instant::NEVER;
            self.upload_pace.rest(now);
        }
        let mut deadline = self.waits_since + self.route.timeouts.first_byte;
        if now >= deadline {
            let late = Reason::FirstByteTimeout;
            return Err(Fault::upstream(Phase::FirstByte, late, Retry::Never));
        }
        let is_client_due = self.upload == Upload::Reading && self.waits_since == Instant::NEVER;
        if is_client_due || self.up.queued() > 0 {
            self.upload_pace
                .moved(now, self.up.sent() + self.exchange.record.bytes_in);
            // While the endpoint takes what comes, the client sets the pace.
            let is_rated = self.upload == Upload::Reading && !self.up.is_full();
            let pace = self.upload_pace.deadline(now, is_rated);
            if now >= pace {
                let is_endpoint = self.up.queued() > 0 && self.upload_pace.stands_still(now);
                return Err(match is_endpoint {
                    true => Fault::upstream(Phase::Send, Reason::UpstreamNotReading, Retry::Never),
                    false => Fault::downstream(Phase::Body, Reason::BodyTimeout),
                });
            }
            deadline = deadline.min(pace);
        }
        Ok(deadline)
    }

    /// The same once there is an answer. Bytes in either direction keep the exchange alive, however few: a stream in both
    /// directions, or of events, has its own pace. But what waits for the client has to be taken, and fast enough, whatever
    /// else the client does: it could make us keep what it does not read for ever, by a byte of its request now and then.
    fn look_within_answer(&mut self, now: Instant) -> Result<Instant, Fault> {
        let taken = self.exchange.down.progress();
        let moved =
            self.up.sent() + self.exchange.record.bytes_in + self.exchange.record.bytes_out + taken;
        self.common_pace.moved(now, moved);
        self.reading_pace.moved(now, taken);
        if self.exchange.down.queued() > 0 {
            let deadline = self.reading_pace.deadline(now, true);
            return match now >= deadline {
                true => Err(Fault::downstream(Phase::Body, Reason::ClientStalled)),
                false => Ok(deadline),
            };
        }
        self.reading_pace.rest(now);
        let deadline = self.common_pace.deadline(now, false);
        if now < deadline {
            return Ok(deadline);
        }
        Err(if self.up.queued() > 0 {
            Fault::upstream(Phase::Body, Reason::UpstreamNotReading, Retry::Never)
        } else if self.upload == Upload::Reading {
            Fault::downstream(Phase::Body, Reason::BodyTimeout)
        } else {
            Fault::upstream(Phase::Body, Reason::UpstreamStalled, Retry::Never)
        })
    }

    fn phase(&self) -> Phase {
        match (self.upload, self.download) {
            (Upload::Reading, Download::Head) => Phase::Send,
            (_, Download::Head) => Phase::FirstByte,
            _ => Phase::Body,
        }
    }
}

/// The endpoint switched protocols in another way than asked for, or seems to have.
fn bad_upgrade() -> Fault {
    Fault::upstream(Phase::FirstByte, Reason::BadUpgrade, Retry::Never)
}
