//! Moves the request to the endpoint and the answer to the client at the same time, until both are done or one fails.

mod filtered;
mod hedge;

use std::task::{Context, Poll, ready};

use weir_config::FailureKind;
use weir_proto_h1::{BodyKind, FieldId};

use super::attempts::{Attempts, Heard};
use super::failures::Repeat;
use super::pace::Pace;
use super::{Exchange, grpc};
use crate::conn::{RequestPart, ResponsePart, TunnelEnd};
use crate::core::after;
use crate::fault::{Fault, Phase, Reason, Retry};
use crate::io::{Instant, Net};
use crate::policy::errors::ErrorPage;
use crate::policy::filter::{Chain, Framed};
use crate::upstream::EndpointSide;
use hedge::Hedge;

/// Moves the bytes of one attempt.
pub(super) struct Relay<'r, 'a, N: Net> {
    exchange: &'r mut Exchange<'a, N>,
    attempts: &'r mut Attempts<'a, N>,
    up: &'r mut EndpointSide<N>,
    /// The deadline for the head of this attempt's answer.
    per_try: Instant,
    upload: Upload,
    download: Download,
    /// The filters of the request's body, and of the answer's. `None`: the body goes straight through.
    request_filters: Option<Box<Chain>>,
    answer_filters: Option<Box<Chain>>,
    /// The pace of the request's body before the answer begins.
    upload_pace: Pace,
    /// The pace at which the client reads the answer.
    reading_pace: Pace,
    /// The pace of both directions together once the answer has begun.
    common_pace: Pace,
    /// When the whole request was sent, or the endpoint stopped reading it.
    sent_at: Instant,
    /// When the wait for an answer began. An interim answer begins it anew.
    waits_since: Instant,
    /// The second attempt beside this one; `None` without a rule for it.
    hedge: Option<Box<Hedge<'a, N>>>,
}

/// The progress of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upload {
    Reading,
    /// The client has sent the whole request, and filters still work on it.
    Filtering,
    Done,
    /// The endpoint gets no more of the request. The endpoint's answer may still arrive.
    Stopped,
}

/// The progress of the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Download {
    /// The endpoint has not got the request's head: a filter holds it back.
    Unasked,
    Head,
    Body,
    /// The endpoint has sent the whole answer, and filters still work on it.
    Filtering,
    Done,
}

/// What became of one try to move a body through its filters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filtered {
    /// Something moved.
    Moved,
    /// The filters wait for a turn to work.
    Waits,
    /// The filters wait for input.
    Idle,
}

/// How a relay ended without a fault.
pub(super) enum Relayed<'a> {
    /// The client has the answer.
    Answered,
    /// The client gets no part of the answer: another attempt follows.
    Rejected(Repeat),
    /// The client gets this page in place of the answer.
    Replaced(&'a ErrorPage),
    /// Both sides have switched protocols.
    Switched,
}

impl<'r, 'a, N: Net> Relay<'r, 'a, N> {
    /// Begins to relay a request. [`Relay::begin`] writes its head.
    pub(super) fn new(
        exchange: &'r mut Exchange<'a, N>,
        up: &'r mut EndpointSide<N>,
        attempts: &'r mut Attempts<'a, N>,
    ) -> Self {
        let (timeouts, retry) = (attempts.timeouts(), attempts.retry());
        let now = exchange.core.net.now();
        let (stall, rate) = (timeouts.body_stall, timeouts.body_rate_bytes_min);
        // A gRPC client that pauses before it has an answer usually waits for one.
        let upload_stall = match exchange.facts.is_grpc_call {
            true => stall.max(timeouts.first_byte),
            false => stall,
        };
        // A client that expects 100 (Continue) waits for the endpoint.
        let waits_since = match exchange.down.request().expects_continue {
            true => now,
            false => Instant::NEVER,
        };
        let hedge = Hedge::new(exchange, attempts);
        Self {
            hedge,
            exchange,
            attempts,
            up,
            per_try: after(now, retry.per_try),
            upload: Upload::Reading,
            download: Download::Head,
            request_filters: None,
            answer_filters: None,
            upload_pace: Pace::new(now, upload_stall, rate),
            reading_pace: Pace::new(now, stall, rate),
            common_pace: Pace::new(now, stall, 0),
            sent_at: Instant::NEVER,
            waits_since,
        }
    }

    /// Sends the head of the request, and again the part of the body that earlier attempts have sent. A filter may hold
    /// the head back.
    pub(super) fn begin(&mut self) -> Result<(), Fault> {
        if self.attempts.has_steps() {
            self.request_filters = self.exchange.filter_request();
        }
        match self.request_filters.is_some() {
            true => self.send_filtered_request()?,
            false => self.up.request(
                self.exchange.down.request(),
                self.exchange.down.head,
                self.exchange.down.block,
                &self.exchange.buffers.to_upstream.edits,
            )?,
        }
        for piece in &self.attempts.replay.pieces {
            match &mut self.request_filters {
                None => self.up.send_data(piece.clone())?,
                Some(chain) => chain.push(piece.clone()),
            }
        }
        if self.attempts.replay.has_end {
            self.end_upload()?;
        }
        Ok(())
    }

    /// Moves all bytes that can move, then checks the deadlines.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Relayed<'a>, Fault>> {
        loop {
            match self.poll_once(cx) {
                Poll::Ready(Err(fault)) if self.hedge.is_some() && self.give_way(Some(fault)) => {}
                polled => return polled,
            }
        }
    }

    #[inline]
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<Result<Relayed<'a>, Fault>> {
        self.exchange.down.timer.watch(cx);
        self.poll_upload(cx)?;
        let downloaded = self.poll_download(cx);
        if downloaded.is_err() {
            // The client still gets the bytes that arrived before the fault, as far as its connection takes them.
            let _ = self.exchange.down.poll_send(cx);
        }
        match downloaded? {
            Some(relayed) => Poll::Ready(Ok(relayed)),
            None => self.poll_clock().map(Err),
        }
    }

    /// Moves the request's body from the client to the endpoint.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        loop {
            while matches!(self.upload, Upload::Reading | Upload::Filtering)
                && self.may_read_request(cx)
            {
                if self.request_filters.is_some() {
                    match self.move_filtered_request(cx)? {
                        Filtered::Moved => continue,
                        Filtered::Waits => break,
                        Filtered::Idle => {}
                    }
                }
                match self.splice_upload(cx) {
                    Poll::Ready(passed) if passed? > 0 => continue,
                    Poll::Ready(_) => {}
                    Poll::Pending => break,
                }
                match self.exchange.down.poll_body(cx, self.exchange.core) {
                    Poll::Ready(piece) => self.send_piece(piece?)?,
                    Poll::Pending => match flush(&mut self.request_filters) {
                        true => continue,
                        false => break,
                    },
                }
            }
            if self.upload != Upload::Reading {
                self.exchange.down.poll_watch(cx, self.exchange.core)?;
            }
            let was_full = self.up.is_full();
            if let Poll::Ready(Err(_)) = self.up.poll_send(cx)
                && self.upload != Upload::Stopped
            {
                // The endpoint reads no more, but it may have answered already.
                self.upload = Upload::Stopped;
                self.sent_at = self.sent_at.min(self.exchange.core.net.now());
                self.waits_since = self.waits_since.min(self.sent_at);
            }
            // Most queues are short, so this asks for memory only if the send has made room.
            let may_go_on = was_full
                && matches!(self.upload, Upload::Reading | Upload::Filtering)
                && self.may_read_request(cx);
            if !may_go_on {
                return Ok(());
            }
        }
    }

    /// Moves the answer from the endpoint to the client. Returns how the relay ended, if it has.
    fn poll_download(&mut self, cx: &mut Context<'_>) -> Result<Option<Relayed<'a>>, Fault> {
        if self.hedge.is_some()
            && self.download == Download::Head
            && self.poll_hedge(cx)
            && let Some(relayed) = self.hear_head()?
        {
            return Ok(Some(relayed));
        }
        loop {
            while self.is_downloading() && self.may_read_answer(cx) {
                if self.answer_filters.is_some() {
                    match self.move_filtered_answer(cx)? {
                        Filtered::Moved => continue,
                        Filtered::Waits => break,
                        Filtered::Idle => {}
                    }
                }
                match self.splice_answer(cx) {
                    Poll::Ready(passed) if passed? > 0 => continue,
                    Poll::Ready(_) => {}
                    Poll::Pending => break,
                }
                match self.up.poll_response(cx, self.exchange.core) {
                    Poll::Ready(Ok(ResponsePart::Switch)) => return self.switch().map(Some),
                    Poll::Ready(Ok(ResponsePart::Head)) => {
                        if self.hedge.is_some() && self.prefers_hedge() {
                            continue;
                        }
                        if let Some(relayed) = self.hear_head()? {
                            return Ok(Some(relayed));
                        }
                    }
                    Poll::Ready(Ok(part)) => self.send_part(part)?,
                    // The client has all of the announced length, however the endpoint ends its stream.
                    _ if self.download == Download::Body && self.has_whole_answer() => {
                        self.send_part(ResponsePart::End)?;
                    }
                    Poll::Ready(Err(fault)) => return Err(fault),
                    Poll::Pending => match flush(&mut self.answer_filters) {
                        true => continue,
                        false => break,
                    },
                }
            }
            let was_full = self.exchange.down.is_full();
            match self.exchange.down.poll_send(cx) {
                Poll::Ready(Err(_)) => {
                    return Err(Fault::downstream(Phase::Body, Reason::ClientClosed));
                }
                Poll::Ready(Ok(())) if self.download == Download::Done => {
                    return Ok(Some(Relayed::Answered));
                }
                _ => {}
            }
            if !(was_full && self.is_downloading() && self.may_read_answer(cx)) {
                return Ok(None);
            }
        }
    }

    /// Judges the answer by its head, and passes the head on. Returns how the relay ended, if it has.
    #[inline]
    fn hear_head(&mut self) -> Result<Option<Relayed<'a>>, Fault> {
        match self
            .attempts
            .judge_head(self.exchange, &self.up.head, &self.up.block)
        {
            Heard::Pass => self.send_head().map(|()| None),
            Heard::Retry(repeat) => Ok(Some(Relayed::Rejected(repeat))),
            Heard::Replace(page) => Ok(Some(self.replace(page))),
        }
    }

    /// Whether more of the answer may come, from the endpoint or out of filters.
    #[inline]
    fn is_downloading(&self) -> bool {
        !matches!(self.download, Download::Done | Download::Unasked)
    }

    /// Whether the client has got, or the filters have, as many bytes as the head of the answer announced. Always false
    /// over HTTP/2, where trailers may follow.
    fn has_whole_answer(&mut self) -> bool {
        match &self.answer_filters {
            None => self.exchange.down.has_whole_answer(),
            Some(chain) => chain.has_whole_body() && !self.exchange.down.is_http2(),
        }
    }

    /// Whether to receive more of the request: the queue to the endpoint has room, and memory suffices.
    #[inline]
    fn may_read_request(&self, cx: &Context<'_>) -> bool {
        !self.up.is_full() && self.exchange.core.may_take_memory(cx)
    }

    /// Whether to receive more of the answer: the queue to the client has room, and memory suffices. A head needs no
    /// memory.
    #[inline]
    fn may_read_answer(&self, cx: &Context<'_>) -> bool {
        !self.exchange.down.is_full()
            && (self.download == Download::Head || self.exchange.core.may_take_memory(cx))
    }

    /// Splices bytes of the request's body to the endpoint and returns how many. 0: Weir keeps the body for another
    /// attempt, has to check its length, or cannot splice now.
    fn splice_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let is_kept = self.attempts.may_repeat(self.exchange) && self.attempts.replay.is_whole();
        let fits = match (
            self.attempts.body_bytes_max(),
            self.exchange.down.request().body,
        ) {
            (None, _) => true,
            (Some(max), BodyKind::Length(length)) => length <= max,
            _ => false,
        };
        if is_kept || !fits || self.request_filters.is_some() || self.attempts.mirror.is_some() {
            return Poll::Ready(Ok(0));
        }
        let Some((to, _)) = self.up.http1_connection() else {
            return Poll::Ready(Ok(0));
        };
        let (core, down) = (self.exchange.core, &mut self.exchange.down);
        let passed = ready!(down.poll_splice(cx, core, to))?;
        if passed > 0 {
            self.exchange.record.bytes_in += passed as u64;
            self.attempts.replay.forget();
        }
        Poll::Ready(Ok(passed))
    }

    /// Splices bytes of the answer's body to the client and returns how many. 0: splicing is not possible now.
    fn splice_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        if self.download != Download::Body || self.answer_filters.is_some() {
            return Poll::Ready(Ok(0));
        }
        let Some((from, head)) = self.up.http1_connection() else {
            return Poll::Ready(Ok(0));
        };
        let (core, down) = (self.exchange.core, &mut self.exchange.down);
        let passed = ready!(down.poll_splice_back(cx, core, from, head))?;
        self.exchange.record.bytes_out += passed as u64;
        Poll::Ready(Ok(passed))
    }

    /// Sends a part of the request's body to the endpoint.
    fn send_piece(&mut self, piece: RequestPart) -> Result<(), Fault> {
        let data = match piece {
            RequestPart::Data(data) => data,
            RequestPart::End => {
                self.attempts.replay.has_end = true;
                if self.attempts.mirror.is_some() {
                    self.attempts.send_mirror(self.exchange);
                }
                return self.end_upload();
            }
        };
        self.exchange.record.bytes_in += data.len() as u64;
        if self
            .attempts
            .body_bytes_max()
            .is_some_and(|max| self.exchange.record.bytes_in > max)
        {
            return Err(Fault::local(Phase::Body, Reason::BodyTooLarge));
        }
        if self.attempts.mirror.is_some() {
            self.attempts.mirror_piece(self.exchange, &data);
        }
        if self.attempts.may_repeat(self.exchange) || self.up.may_refuse() {
            self.attempts
                .replay
                .keep(&data, self.exchange.core.net.pool());
        } else {
            self.attempts.replay.forget();
        }
        match &mut self.request_filters {
            None => self.up.send_data(data),
            Some(chain) => {
                chain.push(data);
                Ok(())
            }
        }
    }

    /// Ends the request, or lets its filters end it.
    fn end_upload(&mut self) -> Result<(), Fault> {
        if !self.exchange.down.trailers().is_empty() {
            self.exchange.enforce_trailers();
        }
        if let Some(chain) = &mut self.request_filters {
            chain.end(self.exchange.down.trailers());
            self.upload = Upload::Filtering;
            return Ok(());
        }
        self.up.send_end(self.exchange.down.trailers())?;
        self.note_upload();
        Ok(())
    }

    /// Notes that the whole request was sent.
    fn note_upload(&mut self) {
        self.upload = Upload::Done;
        self.sent_at = self.exchange.core.net.now();
        self.waits_since = self.sent_at;
    }

    /// Handles an answer that arrives before the whole request was sent. The endpoint may misread the rest of the body,
    /// so no other request uses its connection. If the answer is a refusal, or the client expects 100 (Continue), Weir
    /// does not send the rest.
    //= rfc9110#10.1.1
    fn answered_early(&mut self) {
        self.up.forsake();
        let expects_continue = self.exchange.down.request().expects_continue;
        if expects_continue {
            self.exchange.down.close_after();
        }
        if expects_continue || self.up.head.status >= 300 {
            self.upload = Upload::Stopped;
        }
    }

    /// Whether the client would read this answer as a switch of protocols although it is none.
    //= rfc8441#5
    // Any success opens the tunnel that an extended CONNECT asks for.
    fn seems_switched(&self) -> bool {
        self.exchange.down.is_http2()
            && self.exchange.down.request().upgrade.is_some()
            && matches!(self.up.head.status, 200..=299)
    }

    /// Makes the edits of the answer. `body` follows its head. Returns the filters of the body.
    fn begin_answer(&mut self, body: BodyKind) -> Option<Box<Chain>> {
        self.exchange.record.is_relayed = true;
        self.exchange.begin_answer();
        let up = &mut *self.up;
        if let Some(session) = &self.attempts.session {
            let head = (&mut up.head, &up.block[..]);
            self.exchange
                .settle_session(self.attempts.upstream, session, head);
        }
        self.exchange.complete_answer(&mut up.head, &up.block, body)
    }

    /// Ends the relay of an answer that a page replaces. The endpoint gets no more of the request.
    fn replace(&mut self, page: &'a ErrorPage) -> Relayed<'a> {
        let now = self.exchange.core.net.now();
        self.exchange.record.first_byte_time = now.since(self.sent_at.min(now));
        self.attempts
            .observe(&self.exchange.record, self.up.head.status, now);
        if self.upload == Upload::Reading {
            self.answered_early();
        }
        Relayed::Replaced(page)
    }

    /// Sends the head of the answer to the client.
    fn send_head(&mut self) -> Result<(), Fault> {
        if self.seems_switched() {
            return Err(bad_upgrade());
        }
        let now = self.exchange.core.net.now();
        let record = &mut self.exchange.record;
        record.first_byte_time = now.since(self.sent_at.min(now));
        record.status = self.up.head.status;
        self.attempts.observe(record, record.status, now);
        if self.exchange.facts.is_grpc_call {
            record.grpc_status = grpc::status_in_head(&self.up.head, &self.up.block);
        }
        self.download = Download::Body;
        if self.hedge.is_some() {
            self.end_hedge(now);
        }
        self.attempts.replay.forget();
        if matches!(self.upload, Upload::Reading | Upload::Filtering) {
            self.answered_early();
        }
        // The wait for the answer is over; the body gets its full time.
        self.reading_pace.restart(now);
        self.common_pace.restart(now);
        let body = self.up.body();
        if let BodyKind::Length(length) = body {
            let high = self.exchange.down.queued_high() as u64;
            self.up.expect(length.min(high) as usize);
        }
        self.answer_filters = self.begin_answer(body);
        if self.answer_filters.is_none() {
            return self.respond(body);
        }
        let (filters, head) = (&mut self.answer_filters, &mut self.up.head);
        match self.exchange.filter_answer(filters, head, body) {
            Framed::Now(body) => self.respond(body),
            Framed::Later => Ok(()),
        }
    }

    fn respond(&mut self, body: BodyKind) -> Result<(), Fault> {
        let (head, block) = (&self.up.head, &self.up.block);
        let edits = &self.exchange.buffers.to_client;
        let responded = self.exchange.down.respond(head, block, edits, body);
        responded.map(|_| ())
    }

    /// Sends a part of the answer other than its head to the client.
    fn send_part(&mut self, part: ResponsePart) -> Result<(), Fault> {
        match part {
            ResponsePart::Interim => self.send_interim(),
            ResponsePart::Data(data) => match &mut self.answer_filters {
                None => {
                    self.exchange.record.bytes_out += data.len() as u64;
                    self.exchange.down.send_data(data)
                }
                Some(chain) => {
                    chain.push(data);
                    Ok(())
                }
            },
            ResponsePart::End => {
                let trailers = self.up.trailers();
                if self.exchange.facts.is_grpc_call {
                    let status = grpc::status_in(trailers.iter());
                    let record = &mut self.exchange.record;
                    record.grpc_status = status.or(record.grpc_status);
                }
                if let Some(chain) = &mut self.answer_filters {
                    chain.end(trailers);
                    self.download = Download::Filtering;
                    return Ok(());
                }
                self.download = Download::Done;
                self.exchange.down.send_end(trailers)
            }
            ResponsePart::Head | ResponsePart::Switch => Ok(()),
        }
    }

    /// Sends an interim answer to the client. The wait for the final answer begins anew.
    fn send_interim(&mut self) -> Result<(), Fault> {
        let now = self.exchange.core.net.now();
        if self.up.head.status == 100 && self.upload == Upload::Reading {
            // Now the client has to send its body.
            self.waits_since = Instant::NEVER;
            self.upload_pace.restart(now);
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

    /// Sends the head of an answer that switches protocols, if the client has asked for that protocol.
    fn switch(&mut self) -> Result<Relayed<'a>, Fault> {
        self.exchange.record.status = self.up.head.status;
        let chosen = self.up.switched_to().ok_or_else(bad_upgrade)?;
        let down = &self.exchange.down;
        let wanted = down.request().upgrade.map(|span| span.get(down.block));
        if wanted.is_none_or(|wanted| !wanted.eq_ignore_ascii_case(chosen.get(&self.up.block))) {
            return Err(bad_upgrade());
        }
        // Nothing filters what is not HTTP.
        let _ = self.begin_answer(BodyKind::None);
        let (head, block) = (&mut self.up.head, &self.up.block);
        let edits = &self.exchange.buffers.to_client;
        let down = &mut self.exchange.down;
        let switched = down.respond_switch(head, block, edits, chosen);
        switched.map(|()| Relayed::Switched)
    }

    /// Checks the deadlines, and sets the timer to the next one. Ready with a fault if a deadline has passed.
    fn poll_clock(&mut self) -> Poll<Fault> {
        let now = self.exchange.core.net.now();
        if self.exchange.core.is_stopping() {
            return Poll::Ready(Fault::local(Phase::Body, Reason::ShuttingDown));
        }
        if now >= self.exchange.deadline {
            return Poll::Ready(Fault::local(self.phase(), Reason::TotalTimeout));
        }
        let chains = [&self.request_filters, &self.answer_filters];
        let filtered = || {
            chains
                .into_iter()
                .flatten()
                .map(|chain| chain.held())
                .sum::<usize>()
        };
        let replayed = || self.attempts.replay.held();
        let held = || self.exchange.down.held() + self.up.held() + replayed() + filtered();
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
            Download::Unasked | Download::Head => self.deadline_before_answer(now),
            Download::Body | Download::Filtering | Download::Done => {
                self.deadline_within_answer(now)
            }
        };
        match due {
            Ok(deadline) => {
                let mut bounds = self.exchange.deadline.min(self.per_try);
                if self.hedge.is_some() {
                    bounds = bounds.min(self.hedge_due());
                }
                self.exchange.down.timer.set(bounds.min(deadline));
                Poll::Pending
            }
            Err(fault) => Poll::Ready(fault),
        }
    }

    /// The next deadline before the answer: the request must move, then the answer must begin.
    fn deadline_before_answer(&mut self, now: Instant) -> Result<Instant, Fault> {
        let waits_to_send = self.upload == Upload::Reading && self.waits_since != Instant::NEVER;
        if waits_to_send && self.exchange.record.bytes_in > 0 {
            // The client sends its body without waiting for 100 (Continue) any longer.
            self.waits_since = Instant::NEVER;
            self.upload_pace.restart(now);
        }
        let mut deadline = self.waits_since + self.attempts.timeouts().first_byte;
        if now >= deadline {
            let late = Reason::FirstByteTimeout;
            return Err(Fault::upstream(
                Phase::FirstByte,
                late,
                self.retry_when_late(),
            ));
        }
        let is_client_due = self.upload == Upload::Reading && self.waits_since == Instant::NEVER;
        if is_client_due || self.up.queued() > 0 {
            self.upload_pace
                .record_progress(now, self.up.sent() + self.exchange.record.bytes_in);
            // While the endpoint reads, the client sets the pace.
            let is_rated = self.upload == Upload::Reading && !self.up.is_full();
            let pace = self.upload_pace.deadline(now, is_rated);
            if now >= pace {
                let is_endpoint = self.up.queued() > 0 && self.upload_pace.is_standing_still(now);
                return Err(match is_endpoint {
                    true => {
                        let late = Reason::UpstreamNotReading;
                        Fault::upstream(Phase::Send, late, self.retry_when_late())
                    }
                    false => Fault::downstream(Phase::Body, Reason::BodyTimeout),
                });
            }
            deadline = deadline.min(pace);
        }
        Ok(deadline)
    }

    /// Whether another attempt may follow one that ran out of time before its answer.
    fn retry_when_late(&self) -> Retry {
        match self.attempts.retry().repeats_on(FailureKind::Timeout) {
            true => Retry::IfIdempotent,
            false => Retry::Never,
        }
    }

    /// The next deadline once the answer has begun. A byte in either direction keeps the exchange alive, because
    /// streams of events and streams in both directions have their own pace. But the client must read the bytes queued
    /// for it, and fast enough. Otherwise a client that sends a byte now and then could make Weir hold the queue for
    /// ever.
    fn deadline_within_answer(&mut self, now: Instant) -> Result<Instant, Fault> {
        let taken = self.exchange.down.progress();
        // What a filter collects moves too.
        let filtered = self
            .answer_filters
            .as_ref()
            .map_or(0, |chain| chain.received());
        let record = &self.exchange.record;
        let moved = self.up.sent() + record.bytes_in + record.bytes_out + filtered + taken;
        self.common_pace.record_progress(now, moved);
        self.reading_pace.record_progress(now, taken);
        if self.exchange.down.queued() > 0 {
            let deadline = self.reading_pace.deadline(now, true);
            return match now >= deadline {
                true => Err(Fault::downstream(Phase::Body, Reason::ClientStalled)),
                false => Ok(deadline),
            };
        }
        self.reading_pace.restart(now);
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
            (Upload::Reading | Upload::Filtering, Download::Head) => Phase::Send,
            (_, Download::Unasked) => Phase::Send,
            (_, Download::Head) => Phase::FirstByte,
            _ => Phase::Body,
        }
    }
}

/// Lets what the filters have got leave, because its sender pauses. Returns whether there is something.
#[inline]
fn flush(filters: &mut Option<Box<Chain>>) -> bool {
    filters.as_mut().is_some_and(|chain| chain.flush())
}

/// The fault of an endpoint that switched protocols unasked, or to another protocol than asked.
fn bad_upgrade() -> Fault {
    Fault::upstream(Phase::FirstByte, Reason::BadUpgrade, Retry::Never)
}
