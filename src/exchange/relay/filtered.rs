//! Moves bodies that go through filters.

use std::task::{Context, Poll};

use weir_proto_h1::{BodyKind, Head, Request};

use super::{Download, Filtered, Relay};
use crate::core::after;
use crate::exchange::filtering::poll_part;
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Instant, Net};
use crate::policy::filter::{Framed, Part};

impl<N: Net> Relay<'_, '_, N> {
    /// Sends the head of the request, unless a filter holds it back.
    #[cold]
    pub(super) fn send_filtered_request(&mut self) -> Result<(), Fault> {
        let body = self.exchange.down.request().body;
        match self.filter_request_head(body) {
            Some(body) => self.ask(body),
            None => {
                self.download = Download::Unasked;
                self.invite_body()
            }
        }
    }

    /// Passes the request's head along its filters. Returns how the filtered body is framed, unless the head has to
    /// wait for it.
    fn filter_request_head(&mut self, body: BodyKind) -> Option<BodyKind> {
        let edits = &mut self.exchange.buffers.to_upstream.edits;
        let chain = self.request_filters.as_mut()?;
        match chain.head(self.exchange.down.head, edits, body) {
            Framed::Now(body) => Some(body),
            Framed::Later => None,
        }
    }

    /// Sends the head of the request with this framing.
    fn ask(&mut self, body: BodyKind) -> Result<(), Fault> {
        let now = self.exchange.core.net.now();
        self.download = Download::Head;
        self.per_try = after(now, self.attempts.retry().per_try);
        let down = &self.exchange.down;
        let request = Request {
            body,
            ..*down.request()
        };
        let edits = &self.exchange.buffers.to_upstream.edits;
        self.up.request(&request, down.head, down.block, edits)
    }

    /// Lets a client that waits for 100 (Continue) send its body: the endpoint cannot say so before it has the head,
    /// which waits for the body.
    fn invite_body(&mut self) -> Result<(), Fault> {
        if !self.exchange.down.request().expects_continue {
            return Ok(());
        }
        self.waits_since = Instant::NEVER;
        self.upload_pace.restart(self.exchange.core.net.now());
        let head = Head::with_status(100);
        self.exchange.down.respond_interim(&head, &[])
    }

    /// Moves the next part of the request out of its filters.
    #[cold]
    pub(super) fn move_filtered_request(&mut self, cx: &Context<'_>) -> Result<Filtered, Fault> {
        let Some(chain) = &mut self.request_filters else {
            return Ok(Filtered::Idle);
        };
        match poll_part(chain, cx, self.exchange.core) {
            Poll::Pending if chain.has_work() => return Ok(Filtered::Waits),
            Poll::Pending if chain.has_ended() => return Err(unended()),
            Poll::Pending => return Ok(Filtered::Idle),
            Poll::Ready(part) => match part? {
                Part::Head => {
                    if let Some(body) = self.filter_request_head(BodyKind::None) {
                        self.ask(body)?;
                    }
                }
                Part::Data(data) => self.up.send_data(data)?,
                Part::End => {
                    self.up.send_end(chain.trailers())?;
                    self.request_filters = None;
                    self.note_upload();
                }
            },
        }
        Ok(Filtered::Moved)
    }

    /// Moves the next part of the answer out of its filters.
    #[cold]
    pub(super) fn move_filtered_answer(&mut self, cx: &Context<'_>) -> Result<Filtered, Fault> {
        let Some(chain) = &mut self.answer_filters else {
            return Ok(Filtered::Idle);
        };
        match poll_part(chain, cx, self.exchange.core) {
            Poll::Pending if chain.has_work() => return Ok(Filtered::Waits),
            Poll::Pending if chain.has_ended() => return Err(unended()),
            Poll::Pending => return Ok(Filtered::Idle),
            Poll::Ready(part) => match part? {
                Part::Head => {
                    let edits = &mut self.exchange.buffers.to_client;
                    if let Framed::Now(body) = chain.head(&self.up.head, edits, BodyKind::None) {
                        self.respond(body)?;
                    }
                }
                Part::Data(data) => {
                    self.exchange.record.bytes_out += data.len() as u64;
                    self.exchange.down.send_data(data)?;
                }
                Part::End => {
                    self.exchange.down.send_end(chain.trailers())?;
                    self.answer_filters = None;
                    self.download = Download::Done;
                }
            },
        }
        Ok(Filtered::Moved)
    }
}

/// A bug in a filter: it does not end.
fn unended() -> Fault {
    Fault::local(Phase::Body, Reason::Internal)
}
